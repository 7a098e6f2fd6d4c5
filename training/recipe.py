"""A recipe: everything that decides a training run besides data and seed, as YAML checked by pydantic.

Before train.py. `Recipe.load("fashion_cpu")` finds the recipes of this package; a path to a file works as well.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from training.errors import RecipeError

RECIPES = Path(__file__).parent / "recipes"


class Part(BaseModel):
    """A recipe's part: unknown keys are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class PhotoRecipe(Part):
    """How photos are cut, and which stages of the ResNet50 make their vector."""

    px: Annotated[int, Field(ge=32, le=512)] = 128
    fit: Literal["pad", "crop"] = "pad"
    fill: Annotated[int, Field(ge=0, le=255)] = 255
    layers: Literal["layer4", "layer3+layer4"] = "layer4"


class TextRecipe(Part):
    """How titles are cut, and the encoder's shape where it starts from nothing (a BERT)."""

    max_tokens: Annotated[int, Field(ge=4, le=512)] = 48
    vocabulary: Annotated[int, Field(ge=64)] = 4_000
    width: Annotated[int, Field(ge=8)] = 128
    layers: Annotated[int, Field(ge=1)] = 2
    heads: Annotated[int, Field(ge=1)] = 2
    feed_forward: Annotated[int, Field(ge=8)] = 256
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    pooling: Literal["cls", "mean", "pooler", "layers"] | None = (
        None  # None: what the encoder says of itself, "mean" from scratch
    )


class EncoderSteps(Part):
    """How an encoder learns from random weights (training.encoders.EncoderTraining)."""

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)] = 32
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    precision: Literal["auto", "fp32", "bf16"] = "auto"


class FusionRecipe(Part):
    """How fusion and heads learn on features computed before.

    Args:
        width, blocks, heads, dropout: see mmcat.model.ModelConfig.
        missing: chance that a listing loses one modality for a step, so that title-only and photo-only are learned.
        label_smoothing: share of the target spread over all classes of a level.
        ema: of the weights, per step; 0: none. The averaged weights are what is selected and written.
        patience: epochs without a better path accuracy on `select` before stopping.
    """

    width: Annotated[int, Field(ge=8)] = 384
    blocks: Annotated[int, Field(ge=1, le=12)] = 2
    heads: Annotated[int, Field(ge=1)] = 4
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    epochs: Annotated[int, Field(ge=1)] = 30
    batch: Annotated[int, Field(ge=2)] = 128
    lr: Annotated[float, Field(gt=0)] = 1e-3
    warmup_share: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    missing: Annotated[float, Field(ge=0, lt=1)] = 0.2
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    patience: Annotated[int, Field(ge=1)] = 10


class Recipe(Part):
    """A whole run.

    Args:
        encoders: "scratch" trains both from random weights (steps 1 and 2 of the shop); "pretrained" freezes what
            `encoders` of `train` names and trains heads of single modalities on its features.
        features: precision of cached features.
        error_rate, confidence: the promise that thresholds keep (mmcat.calibration).
        baselines: whether the plain baselines are computed on the same split.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    encoders: Literal["scratch", "pretrained"]
    photo: PhotoRecipe = PhotoRecipe()
    text: TextRecipe = TextRecipe()
    text_training: EncoderSteps | None = None
    image_training: EncoderSteps | None = None
    fusion: FusionRecipe = FusionRecipe()
    features: Literal["fp16", "fp32"] = "fp32"
    error_rate: Annotated[float, Field(gt=0, lt=1)] = 0.02
    confidence: Annotated[float, Field(ge=0.5, lt=1)] = 0.9
    baselines: bool = True

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        both = self.text_training is not None and self.image_training is not None
        if self.encoders == "scratch" and not both:
            raise ValueError("encoders from scratch need text_training and image_training")
        if self.encoders == "pretrained" and (self.text_training or self.image_training):
            raise ValueError("pretrained encoders are frozen: no text_training, no image_training")
        if self.fusion.width % self.fusion.heads:
            raise ValueError(f"{self.fusion.heads} heads do not divide the width {self.fusion.width}")
        return self

    @classmethod
    def load(cls, name: str | Path) -> "Recipe":
        """Reads a recipe by the name of one of ours or by path.

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
        return cls.check(data, str(path))

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
