"""Which member of the model family: everything that decides a model's shape, as plain data.

    modality  text | image | both
    fusion    concat | cross               of both
    keys      pooled | sequence            what cross-attention attends to
    heads     four levels, or one flat     by the number of class counts
    members   1, or fusions that answer together

After errors.py; before model.py, which builds what is described here. No torch: bundles and commands read it without.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from mmcat.errors import ModelError

STAGE_WIDTHS = {"layer4": 2048, "layer3+layer4": 1024 + 2048}  # of a ResNet50 vector, by the stages it is pooled from
TEXT_LAYERS = (0, 2, -1)  # of pooling "layers": the input embeddings, an early layer, the last


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the shape of a model; travels in the bundle as JSON.

    Args:
        classes: number of classes per level, stop included (`len` of each of `Taxonomy.classes`); or one number, that
            of the paths, for a flat head.
        modality: what the model reads.
        fusion: how two modalities meet (ignored for one).
        keys: "pooled": one vector per modality; "sequence": the title's tokens and the photo's cells.
        text_encoder: a Hugging Face configuration as a dict, `model_type` included; None for modality "image".
        text_pooling: how tokens become one vector: "cls", "mean" (over real tokens), "pooler" (BERT's own), or
            "layers": the means of TEXT_LAYERS side by side, which keeps names that the encoder never learned apart.
            With a sequence of keys nothing is pooled, and "layers" still says which states each token brings.
        resnet_strides: "v1.5" (torchvision) or "v1" (Caffe, Keras): where a stage halves its input.
        image_layers: the stages whose means make the photo's vector. "layer3+layer4" keeps textures that layer4,
            trained for ImageNet's classes, has given up; their square roots stand side by side (power normalization,
            Perronnin et al. 2010). With a sequence of keys layer4 gives the cells, and layer3 one more in front of
            them: the mean and the deviation of its channels.
        px: side of the photo.
        grid: cells per side with a sequence of keys, px / 32 of them; 1 pools the photo all the same.
        width: of the fusion; `heads` must divide it.
        blocks: per stack of cross-attention.
        members: fusions on the same encoders, learned apart; the mean of their log-probabilities is the answer (deep
            ensembles, Lakshminarayanan et al. 2017).
        given_photo_width: of photo vectors that came with the data in place of photos; such a model has no image
            encoder, so it can be measured and not served. None: a ResNet50 makes them.
    """

    classes: tuple[int, ...]
    modality: Literal["text", "image", "both"] = "both"
    fusion: Literal["concat", "cross"] = "cross"
    keys: Literal["pooled", "sequence"] = "pooled"
    text_encoder: Mapping[str, Any] | None = None
    text_pooling: Literal["cls", "mean", "pooler", "layers"] = "cls"
    resnet_strides: Literal["v1", "v1.5"] = "v1.5"
    image_layers: Literal["layer4", "layer3+layer4"] = "layer4"
    px: int = 224
    grid: int = 1
    width: int = 768
    blocks: int = 6
    heads: int = 4
    dropout: float = 0.1
    members: int = 1
    given_photo_width: int | None = None

    def __post_init__(self) -> None:
        allowed = {
            "modality": ("text", "image", "both"),
            "fusion": ("concat", "cross"),
            "keys": ("pooled", "sequence"),
            "text_pooling": ("cls", "mean", "pooler", "layers"),
            "resnet_strides": ("v1", "v1.5"),
            "image_layers": tuple(STAGE_WIDTHS),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ModelError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise ModelError(f"{self.heads} heads do not divide the width {self.width}")
        if min(self.blocks, self.members) < 1 or self.px < 32 or not 0 <= self.dropout < 1:
            raise ModelError(
                f"out of range: blocks {self.blocks}, members {self.members}, px {self.px} (≥ 32), "
                f"dropout {self.dropout}"
            )
        if len(self.classes) not in (1, 4) or min(self.classes) < 1:
            raise ModelError(f"four levels need four class counts (a flat head one), not {self.classes}")
        if self.grid != 1 and (self.keys == "pooled" or self.px != 32 * self.grid):
            raise ModelError(
                f"a grid of {self.grid} × {self.grid} cells needs keys sequence and photos of {32 * self.grid} px, "
                f"not keys {self.keys} and {self.px} px: ResNet50 gives one cell per 32 px"
            )
        if self.given_photo_width is not None and (not self.reads_image or self.grid != 1):
            raise ModelError("photo vectors that come with the data are one a photo: there is no grid of them")
        if self.reads_text and self.text_encoder is None:
            raise ModelError(f"modality {self.modality!r} needs a text_encoder configuration")

    @property
    def reads_text(self) -> bool:
        return self.modality != "image"

    @property
    def reads_image(self) -> bool:
        return self.modality != "text"

    @property
    def encodes_photos(self) -> bool:
        """Whether it makes the vectors of photos itself, and so has an image encoder."""
        return self.reads_image and self.given_photo_width is None

    @property
    def why_not_served(self) -> str | None:
        """Why it can be measured and not served; None where it can."""
        if self.given_photo_width is None:
            return None
        return (
            f"its photo vectors ({self.given_photo_width} wide) came with the data and nothing here makes such of a"
            " photo, so it can be measured (mmcat evaluate) and not served: serve the text bundle of the same run"
        )

    @property
    def text_width(self) -> int:
        """Width of the text encoder's vectors."""
        config = self.text_encoder or {}
        for name in ("hidden_size", "dim", "d_model"):  # Hugging Face's names for it
            if name in config:
                return int(config[name]) * (len(TEXT_LAYERS) if self.text_pooling == "layers" else 1)
        raise ModelError("the text_encoder configuration names no hidden_size")

    @property
    def image_width(self) -> int:
        """Width of the photo's vector, or of each of its cells."""
        if self.given_photo_width is not None:
            return self.given_photo_width
        return STAGE_WIDTHS[self.image_layers if self.grid == 1 else "layer4"]

    @property
    def image_cells(self) -> int:
        """Vectors per photo (N)."""
        return 1 if self.grid == 1 else self.grid**2 + (self.image_layers == "layer3+layer4")

    def to_json(self) -> dict[str, Any]:
        """All fields; but `given_photo_width` where it is given alone: other bundles and stores stay as named."""
        return {name: value for name, value in asdict(self).items() if name != "given_photo_width" or value is not None}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_json`; an unknown or missing key is a ModelError."""
        known = {field.name for field in fields(cls)}
        values = {"given_photo_width": None, **data}
        if set(values) != known:
            raise ModelError(f"the model's configuration differs from what is known in {sorted(set(values) ^ known)}")
        return cls(**{**values, "classes": tuple(data["classes"])})
