"""The model family in one file: two encoders, a fusion, four level heads. Read it from top to bottom.

    title ──> TextEncoder ──> text_BTD ──┐                      ┌─> level 1 logits
                                         ├─> Fusion ─> vector ──┼─> level 2 logits  (class 0: stop)
    photo ──> ImageEncoder ─> image_BND ─┘                      ├─> level 3 logits  (class 0: stop)
                                                                └─> level 4 logits  (class 0: stop)

Axes, as suffixes of tensor names:

    B  batch                        T  text tokens (1 when pooled)      N  image cells (1 when pooled)
    D  an encoder's own width       W  width of the fusion              K  keys: text tokens, then image cells
    H  attention heads              E  width of one head (W / H)        Q  queries of one stack (T or N)
    C  classes of one level         X  px, height and width of a photo

Fusion "cross" follows "Multi-Modal Cross-Attention Network for e-Commerce Product Categorization" (2022), mended: text
and image are projected to one width; keys and values are both of them; one stack of blocks asks with the text, one
with the image. A missing modality is a learned token, so that every listing has an answer, and no listing's answer
depends on its batch-mates.

After text.py and photos.py (they make its inputs); before paths.py (logits → paths). Loads no weights by itself.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50

from mmcat.errors import ModelError

STAGE_WIDTHS = {"layer4": 2048, "layer3+layer4": 1024 + 2048}  # of a ResNet50 vector, by the stages it is pooled from
TEXT_LAYERS = (0, 2, -1)  # of pooling "layers": the input embeddings, an early layer, the last
LEVEL_WEIGHTS = (1.0, 1.2, 1.3, 1.4)  # the contest's: deeper levels count more
IGNORED = -1  # target below a path's stop level


# ── What kind of model ────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that decides the shape of a model; travels in the bundle as JSON.

    Args:
        classes: number of classes per level, stop included (`len` of each of `Taxonomy.classes`).
        modality: what the model reads.
        fusion: how two modalities meet (ignored for one).
        text_encoder: a Hugging Face configuration as a dict, `model_type` included; None for modality "image".
        text_pooling: how tokens become one vector: "cls", "mean" (over real tokens), "pooler" (BERT's own), or
            "layers": the means of TEXT_LAYERS side by side, which keeps names that the encoder never learned apart.
        resnet_strides: "v1.5" (torchvision) or "v1" (Caffe, Keras): where a stage halves its input.
        image_layers: the stages whose means make the photo's vector. "layer3+layer4" keeps textures that layer4,
            trained for ImageNet's classes, has given up; their square roots stand side by side (power normalization,
            Perronnin et al. 2010).
        px: side of the photo.
        width: of the fusion; `heads` must divide it.
        blocks: per stack of cross-attention.
    """

    classes: tuple[int, ...]
    modality: Literal["text", "image", "both"] = "both"
    fusion: Literal["concat", "cross"] = "cross"
    text_encoder: Mapping[str, Any] | None = None
    text_pooling: Literal["cls", "mean", "pooler", "layers"] = "cls"
    resnet_strides: Literal["v1", "v1.5"] = "v1.5"
    image_layers: Literal["layer4", "layer3+layer4"] = "layer4"
    px: int = 224
    width: int = 768
    blocks: int = 6
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        allowed = {
            "modality": ("text", "image", "both"),
            "fusion": ("concat", "cross"),
            "text_pooling": ("cls", "mean", "pooler", "layers"),
            "resnet_strides": ("v1", "v1.5"),
            "image_layers": tuple(STAGE_WIDTHS),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ModelError(f"{name} must be one of {', '.join(values)}, not {getattr(self, name)!r}")
        if self.heads < 1 or self.width < 1 or self.width % self.heads:
            raise ModelError(f"{self.heads} heads do not divide the width {self.width}")
        if self.blocks < 1 or self.px < 32 or not 0 <= self.dropout < 1:
            raise ModelError(f"out of range: blocks {self.blocks}, px {self.px} (≥ 32), dropout {self.dropout}")
        if len(self.classes) != 4 or min(self.classes) < 1:
            raise ModelError(f"four levels need four class counts, not {self.classes}")
        if self.reads_text and self.text_encoder is None:
            raise ModelError(f"modality {self.modality!r} needs a text_encoder configuration")

    @property
    def reads_text(self) -> bool:
        return self.modality != "image"

    @property
    def reads_image(self) -> bool:
        return self.modality != "text"

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
        """Width of the photo's vector."""
        return STAGE_WIDTHS[self.image_layers]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "ModelConfig":
        """The inverse of `to_json`; an unknown or missing key is a ModelError."""
        known = {field.name for field in fields(cls)}
        if set(data) != known:
            raise ModelError(f"the model's configuration differs from what is known in {sorted(set(data) ^ known)}")
        return cls(**{**data, "classes": tuple(data["classes"])})


# ── Encoders: one modality → vectors ──────────────────────────────────────────────────────────────────────────────────


class TextEncoder(nn.Module):
    """A Hugging Face encoder (BERT and its kin), pooled to one vector per title."""

    def __init__(self, config: Mapping[str, Any], pooling: str) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # seconds to import: only where a text model is built

        values = {key: value for key, value in config.items() if key != "model_type"}
        settings = AutoConfig.for_model(config["model_type"], **values)
        self.trunk: nn.Module = AutoModel.from_config(settings)  # type: ignore[no-untyped-call]  # theirs
        self.pooling = pooling

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        layers = self.pooling == "layers"
        output = self.trunk(input_ids=ids_BT, attention_mask=mask_BT, output_hidden_states=layers)
        states_BTD: Tensor = output.last_hidden_state
        if self.pooling == "cls":
            return states_BTD[:, :1]  # [B, 1, D]
        if layers:
            states = output.hidden_states  # of a shallow encoder the last layer stands in for one it has not
            states_BTD = torch.cat([states[min(layer, len(states) - 1)] for layer in TEXT_LAYERS], dim=-1)
        if self.pooling != "pooler":
            weights_BT1 = mask_BT.unsqueeze(-1).to(states_BTD.dtype)
            count_B11 = weights_BT1.sum(1, keepdim=True).clamp_min(1)
            return (states_BTD * weights_BT1).sum(1, keepdim=True) / count_B11  # [B, 1, D]
        pooled_BD: Tensor = output.pooler_output
        return pooled_BD.unsqueeze(1)  # [B, 1, D]


class ImageEncoder(nn.Module):
    """ResNet50 (He et al. 2015) without its classifier, pooled to one vector per photo.

    Args:
        layers: see `ModelConfig.image_layers`.
        strides: "v1" halves in the 1 × 1 convolution of a stage's first block, "v1.5" in the 3 × 3. The weights fit
            both and are wrong in the other: the caller must know which it has.
        zero_init_residual: start each block as the identity (Goyal et al. 2017); trains faster from random weights.
    """

    def __init__(self, strides: str = "v1.5", layers: str = "layer4", zero_init_residual: bool = False) -> None:
        super().__init__()
        self.layers = layers
        self.trunk = resnet50(weights=None, zero_init_residual=zero_init_residual)
        self.trunk.fc = nn.Identity()
        if strides == "v1":
            for stage in (self.trunk.layer2, self.trunk.layer3, self.trunk.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)

    def forward(self, pixels_BCXX: Tensor) -> Tensor:
        if self.layers == "layer4":
            vector_BD: Tensor = self.trunk(pixels_BCXX)
            return vector_BD.unsqueeze(1)  # [B, N=1, D=2048]
        trunk = self.trunk
        early = trunk.layer2(trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(pixels_BCXX))))))
        middle_BCYY = trunk.layer3(early)
        means = [stage_BCYY.mean((2, 3)) for stage_BCYY in (middle_BCYY, trunk.layer4(middle_BCYY))]
        return torch.cat(means, dim=-1).sqrt().unsqueeze(1)  # [B, N=1, D=3072]; means of a ReLU: never negative


# ── Fusion: vectors of both modalities → one vector → logits ──────────────────────────────────────────────────────────


class CrossBlock(nn.Module):
    """One pre-norm block: queries of one modality attend to the keys and values of both.

    4.72 M parameters at width 768, as in the paper: attention without bias, feed-forward of twice the width.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.attention_norm = nn.LayerNorm(width)  # one for queries, keys and values
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.feed_forward = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.LeakyReLU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, query_BQW: Tensor, key_BKW: Tensor, key_mask_BK: Tensor) -> Tensor:
        normed_BKW = self.attention_norm(key_BKW)
        query_BHQE = self._split(self.query(self.attention_norm(query_BQW)))
        key_BHKE, value_BHKE = map(self._split, self.key_value(normed_BKW).chunk(2, dim=-1))
        mixed_BHQE = F.scaled_dot_product_attention(
            query_BHQE,
            key_BHKE,
            value_BHKE,
            attn_mask=key_mask_BK[:, None, None, :],  # [B, 1, 1, K], True: may be looked at
            dropout_p=self.dropout if self.training else 0.0,
        )
        mixed_BQW = mixed_BHQE.transpose(1, 2).flatten(2)
        query_BQW = query_BQW + F.dropout(self.out(mixed_BQW), self.dropout, self.training)
        fed_BQW: Tensor = self.feed_forward(query_BQW)
        return query_BQW + fed_BQW

    def _split(self, x_BLW: Tensor) -> Tensor:
        B, L, W = x_BLW.shape
        return x_BLW.view(B, L, self.heads, W // self.heads).transpose(1, 2)  # [B, H, L, E]


class Fusion(nn.Module):
    """Vectors of the encoders → four levels of logits. All that is trained on frozen encoders."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, modality, cross = config.width, config.modality, config.modality == "both" and config.fusion == "cross"
        if config.reads_text:
            self.text_in = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, width))
            self.no_text = nn.Parameter(torch.randn(width) * 0.02)
        if config.reads_image:
            self.image_in = nn.Sequential(nn.LayerNorm(config.image_width), nn.Linear(config.image_width, width))
            self.no_image = nn.Parameter(torch.randn(width) * 0.02)
        if cross:
            stack = [CrossBlock(width, config.heads, config.dropout) for _ in range(2 * config.blocks)]
            self.text_blocks = nn.ModuleList(stack[: config.blocks])
            self.image_blocks = nn.ModuleList(stack[config.blocks :])
            self.mix = nn.Linear(2 * width, width)
        joined = 2 * width if modality == "both" else width
        self.heads = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(joined), nn.Dropout(config.dropout), nn.Linear(joined, count))
            for count in config.classes
        )

    def forward(
        self,
        text_BTD: Tensor | None,
        image_BND: Tensor | None,
        has_text_B: Tensor | None = None,
        has_image_B: Tensor | None = None,
        text_mask_BT: Tensor | None = None,
    ) -> list[Tensor]:
        """See `CategoryModel.fuse`."""
        if self.config.modality == "text":
            text_BTW, mask_BT = _tokens(self.text_in, self.no_text, text_BTD, has_text_B, text_mask_BT)
            return self._classify(_mean(text_BTW, mask_BT))
        if self.config.modality == "image":
            image_BNW, mask_BN = _tokens(self.image_in, self.no_image, image_BND, has_image_B, None)
            return self._classify(_mean(image_BNW, mask_BN))
        text_BTW, mask_BT = _tokens(self.text_in, self.no_text, text_BTD, has_text_B, text_mask_BT)
        image_BNW, mask_BN = _tokens(self.image_in, self.no_image, image_BND, has_image_B, None)
        text_BW, image_BW = _mean(text_BTW, mask_BT), _mean(image_BNW, mask_BN)
        if self.config.fusion == "concat":
            return self._classify(torch.cat([text_BW, image_BW], dim=-1))
        key_BKW = torch.cat([text_BTW, image_BNW], dim=1)
        mask_BK = torch.cat([mask_BT, mask_BN], dim=1)
        for text_block, image_block in zip(self.text_blocks, self.image_blocks, strict=True):
            text_BTW = text_block(text_BTW, key_BKW, mask_BK)
            image_BNW = image_block(image_BNW, key_BKW, mask_BK)
        seen_BW = self.mix(torch.cat([_mean(text_BTW, mask_BT), _mean(image_BNW, mask_BN)], dim=-1))
        return self._classify(torch.cat([seen_BW, text_BW], dim=-1))

    def _classify(self, vector_BV: Tensor) -> list[Tensor]:
        return [head(vector_BV) for head in self.heads]  # 4 × [B, C]


def _tokens(
    project: nn.Module, missing_W: Tensor, x_BLD: Tensor | None, has_B: Tensor | None, mask_BL: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Projects one modality; where it is missing, its first place holds the learned token and the rest is masked.

    So the first place may always be looked at, and no softmax runs over nothing.
    """
    if x_BLD is None:
        raise ModelError("this model reads a modality that was not given: pass zeros, and has_… False where missing")
    B, L, _ = x_BLD.shape
    has_B = torch.ones(B, dtype=torch.bool, device=x_BLD.device) if has_B is None else has_B.bool()
    mask_BL = torch.ones(B, L, dtype=torch.bool, device=x_BLD.device) if mask_BL is None else mask_BL.bool()
    # Whatever stands in the place of a missing one (zeros, NaN) must reach neither the answer nor the gradient.
    x_BLW = project(x_BLD.masked_fill(~has_B[:, None, None], 0.0))
    x_BLW = torch.where(has_B[:, None, None], x_BLW, missing_W.to(x_BLW.dtype))
    first_L = torch.arange(L, device=x_BLD.device) == 0
    return x_BLW, (mask_BL & has_B[:, None]) | first_L


def _mean(x_BLW: Tensor, mask_BL: Tensor) -> Tensor:
    """Mean over the places that may be looked at."""
    weights_BL1 = mask_BL.unsqueeze(-1).to(x_BLW.dtype)
    return (x_BLW * weights_BL1).sum(1) / weights_BL1.sum(1)  # [B, W]; the first place is never masked


# ── The whole ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class CategoryModel(nn.Module):
    """One member of the family.

    Args:
        encoders: False leaves the encoders out: to train and run the fusion on features computed before.
        zero_init_residual: see ImageEncoder; matters only before training.
    """

    def __init__(self, config: ModelConfig, *, encoders: bool = True, zero_init_residual: bool = False) -> None:
        super().__init__()
        self.config = config
        self.text_encoder: TextEncoder | None = None
        self.image_encoder: ImageEncoder | None = None
        if encoders and config.reads_text and config.text_encoder is not None:
            self.text_encoder = TextEncoder(config.text_encoder, config.text_pooling)
        if encoders and config.reads_image:
            self.image_encoder = ImageEncoder(config.resnet_strides, config.image_layers, zero_init_residual)
        self.fusion = Fusion(config)

    def encode_text(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Titles → [B, T=1, D] pooled; ids int64, mask 1 for tokens and 0 for padding."""
        if self.text_encoder is None:
            raise ModelError("this model was built without a text encoder")
        text_BTD: Tensor = self.text_encoder(ids_BT, mask_BT)
        return text_BTD

    def encode_image(self, pixels_BCXX: Tensor) -> Tensor:
        """Photos → [B, N=1, D] pooled; normalised float pixels, best in channels-last layout."""
        if self.image_encoder is None:
            raise ModelError("this model was built without an image encoder")
        image_BND: Tensor = self.image_encoder(pixels_BCXX)
        return image_BND

    def fuse(
        self,
        text_BTD: Tensor | None,
        image_BND: Tensor | None,
        has_text_B: Tensor | None = None,
        has_image_B: Tensor | None = None,
        text_mask_BT: Tensor | None = None,
    ) -> list[Tensor]:
        """Encoded vectors → four logits [B, C].

        Args:
            text_BTD, image_BND: None only for the modality that this model does not read.
            has_text_B, has_image_B: bool; where False the learned token stands in and the vectors are ignored.
                None: all there.
            text_mask_BT: for unpooled text (T > 1): padding is False. None: nothing is padding.
        """
        logits: list[Tensor] = self.fusion(text_BTD, image_BND, has_text_B, has_image_B, text_mask_BT)
        return logits

    def forward(
        self,
        ids_BT: Tensor | None,
        mask_BT: Tensor | None,
        pixels_BCXX: Tensor | None,
        has_text_B: Tensor | None = None,
        has_image_B: Tensor | None = None,
    ) -> list[Tensor]:
        """Token ids and normalised photos → four logits [B, C]; arguments of a modality not read may be None."""
        text_BTD = self.encode_text(ids_BT, mask_BT) if ids_BT is not None and mask_BT is not None else None
        image_BND = self.encode_image(pixels_BCXX) if pixels_BCXX is not None else None
        return self.fuse(text_BTD, image_BND, has_text_B, has_image_B)


def loss(logits: Sequence[Tensor], targets_B4: Tensor, weights: Sequence[float] = LEVEL_WEIGHTS) -> Tensor:
    """Weighted sum over levels of the mean cross-entropy of the rows that have the level.

    Args:
        logits: 4 × [B, C].
        targets_B4: int64 rows of `Taxonomy.path_classes`; -1 is ignored, and a level without any row adds nothing.
    """
    total = torch.zeros((), device=targets_B4.device)
    for logits_BC, targets_B, weight in zip(logits, targets_B4.unbind(1), weights, strict=True):
        summed = F.cross_entropy(logits_BC.float(), targets_B, ignore_index=IGNORED, reduction="sum")
        total = total + weight * summed / (targets_B != IGNORED).sum().clamp_min(1)
    return total
