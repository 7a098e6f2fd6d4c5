"""Trains one variant on encoders that all variants share, and says what it makes of the held parts.

The encoders are made or loaded once, and features are computed once for each kind of keys. Where the recipe tunes
their last blocks, every variant and seed tunes copies of its own. After train.py's steps 1 and 2; before runs.py, which
takes a Learner as it is.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np

import mmcat.model
import training.baselines
import training.engine
import training.features
import training.fusion
import training.fusion_step
import training.losses
import training.optimisation
import training.order
import training.splits
import training.stem
import training.store
import training.task
import training.tune
import training.views
import training.weights
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from training.baselines import plain_answers
from training.compare.kept import Arrays, code_digest
from training.compare.plan import Keys, Variant
from training.data import Dataset
from training.errors import RecipeError
from training.features import titles
from training.fusion import Inputs, Withheld, logits
from training.fusion_step import FusionStep
from training.progress import Progress
from training.recipe import Recipe
from training.splits import SHARES, Split, frozen_split
from training.steps import Encoders, EncoderSteps
from training.train import FAMILY

_LEARNING = (
    mmcat.model,
    training.engine,
    training.features,
    training.fusion,
    training.fusion_step,
    training.losses,
    training.optimisation,
    training.order,
    training.splits,
    training.stem,
    training.store,
    training.task,
    training.tune,
    training.views,
    training.weights,
)  # whose code decides what is learned
WITHHELD: tuple[Withheld, ...] = ("image", "text")


class Learner(Protocol):
    """What a comparison needs of the training that it compares."""

    @property
    def dataset(self) -> Dataset: ...
    @property
    def split(self) -> Split: ...
    @property
    def recipe(self) -> Recipe: ...

    def facts(self, variant: Variant | None) -> Mapping[str, Any]:
        """All that a run depends on besides its seed; of None: the plain baselines."""

    def there(self, part: str) -> Mapping[str, Any]:
        """By "text" and "image": bool [rows of the part], whether the listing has it."""

    def learn(self, variant: Variant, seed: int, parts: tuple[str, ...]) -> Arrays:
        """Trains and gives level logits as "PART.LEVEL", with a modality withheld as "PART without image.LEVEL"."""

    def plain(self, part: str) -> Arrays:
        """What each plain baseline answers to the part: taxonomy rows by name."""


@dataclass(frozen=True)
class Material:
    """What all variants of one kind of keys share: frozen encoders, and what they made of the listings."""

    step: FusionStep
    encoders: Encoders
    inputs: Inputs

    @property
    def recipe(self) -> Recipe:
        """With these keys."""
        return self.step.recipe


@dataclass(frozen=True)
class FeatureLearner:
    """Learns on cached features of frozen encoders, as train.py does.

    Args:
        materials: by kind of keys; the first is that of variants which name none.
    """

    dataset: Dataset
    split: Split
    materials: Mapping[Keys, Material]

    @property
    def recipe(self) -> Recipe:
        return self._of(None).recipe

    def _of(self, variant: Variant | None) -> Material:
        named = variant.keys if variant is not None else None
        return self.materials[named if named is not None else next(iter(self.materials))]

    def facts(self, variant: Variant | None) -> dict[str, Any]:
        of = self._of(variant)
        text = hashlib.sha256("\n".join(titles(self.dataset, of.encoders.preprocessing)).encode())
        shared = {
            "split": self.split.fingerprint,
            "titles": text.hexdigest(),
            # Their names hold the encoders, the preprocessing, the photos, their views and the precision.
            "features": [one.name for one in (of.inputs.text, of.inputs.image) if one is not None],
            "shape": of.encoders.model.config.to_json(),
        }
        if variant is None:
            return shared | {"code": code_digest(str(training.baselines.__file__))}
        return shared | {
            "model": [*FAMILY[variant.model].shape(self.dataset.taxonomy)],
            "recipe": of.recipe.fusion.model_dump(mode="json"),
            "blocks": variant.blocks,
            "heads": variant.heads,
            **({} if variant.share is None else {"share": variant.share}),
            "code": code_digest(*(str(module.__file__) for module in _LEARNING)),
        }

    def there(self, part: str) -> dict[str, Any]:
        rows = self.split.rows(part, self.dataset)
        inputs = self._of(None).inputs
        found = {"text": inputs.text, "image": inputs.image}
        return {name: np.ones(len(rows), np.bool_) if one is None else one.there[rows] for name, one in found.items()}

    def learn(self, variant: Variant, seed: int, parts: tuple[str, ...]) -> Arrays:
        of, modality = self._of(variant), FAMILY[variant.model].modality
        if variant.share is not None and of.recipe.encoders != "pretrained":
            raise RecipeError(
                "a learning curve needs encoders that come trained: these have seen all of the training part"
            )
        if variant.model in of.encoders.singles:
            model = of.encoders.singles[variant.model]  # trained whole in step 1 or 2, of which there is one
            return self._answers(model, of.inputs, modality, parts)
        stage = f"{variant.name}, seed {seed}"
        step = of.step if variant.share is None else of.step.of_share(variant.share)
        encoders, model, _ = step.learn(of.encoders, self._config(variant), of.inputs, seed=seed, stage=stage)
        if encoders is of.encoders:
            return self._answers(model, of.inputs, modality, parts)
        with TemporaryDirectory() as scratch:  # nobody asks for the features of these encoders again
            return self._answers(model, of.step.inputs(encoders, Path(scratch)), modality, parts)

    def _answers(self, model: CategoryModel, inputs: Inputs, modality: str, parts: tuple[str, ...]) -> Arrays:
        found: Arrays = {}
        for part in parts:
            for withheld in (None, *(WITHHELD if modality == "both" else ())):
                name = part if withheld is None else f"{part} without {withheld}"
                levels = logits(model, inputs, self.split.rows(part, self.dataset), withheld)
                found |= {f"{name}.{level}": level_NC for level, level_NC in enumerate(levels)}
        return found

    def plain(self, part: str) -> Arrays:
        of = self._of(None)
        if of.inputs.text is None or of.inputs.image is None:
            return {}
        texts = titles(self.dataset, of.encoders.preprocessing)
        train_rows, held_rows = (self.split.rows(name, self.dataset) for name in ("train", part))
        vectors = (of.inputs.text, of.inputs.image)
        return dict(plain_answers(texts, vectors, self.dataset.targets, train_rows, held_rows, of.step.progress))

    def _config(self, variant: Variant) -> ModelConfig:
        config = self._of(variant).encoders.config(*FAMILY[variant.model].shape(self.dataset.taxonomy))
        return replace(config, blocks=variant.blocks or config.blocks, heads=variant.heads or config.heads)


def feature_learner(
    dataset: Dataset,
    recipe: Recipe,
    *,
    encoders: str | Path | None,
    cache: Path,
    progress: Progress,
    keys: Sequence[Keys] = (),
    shares: Mapping[str, float] = SHARES,
    seed: int = 0,
    device: str = "cpu",
) -> FeatureLearner:
    """Makes or loads the encoders and computes features that are not cached; blocks for minutes.

    Args:
        keys: kinds of keys that will be asked for; none: the recipe's.
        seed: of the split, and of encoders that are trained from nothing.

    Raises:
        RecipeError: the split has no part to measure on.
    """
    split = frozen_split(dataset, cache, seed, shares)
    if not len(split.rows("select", dataset)):
        raise RecipeError(f"{dataset.name} is too small to compare on: its part select has no rows")
    materials: dict[Keys, Material] = {}
    for kind in keys or (recipe.fusion.keys,):
        of = recipe.with_keys(kind, one_cell=dataset.photo_vectors is not None)
        train_rows, select_rows = (split.rows(part, dataset) for part in ("train", "select"))
        steps = EncoderSteps(dataset, of, train_rows, select_rows, seed, progress, encoders=encoders, device=device)
        made = steps.run()
        step = FusionStep(dataset, of, cache, train_rows, select_rows, progress, device)
        materials[kind] = Material(step, made, step.inputs(made))
    return FeatureLearner(dataset, split, materials)
