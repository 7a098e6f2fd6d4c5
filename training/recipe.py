"""A recipe: everything that decides a training run besides data and seed, as YAML checked by pydantic.

Before train.py. `Recipe.load("fashion_cpu")` finds the recipes of this package; a path to a file works as well, and
`key=value` with dotted keys changes single values.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mmcat.model import LEVEL_WEIGHTS
from mmcat.preparation import TEXT_FIELDS
from mmcat.text import BPE_SMALLEST
from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


class Part(BaseModel):
    """A recipe's part: unknown keys are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhotoRecipe(Part):
    """How photos are cut, and what of the ResNet50 makes their vectors.

    Args:
        layers, grid: see mmcat.family.ModelConfig; a grid needs `fusion.keys: sequence`.
        views: of each photo in training: 1 as it is, 2 its mirror image too, more are cuts of it (training.views).
        scaled_decode: JPEGs are unpacked near the size that is wanted (mmcat.photos.decode); travels in the bundle.
    """

    px: Annotated[int, Field(ge=32, le=512)] = 128
    fit: Literal["pad", "crop"] = "pad"
    fill: Annotated[int, Field(ge=0, le=255)] = 255
    layers: Literal["layer4", "layer3+layer4"] = "layer4"
    grid: Annotated[int, Field(ge=1)] = 1
    views: Annotated[int, Field(ge=1, le=8)] = 1
    scaled_decode: bool = False


class TextRecipe(Part):
    """What of a listing is read and how it is cut, and the encoder's shape where it starts from nothing (a BERT).

    Args:
        fields: joined by a space in this order, empty ones left out; they travel in the bundle.
        tokenizer, vocabulary: kind and size of the vocabulary learned from the training part, only from scratch; None:
            a WordPiece of 4,000 pieces.
        morphemes: MeCab-ko's morphemes bound what a BPE may merge (extra `mecab`); serving needs no MeCab.
        pooling: None: what the encoder says of itself, "mean" from scratch.
    """

    fields: Annotated[tuple[str, ...], Field(min_length=1)] = ("title",)
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 48
    tokenizer: Literal["wordpiece", "bpe"] | None = None
    vocabulary: Annotated[int, Field(ge=64)] | None = None
    morphemes: bool = False
    width: Annotated[int, Field(ge=8)] = 128
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 2
    feed_forward: Annotated[int, Field(ge=8)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pooling: Literal["cls", "mean", "pooler", "layers"] | None = None

    @model_validator(mode="after")
    def _fits(self) -> "TextRecipe":
        if unknown := set(self.fields) - set(TEXT_FIELDS):
            raise ValueError(f"fields must be some of {', '.join(TEXT_FIELDS)}, not {', '.join(sorted(unknown))}")
        if self.morphemes and self.tokenizer != "bpe":
            raise ValueError("morphemes bound the merges of a BPE: set tokenizer to bpe")
        if self.tokenizer == "bpe" and self.pieces < BPE_SMALLEST:
            raise ValueError(f"a BPE has at least {BPE_SMALLEST} pieces: the bytes and the special tokens")
        return self

    @property
    def pieces(self) -> int:
        """Of a vocabulary that is learned."""
        return self.vocabulary or 4_000


class Learning(Part):
    """How weights learn: what the three steps have in common (training.engine).

    Args:
        epochs: passes over the training part; ignored where `steps` says how many optimiser steps.
        batch: rows per optimiser step, over all processes and pieces.
        accumulate: pieces that a batch passes through the device in, where it does not fit at once.
        lr: highest learning rate, reached in a line over `warmup_share` of the steps; then down to 0 by `decay`.
        clip: largest norm of the gradient; 0: as it is.
        ema: of the weights, per step; 0: none. The averaged weights are what is validated and kept.
        tail, tail_beta, tail_tau: see training.losses.
        patience: epochs without a better path accuracy on `select` before stopping, and the best epoch's weights are
            kept; None: no epoch is validated, and the last weights are kept.
        precision: "auto" is bf16 where it is quick.
        enough_steps: of the optimiser; fewer are warned of. At 5e-5 as at 1e-3 a fusion of a few blocks is far from its
            best before 1,000; a recipe that was measured with fewer says with how many.
    """

    epochs: Annotated[int, Field(ge=1)] = 30
    steps: Annotated[int, Field(ge=1)] | None = None
    batch: Annotated[int, Field(ge=1)] = 32
    accumulate: Annotated[int, Field(ge=1)] = 1
    optimizer: Literal["adamw", "radam"] = "adamw"
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    decay: Literal["linear", "cosine"] = "linear"
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip: Annotated[float, Field(ge=0)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    level_weights: tuple[float, float, float, float] = LEVEL_WEIGHTS
    tail: Literal["none", "class_balanced", "logit_adjusted"] = "none"
    tail_beta: Annotated[float, Field(ge=0, lt=1)] = 0.999
    tail_tau: Annotated[float, Field(ge=0)] = 1.0
    patience: Annotated[int, Field(ge=1)] | None = None
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    deterministic: bool = False
    enough_steps: Annotated[int, Field(ge=1)] = 1_000

    @model_validator(mode="after")
    def _divides(self) -> "Learning":
        if self.accumulate > self.batch:
            raise ValueError(f"a batch of {self.batch} cannot pass in {self.accumulate} pieces")
        return self


class Tune(Part):
    """Which last blocks of the encoders learn with the fusion; the rest stays frozen, BatchNorm's statistics too.

    Args:
        image_blocks: of ResNet50's 16 bottleneck blocks, counted from the last; layer4 has three, layer3 six.
        text_layers: of the text encoder, counted from the last.
        lr_scale: their learning rate as a share of the fusion's.
        views: of each photo, see training.views; with more than one, the image encoder is run on pixels in each step
            and what its frozen blocks give is not kept.
    """

    image_blocks: Annotated[int, Field(ge=0, le=9)] = 0
    text_layers: Annotated[int, Field(ge=0)] = 0
    lr_scale: Annotated[float, Field(gt=0, le=1)] = 0.1
    views: Annotated[int, Field(ge=1)] = 1


class FusionRecipe(Learning):
    """How fusion and heads learn on features computed before.

    Args:
        keys, width, blocks, heads, dropout: see mmcat.family.ModelConfig.
        members: of each model, learned one after the other, see ModelConfig; they need encoders that stay frozen.
        missing: chance that a listing loses one modality for a step, so that title-only and photo-only are learned.
        tune: see Tune; without it both encoders stay as they are.
    """

    keys: Literal["pooled", "sequence"] = "pooled"
    width: Annotated[int, Field(ge=8)] = 384
    blocks: Annotated[int, Field(ge=1, le=12)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    members: Annotated[int, Field(ge=1, le=16)] = 1
    batch: Annotated[int, Field(ge=2)] = 128
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.2
    patience: Annotated[int, Field(ge=1)] | None = 10
    tune: Tune = Tune()


class Recipe(Part):
    """A whole run.

    Args:
        encoders: "scratch" trains both from random weights; "pretrained" takes what `encoders` of `train` names.
        text_training, image_training: steps 1 and 2; left out, a pretrained encoder stays frozen and only heads are
            trained on its features.
        features: precision of cached features.
        error_rate, confidence: the promise that thresholds keep (mmcat.calibration).
        baselines: whether the plain baselines are computed on the same split.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    encoders: Literal["scratch", "pretrained"]
    photo: PhotoRecipe = PhotoRecipe()
    text: TextRecipe = TextRecipe()
    text_training: Learning | None = None
    image_training: Learning | None = None
    fusion: FusionRecipe = FusionRecipe()
    features: Literal["fp16", "fp32"] = "fp32"
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.02
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    baselines: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        if self.encoders == "scratch" and (self.text_training is None or self.image_training is None):
            raise ValueError("encoders from scratch need text_training and image_training")
        own = [f"text.{name}" for name in ("tokenizer", "vocabulary", "morphemes") if getattr(self.text, name)]
        if self.encoders == "pretrained" and own:
            raise ValueError(f"encoders: pretrained brings its tokenizer: leave out {', '.join(own)}, or say scratch")
        learned = (self.text_training, self.image_training, self.fusion.tune.image_blocks, self.fusion.tune.text_layers)
        if self.fusion.members > 1 and any(learned):
            raise ValueError("members share frozen encoders: leave out text_training, image_training and fusion.tune")
        if self.fusion.width % self.fusion.heads:
            raise ValueError(f"{self.fusion.heads} heads do not divide the width {self.fusion.width}")
        return self

    def with_keys(self, keys: Literal["pooled", "sequence"], *, one_cell: bool = False) -> "Recipe":
        """The same recipe with these keys: a sequence has the cells that ResNet50 gives, one per 32 px.

        Args:
            one_cell: photos are one vector each whatever the keys, as where the data brings them.
        """
        if keys == self.fusion.keys:
            return self
        grid = self.photo.px // 32 if keys == "sequence" and not one_cell else 1
        fusion = self.fusion.model_copy(update={"keys": keys})
        return self.model_copy(update={"fusion": fusion, "photo": self.photo.model_copy(update={"grid": grid})})

    @classmethod
    def load(cls, name: str | Path, changes: Sequence[str] = ()) -> "Recipe":
        """Reads a recipe by the name of one of ours or by path.

        Args:
            changes: "key=value" each, keys dotted ("fusion.lr"), values in YAML; later ones win.

        Raises:
            RecipeError: no such recipe, not YAML, or a key or value that is not one.
        """
        path = Path(name)
        if path.suffix not in (".yaml", ".yml"):
            path = RECIPES / f"{name}.yaml"
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except OSError as error:
            known = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
            raise RecipeError(f"no recipe {name!r} ({error.strerror}): known are {known}") from error
        except yaml.YAMLError as error:
            raise RecipeError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
        for change in changes:
            data = _changed(data, change)
        return cls.check(data, " with ".join([str(path), *changes]))

    @classmethod
    def check(cls, data: Any, source: str) -> "Recipe":
        """Checks what a file held; one sentence for all that is wrong with it."""
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, item['loc'])) or 'recipe'}: {item['msg']}" for item in error.errors()
            )
            raise RecipeError(f"{source}: {wrong}") from error


def _changed(data: Any, change: str) -> Any:
    """A copy of `data` with one value set."""
    key, equals, text = change.partition("=")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"{change!r}: the value is not YAML") from error
    if not equals or not all(key.split(".")):
        raise RecipeError(f"{change!r} is not key=value, as in fusion.lr=0.001")
    return _with(data, key.split("."), value)


def _with(data: Any, keys: Sequence[str], value: Any) -> Any:
    if not keys:
        return value
    inner = data if isinstance(data, Mapping) else {}
    return {**inner, keys[0]: _with(inner.get(keys[0]), keys[1:], value)}
