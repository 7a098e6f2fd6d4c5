"""Steps 1 and 2: the encoders of a run, trained from nothing, trained further, or taken as they come; then frozen.

After recipe.py, encoders.py, frozen.py, earlier.py; before features.py, which runs what comes out of here once.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from mmcat.bundle import LoadedBundle
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.photos import Pixels
from mmcat.preparation import Preprocessing
from mmcat.text import Tokenizer
from training import features
from training.data import Dataset
from training.encoders import Lesson, RowPixels, train_image_encoder, train_text_encoder
from training.errors import DataError, RecipeError
from training.frozen import FrozenEncoders, find
from training.morphemes import splitter
from training.order import Rows
from training.progress import Progress
from training.recipe import Recipe
from training.task import NOTHING, Keep

Modality = Literal["text", "image", "both"]
_DECODE = 256  # photos per turn of the progress bar


@dataclass(frozen=True)
class Encoders:
    """What steps 1 and 2 give.

    Args:
        model: of the modalities that the run reads, its encoders frozen; its fusion is not trained.
        tokenizer: None where no model of the run reads text.
        singles: models of one modality that were trained whole, by "text" and "image"; none where encoders came frozen.
    """

    model: CategoryModel
    tokenizer: Tokenizer | None
    preprocessing: Preprocessing
    singles: Mapping[str, CategoryModel] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """SHA-256 hex of all weights, as they are now, and of how titles come to them."""
        tokenizer = None if self.tokenizer is None else self.tokenizer.definition
        facts = (features.fingerprint(self.model), self.model.config, tokenizer)
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def config(
        self, modality: Modality, fusion: Literal["concat", "cross"], flat_paths: int | None = None
    ) -> ModelConfig:
        """The shape of a model on these encoders.

        Args:
            flat_paths: number of paths for a model with a flat head; None for one of four levels.
        """
        shape = self.model.config.to_json() | {"modality": modality, "fusion": fusion}
        if flat_paths is not None:
            shape["classes"] = (flat_paths,)
        if modality == "image":
            shape["text_encoder"] = None
        if modality == "text":
            shape["given_photo_width"] = None
        return ModelConfig.from_json(shape)

    def attach(self, model: CategoryModel) -> CategoryModel:
        """Gives a fusion that was trained on features the encoders that made them; of given vectors there is none."""
        if model.config.reads_text:
            model.text_encoder = self.model.text_encoder
        if model.config.reads_image:
            model.image_encoder = self.model.image_encoder
        return model.eval()


@dataclass(frozen=True)
class EncoderSteps:
    """Steps 1 and 2 of a run, before they have run.

    Args:
        modality: what the models of this run read.
        encoders: folder or names, see training.frozen.
        earlier: bundles of earlier steps, by "text" and "image": their encoders are taken as they are.
        keep: what is kept of steps that start from the encoders given to it.
    """

    dataset: Dataset
    recipe: Recipe
    train: Rows
    select: Rows
    seed: int
    progress: Progress
    modality: Modality = "both"
    encoders: str | Path | None = None
    earlier: Mapping[str, LoadedBundle] = field(default_factory=dict)
    device: str = "cpu"
    keep: Callable[[Encoders], Keep] = field(default=lambda _: NOTHING)

    def run(self) -> Encoders:
        """Blocks for seconds where encoders come trained, for minutes where they learn, on the network for names.

        Raises:
            DataError: no title, or no photo, to learn from.
            RecipeError: encoders that are not there, or an image encoder is to learn and the data brings its vectors.
        """
        self._check_given()
        preprocessing = preprocessing_of(self.recipe)
        titles = features.titles(self.dataset, preprocessing)
        found = self._found()
        tokenizer = self._tokenizer(found, titles, preprocessing.max_tokens)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            model = CategoryModel(self._config(found, tokenizer), zero_init_residual=True)
            given = Encoders(model, tokenizer, preprocessing)
            singles: dict[str, CategoryModel] = {
                name: given.attach(CategoryModel(given.config(name, "concat"), encoders=False))
                for name in self._learning()
            }
        self._fill(model, found)
        keep = self.keep(given)  # before anything learns: a step that is resumed must have started from the same
        if "text" in singles:
            self._learn_text(singles["text"], given, titles, keep)
        if "image" in singles:
            self._learn_image(singles["image"], preprocessing, keep)
        for one in (model, *singles.values()):
            one.to(self.device).eval().requires_grad_(False)
        return Encoders(model, tokenizer, preprocessing, singles)

    @property
    def _given(self) -> int | None:
        """Width of the photo vectors that the data brings, where they are read."""
        return None if self.modality == "text" else self.dataset.given_photo_width

    def _check_given(self) -> None:
        if self._given is None:
            return
        name = self.dataset.name
        if "image" in self._learning() or self.recipe.fusion.tune.image_blocks:
            raise RecipeError(
                f"{name} brings photo vectors and no photos, from which an image encoder could learn: leave out"
                " image_training and fusion.tune.image_blocks"
            )
        self.progress.say(
            f"{name} brings photo vectors of width {self._given}: no ResNet50 is loaded, and what reads them can be"
            " measured and not served"
        )

    def _learning(self) -> list[Literal["text", "image"]]:
        """The encoders that this run trains."""
        wished = {"text": self.recipe.text_training, "image": self.recipe.image_training}
        names: Sequence[Literal["text", "image"]] = ("text", "image")
        return [
            name
            for name in names
            if wished[name] is not None and self.modality in (name, "both") and name not in self.earlier
        ]

    def _needs(self, name: Literal["text", "image"]) -> bool:
        """Whether the run is to find this encoder's weights."""
        if name == "image" and self._given is not None:
            return False
        return self.modality in (name, "both") and name not in self.earlier

    def _found(self) -> FrozenEncoders | None:
        needed = self.recipe.encoders == "pretrained" and (self._needs("text") or self._needs("image"))
        return find(self.encoders, self.recipe.text.pooling, photos=self._needs("image")) if needed else None

    def _tokenizer(self, found: FrozenEncoders | None, titles: Sequence[str], max_tokens: int) -> Tokenizer | None:
        if self.modality == "image":
            return None
        if "text" in self.earlier:
            return self.earlier["text"].tokenizer
        if found is not None:
            return found.tokenizer(max_tokens)
        text, own = self.recipe.text, [titles[row] for row in self.train if titles[row]]
        if not own:
            raise DataError(f"{self.dataset.name}: no listing with a title to train on")
        if text.tokenizer == "bpe":
            return Tokenizer.train_bpe(own, text.pieces, max_tokens, splitter() if text.morphemes else None)
        return Tokenizer.train_wordpiece(own, text.pieces, max_tokens)

    def _config(self, found: FrozenEncoders | None, tokenizer: Tokenizer | None) -> ModelConfig:
        recipe, fusion = self.recipe, self.recipe.fusion
        text_encoder, pooling = None, recipe.text.pooling or "mean"
        if "text" in self.earlier:
            text_encoder = self.earlier["text"].model.config.text_encoder
            pooling = self.earlier["text"].model.config.text_pooling
        elif tokenizer is not None:
            text_encoder = _bert(recipe, tokenizer) if found is None else found.text_config()
            pooling = pooling if found is None else found.pooling
        strides: Literal["v1", "v1.5"] = "v1.5" if found is None else found.strides
        if "image" in self.earlier:
            strides = self.earlier["image"].model.config.resnet_strides
        return ModelConfig(
            classes=tuple(map(len, self.dataset.taxonomy.classes)),
            modality=self.modality,
            keys=fusion.keys,
            text_encoder=text_encoder,
            text_pooling=pooling,
            resnet_strides=strides,
            image_layers=recipe.photo.layers,
            px=recipe.photo.px,
            grid=recipe.photo.grid,
            width=fusion.width,
            blocks=fusion.blocks,
            heads=fusion.heads,
            dropout=fusion.dropout,
            members=fusion.members,
            given_photo_width=self._given,
        )

    def _fill(self, model: CategoryModel, found: FrozenEncoders | None) -> None:
        if found is not None:
            found.fill(model, text=self._needs("text"), image=self._needs("image"))
        for name, loaded in self.earlier.items():
            if name == "image" and self._given is not None:
                continue  # its heads learned on the data's own vectors
            target, source = getattr(model, f"{name}_encoder"), getattr(loaded.model, f"{name}_encoder")
            target.load_state_dict(source.state_dict())  # strict: a weight too many or too few is an error

    def _learn_text(self, single: CategoryModel, given: Encoders, titles: Sequence[str], keep: Keep) -> None:
        learning, tokenizer = self.recipe.text_training, given.tokenizer
        assert learning is not None  # noqa: S101  `_learning` has looked
        assert tokenizer is not None  # noqa: S101  as above
        there = np.array([bool(title) for title in titles])
        lesson = self._lesson(there, "title")
        train_text_encoder(
            single.requires_grad_(True), tokenizer, titles, lesson, learning,
            seed=self.seed, progress=self.progress, device=self.device, keep=keep,
        )  # fmt: skip

    def _learn_image(self, single: CategoryModel, preprocessing: Preprocessing, keep: Keep) -> None:
        learning = self.recipe.image_training
        assert learning is not None  # noqa: S101  `_learning` has looked
        seen = np.concatenate([self.train, self.select] if learning.patience is not None else [self.train])
        pixels, there = self._photos(np.sort(seen), preprocessing)
        train_image_encoder(
            single.requires_grad_(True), pixels, self._lesson(there, "photo"), learning, preprocessing,
            seed=self.seed, progress=self.progress, device=self.device, keep=keep,
        )  # fmt: skip

    def _lesson(self, there: Any, what: str) -> Lesson:
        train = self.train[there[self.train]]
        if not len(train):
            raise DataError(f"{self.dataset.name}: no listing with a {what} to train on")
        return Lesson(self.dataset.taxonomy, self.dataset.targets, train, self.select[there[self.select]])

    def _photos(self, rows: Rows, preprocessing: Preprocessing) -> tuple[RowPixels, Any]:
        """The photos of these rows, all in memory (7 kB each at 48 px), and which rows of the data set have one."""
        self.progress.begin("photos", len(rows))
        found: list[Pixels] = []
        at = np.full(len(self.dataset), -1, np.int64)
        count = 0
        for start in range(0, len(rows), _DECODE):
            part = rows[start : start + _DECODE]
            pixels, there = features.pixels([self.dataset.rows[row] for row in part], preprocessing)
            found.append(pixels)
            at[part[there]] = np.arange(count, count + len(pixels))
            count += len(pixels)
            self.progress.advance(len(part))
        return RowPixels(np.concatenate(found), at), at >= 0


def preprocessing_of(recipe: Recipe) -> Preprocessing:
    """How a recipe's listings become what the network sees."""
    photo, text = recipe.photo, recipe.text
    return Preprocessing(
        px=photo.px,
        fit=photo.fit,
        fill=photo.fill,
        scaled_decode=photo.scaled_decode,
        max_tokens=text.max_tokens,
        text_fields=text.fields,
    )


def _bert(recipe: Recipe, tokenizer: Tokenizer) -> dict[str, Any]:
    text = recipe.text
    return {
        "model_type": "bert",
        "vocab_size": tokenizer.vocabulary_size,
        "hidden_size": text.width,
        "num_hidden_layers": text.layers,
        "num_attention_heads": text.heads,
        "intermediate_size": text.feed_forward,
        "hidden_dropout_prob": text.dropout,
        "attention_probs_dropout_prob": text.dropout,
        "max_position_embeddings": text.max_tokens,
        "pad_token_id": tokenizer.pad_id,
    }
