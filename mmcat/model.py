"""The model family in one file: two encoders, a fusion, four level heads. Read it from top to bottom.

    title ──> TextEncoder ──> text_BTD ──┐                      ┌─> level 1 logits
                                         ├─> Fusion ─> vector ──┼─> level 2 logits  (class 0: stop)
    photo ──> ImageEncoder ─> image_BND ─┘                      ├─> level 3 logits  (class 0: stop)
                                                                └─> level 4 logits  (class 0: stop)

Which of them a model is, family.py says.

Axes, as suffixes of tensor names:

    B  batch                        T  text tokens (1 when pooled)      N  image cells (1 when pooled)
    D  an encoder's own width       W  width of the fusion              K  keys: text tokens, then image cells
    H  attention heads              E  width of one head (W / H)        Q  queries of one stack (T or N)
    C  classes of one level         X  px, height and width of a photo
    Y  height and width of a map    S  heads of classes: 4 levels, or 1 that is flat

Fusion "cross" follows "Multi-Modal Cross-Attention Network for e-Commerce Product Categorization" (2022), mended: text
and image are projected to one width; keys and values are both of them; one stack of blocks asks with the text, one
with the image. With pooled keys each modality is one vector (the paper's two keys); with a sequence of keys the text is
its tokens and the photo the cells of ResNet50's last map. A missing modality is a learned token, so that every listing
has an answer, and no listing's answer depends on its batch-mates.

Peers to compare it with: fusion "concat" joins the pooled vectors; a flat head answers whole paths instead of four
levels; late fusion joins the calibrated answers of a text and an image model outside of both (training/late_fusion.py).

After family.py, text.py and photos.py (they make its inputs); before paths.py (logits → paths). Loads no weights.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmcat.errors import ModelError
from mmcat.family import TEXT_LAYERS, ModelConfig

LEVEL_WEIGHTS = (1.0, 1.2, 1.3, 1.4)  # the contest's: deeper levels count more
IGNORED = -1  # target below a path's stop level


# ── Encoders: one modality → vectors ──────────────────────────────────────────────────────────────────────────────────


class TextEncoder(nn.Module):
    """A Hugging Face encoder (BERT and its kin); pooled to one vector per title unless `pooled` is False."""

    def __init__(self, config: Mapping[str, Any], pooling: str, pooled: bool = True) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel  # seconds to import: only where a model is built

        values = {key: value for key, value in config.items() if key != "model_type"}
        settings = AutoConfig.for_model(config["model_type"], **values)
        self.trunk: nn.Module = AutoModel.from_config(settings)  # type: ignore[no-untyped-call]  # theirs
        self.pooling, self.pooled = pooling, pooled

    def forward(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        layers = self.pooling == "layers"
        output = self.trunk(input_ids=ids_BT, attention_mask=mask_BT, output_hidden_states=layers)
        states_BTD: Tensor = output.last_hidden_state
        if layers:
            states = output.hidden_states  # of a shallow encoder the last layer stands in for one it has not
            states_BTD = torch.cat([states[min(layer, len(states) - 1)] for layer in TEXT_LAYERS], dim=-1)
        if not self.pooled:
            return states_BTD  # every token
        if self.pooling == "cls":
            return states_BTD[:, :1]  # [B, 1, D]
        if self.pooling != "pooler":
            weights_BT1 = mask_BT.unsqueeze(-1).to(states_BTD.dtype)
            count_B11 = weights_BT1.sum(1, keepdim=True).clamp_min(1)
            return (states_BTD * weights_BT1).sum(1, keepdim=True) / count_B11  # [B, 1, D]
        pooled_BD: Tensor = output.pooler_output
        return pooled_BD.unsqueeze(1)  # [B, 1, D]


class ImageEncoder(nn.Module):
    """ResNet50 (He et al. 2015) without its classifier: one vector per photo, or one per cell of its last map.

    Args:
        layers: see `ModelConfig.image_layers`.
        grid: see `ModelConfig.grid`.
        strides: "v1" halves in the 1 × 1 convolution of a stage's first block, "v1.5" in the 3 × 3. The weights fit
            both and are wrong in the other: the caller must know which it has.
        zero_init_residual: start each block as the identity (Goyal et al. 2017); trains faster from random weights.
    """

    def __init__(
        self, strides: str = "v1.5", layers: str = "layer4", grid: int = 1, zero_init_residual: bool = False
    ) -> None:
        super().__init__()
        from torchvision.models import resnet50  # likewise

        self.layers, self.grid = layers, grid
        self.trunk = resnet50(weights=None, zero_init_residual=zero_init_residual)
        self.trunk.fc = nn.Identity()
        if strides == "v1":
            for stage in (self.trunk.layer2, self.trunk.layer3, self.trunk.layer4):
                stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)

    def forward(self, pixels_BCXX: Tensor) -> Tensor:
        trunk = self.trunk
        early = trunk.layer2(trunk.layer1(trunk.maxpool(trunk.relu(trunk.bn1(trunk.conv1(pixels_BCXX))))))
        middle_BCYY = trunk.layer3(early)
        last_BCYY = trunk.layer4(middle_BCYY)
        if self.grid == 1:
            means = [last_BCYY.mean((2, 3))]
            if self.layers == "layer3+layer4":
                means = [mean.sqrt() for mean in (middle_BCYY.mean((2, 3)), *means)]  # means of a ReLU: never negative
            return torch.cat(means, dim=-1).unsqueeze(1)  # [B, N=1, D]
        cells_BND: Tensor = last_BCYY.flatten(2).transpose(1, 2)  # row by row from the top left
        if self.layers == "layer4":
            return cells_BND
        deviation_BC, mean_BC = torch.std_mean(middle_BCYY, (2, 3), correction=0)
        return torch.cat([torch.cat([mean_BC, deviation_BC], dim=-1).unsqueeze(1), cells_BND], dim=1)


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


class Cells(nn.Module):
    """Projects a photo's vectors to the fusion's width; cells of a grid learn where they stand.

    The vector of layer3 in front of a grid (see `ModelConfig.image_layers`) has a projection of its own.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fronts = config.image_cells - config.grid**2  # 0 or 1
        projections = [
            nn.Sequential(nn.LayerNorm(config.image_width), nn.Linear(config.image_width, config.width))
            for _ in range(1 + self.fronts)
        ]
        self.cells = projections[0]
        self.front = projections[1] if self.fronts else None
        self.places = nn.Parameter(torch.randn(config.image_cells, config.width) * 0.02) if config.grid > 1 else None

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BNW: Tensor = self.cells(x_BND[:, self.fronts :])
        if self.front is not None:
            x_BNW = torch.cat([self.front(x_BND[:, :1]), x_BNW], dim=1)
        return x_BNW if self.places is None else x_BNW + self.places


class Fusion(nn.Module):
    """Vectors of the encoders → logits of each head. All that is trained on frozen encoders."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        width, both = config.width, config.modality == "both"
        if config.reads_text:
            self.text_in = nn.Sequential(nn.LayerNorm(config.text_width), nn.Linear(config.text_width, width))
            self.no_text = nn.Parameter(torch.randn(width) * 0.02)
        if config.reads_image:
            self.image_in = Cells(config)
            self.no_image = nn.Parameter(torch.randn(width) * 0.02)
        if both and config.fusion == "cross":
            stack = [CrossBlock(width, config.heads, config.dropout) for _ in range(2 * config.blocks)]
            self.text_blocks = nn.ModuleList(stack[: config.blocks])
            self.image_blocks = nn.ModuleList(stack[config.blocks :])
            self.mix = nn.Linear(2 * width, width)
        joined = 2 * width if both else width
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
        return [head(vector_BV) for head in self.heads]  # S × [B, C]


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
            self.text_encoder = TextEncoder(config.text_encoder, config.text_pooling, config.keys == "pooled")
        if encoders and config.encodes_photos:
            self.image_encoder = ImageEncoder(
                config.resnet_strides, config.image_layers, config.grid, zero_init_residual
            )
        self.members = nn.ModuleList(Fusion(config) for _ in range(config.members))

    def encode_text(self, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        """Titles → [B, T, D], T = 1 when pooled; ids int64, mask 1 for tokens and 0 for padding."""
        if self.text_encoder is None:
            raise ModelError("this model was built without a text encoder")
        text_BTD: Tensor = self.text_encoder(ids_BT, mask_BT)
        return text_BTD

    def encode_image(self, pixels_BCXX: Tensor) -> Tensor:
        """Photos → [B, N, D], N = 1 when pooled; normalised float pixels, best in channels-last layout."""
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
        """Encoded vectors → logits [B, C] of each head.

        Args:
            text_BTD, image_BND: None only for the modality that this model does not read.
            has_text_B, has_image_B: bool; where False the learned token stands in and the vectors are ignored.
                None: all there.
            text_mask_BT: for unpooled text (T > 1): padding is False. None: nothing is padding.
        """
        answers: list[list[Tensor]] = [
            member(text_BTD, image_BND, has_text_B, has_image_B, text_mask_BT) for member in self.members
        ]
        if len(answers) == 1:
            return answers[0]
        heads = zip(*answers, strict=True)  # each: members × [B, C]
        return [torch.stack([F.log_softmax(one_BC, dim=-1) for one_BC in head]).mean(0) for head in heads]

    def forward(
        self,
        ids_BT: Tensor | None,
        mask_BT: Tensor | None,
        pixels_BCXX: Tensor | None,
        has_text_B: Tensor | None = None,
        has_image_B: Tensor | None = None,
    ) -> list[Tensor]:
        """Token ids and normalised photos → logits [B, C] of each head; what the model does not read may be None."""
        text_BTD = self.encode_text(ids_BT, mask_BT) if ids_BT is not None and mask_BT is not None else None
        image_BND = self.encode_image(pixels_BCXX) if pixels_BCXX is not None else None
        text_mask_BT = mask_BT if self.config.keys == "sequence" else None
        return self.fuse(text_BTD, image_BND, has_text_B, has_image_B, text_mask_BT)


def loss(logits: Sequence[Tensor], targets_BS: Tensor, weights: Sequence[float] = LEVEL_WEIGHTS) -> Tensor:
    """Weighted sum over heads of the mean cross-entropy of the rows that have the level.

    Args:
        logits: S × [B, C].
        targets_BS: int64 rows of `Taxonomy.path_classes` (of a flat head: the taxonomy row); -1 is ignored, and a level
            without any row adds nothing.
        weights: of the levels, in order; a flat head takes the first.
    """
    total = torch.zeros((), device=targets_BS.device)
    for logits_BC, targets_B, weight in zip(logits, targets_BS.unbind(1), weights[: len(logits)], strict=True):
        summed = F.cross_entropy(logits_BC.float(), targets_B, ignore_index=IGNORED, reduction="sum")
        total = total + weight * summed / (targets_B != IGNORED).sum().clamp_min(1)
    return total
