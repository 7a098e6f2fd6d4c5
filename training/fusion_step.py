"""Step 3 for one model: the fusion on features, and with it the encoders' last blocks where the recipe says so.

    encoders ─> features, once ─> fusion and heads ─────────────────────────> model
             └> [last blocks], fusion and heads ─> features anew ───────────> model and encoders of its own

After features.py, fusion.py, tune.py; before train.py and compare/.
"""

import math
from dataclasses import dataclass, replace
from pathlib import Path

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from training.data import Dataset
from training.errors import RecipeError
from training.features import FeatureCache, titles
from training.fusion import Inputs, learn
from training.hardware import processes
from training.order import Rows
from training.progress import Progress
from training.recipe import Recipe
from training.splits import share_of_groups
from training.stem import make_stem
from training.steps import Encoders
from training.task import NOTHING, Fitted, Keep
from training.tune import Photos, Sources, learn_tuned


@dataclass(frozen=True, slots=True)
class FusionStep:
    """What all models of a run learn from, and how.

    Args:
        cache: folder of features, and of what frozen blocks made of photos.
    """

    dataset: Dataset
    recipe: Recipe
    cache: Path
    train_rows: Rows
    select_rows: Rows
    progress: Progress
    device: str = "cpu"

    def inputs(self, encoders: Encoders, scratch: Path | None = None) -> Inputs:
        """What encoders make of all listings, from the cache or into it; blocks for minutes where it is new.

        Args:
            scratch: for what encoders make that were tuned, in place of the cache.
        """
        tune = self.recipe.fusion.tune
        text_cache = FeatureCache(scratch if scratch and tune.text_layers else self.cache, self.recipe.features)
        image_cache = FeatureCache(scratch if scratch and tune.image_blocks else self.cache, self.recipe.features)
        made, text, image = encoders.model, None, None
        if encoders.tokenizer is not None:
            text = text_cache.text(self.dataset, made, encoders.tokenizer, encoders.preprocessing, self.progress)
        if made.config.reads_image:
            views = self.recipe.photo.views
            image = image_cache.image(self.dataset, made, encoders.preprocessing, self.progress, views)
        return Inputs(self.dataset.taxonomy, self.dataset.targets, text, image)

    def of_share(self, share: float) -> "FusionStep":
        """Learning from a share of the groups, in about as many steps of the optimiser, with patience for as many.

        Raises:
            RecipeError: not a listing is in it.
        """
        fusion = self.recipe.fusion
        patience = None if fusion.patience is None else math.ceil(fusion.patience / share)
        longer = fusion.model_copy(update={"epochs": math.ceil(fusion.epochs / share), "patience": patience})
        rows = share_of_groups(self.dataset, self.train_rows, share)
        if not len(rows):
            raise RecipeError(f"a share of {share:g} of the training part holds no listing")
        return replace(self, recipe=self.recipe.model_copy(update={"fusion": longer}), train_rows=rows)

    def tunes(self, config: ModelConfig) -> bool:
        """Whether a model of this kind changes encoders."""
        tune = self.recipe.fusion.tune
        return bool((tune.image_blocks and config.reads_image) or (tune.text_layers and config.reads_text))

    def learn(
        self, encoders: Encoders, config: ModelConfig, inputs: Inputs, *, seed: int, stage: str, keep: Keep = NOTHING
    ) -> tuple[Encoders, CategoryModel, Fitted]:
        """Trains one model; returns the encoders that it ends up with, the model without them, and how it went.

        Where the encoders are not those that were given, `inputs` were made by others: make them again.

        Raises:
            RecipeError: blocks to tune that have no photos to learn from, or more layers than the text encoder has.
            DataError: not enough disk for what the frozen blocks make of the photos.
        """
        recipe, rows = self.recipe.fusion, (self.train_rows, self.select_rows)
        if not self.tunes(config):
            learned = learn(
                config, inputs, *rows, recipe,
                seed=seed, progress=self.progress, stage=stage, device=self.device, keep=keep,
            )  # fmt: skip
            return encoders, learned.model, learned.fitted
        return learn_tuned(
            encoders, config, inputs, self._sources(encoders, config), *rows, recipe,
            seed=seed, progress=self.progress, stage=stage, device=self.device, keep=keep,
        )  # fmt: skip

    def _sources(self, encoders: Encoders, config: ModelConfig) -> Sources:
        tune, stem, photos = self.recipe.fusion.tune, None, None
        if tune.image_blocks and config.reads_image:
            if self.dataset.photo_vectors is not None:
                raise RecipeError(
                    f"{self.dataset.name} brings photo vectors: without photos no image block can be tuned"
                )
            if tune.views > 1:
                photos = Photos(self.dataset, encoders.preprocessing, tune.views)
            else:
                made = (self.dataset, encoders.model, encoders.preprocessing, tune.image_blocks)
                with processes(self.device).main_process_first():
                    stem = make_stem(*made, self.cache, self.progress)
        return Sources(titles(self.dataset, encoders.preprocessing), stem, photos)
