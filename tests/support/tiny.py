"""A real bundle, small and random: for tests that need a model that runs, not one that knows anything.

BERT of one layer, 32 wide; ResNet50 at 64 px with random weights; two blocks of cross-attention; a shop-like tree with
skewed depth, stops that are parents, and an id that stands under two parents. Writing takes about a second (the
ResNet50 alone is 94 MB): share one per session.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from mmcat import bundle
from mmcat.calibration import Calibration
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.taxonomy import Node, Taxonomy
from mmcat.text import Tokenizer

CREATED_MS = 1_750_000_000_000
PX = 64
_ROWS = (
    ("fashion/Fashion", "shoes/Shoes"),
    ("fashion/Fashion", "shoes/Shoes", "sneakers/Sneakers", "women/Women"),
    ("fashion/Fashion", "shoes/Shoes", "sneakers/Sneakers", "men/Men"),
    ("fashion/Fashion", "shoes/Shoes", "boots/Boots"),
    ("fashion/Fashion", "bags/Bags", "backpacks/Backpacks", "women/Women"),
    ("fashion/Fashion", "bags/Bags", "backpacks/Backpacks", "men/Men"),
    ("home/Home", "kitchen/Kitchen", "mugs/Mugs"),
    ("home/Home", "kitchen/Kitchen"),
    ("home/Home", "storage/Storage", "boxes/Boxes"),
    ("toys/Toys", "storage/Storage"),
    ("toys/Toys", "puzzles/Puzzles", "jigsaw/Jigsaw"),
    ("vouchers/Vouchers",),
)
TITLES = (
    *("나이키 여성 운동화 240", "Puma Men Sneakers blue", "women backpack 20L", "가죽 부츠 men 270", "머그컵 2p 350ml"),
    *("storage box 30 l", "jigsaw puzzle 500 pieces", "gift voucher 50,000", "Brand X-1042", "주방 정리 세트"),
)


@dataclass(frozen=True, slots=True)
class TinyParts:
    """What goes into a bundle."""

    model: CategoryModel
    tokenizer: Tokenizer | None
    taxonomy: Taxonomy
    preprocessing: Preprocessing
    calibration: Calibration


def tiny_taxonomy() -> Taxonomy:
    """Twelve paths of one to four levels; `storage` stands under two parents, `shoes` is a stop and a parent."""
    return Taxonomy(tuple(Node(level, *cell.split("/")) for level, cell in enumerate(row, start=1)) for row in _ROWS)


def tiny_tokenizer() -> Tokenizer:
    """A WordPiece of at most 200 pieces."""
    return Tokenizer.train_wordpiece(TITLES, size=200, max_tokens=16)


def tiny_config(
    taxonomy: Taxonomy,
    modality: Literal["text", "image", "both"] = "both",
    fusion: Literal["concat", "cross"] = "cross",
) -> ModelConfig:
    """BERT 1 × 32 and a fusion 32 wide with two blocks and four heads."""
    bert = {
        "model_type": "bert",
        "vocab_size": 200,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    return ModelConfig(
        classes=tuple(map(len, taxonomy.classes)),
        modality=modality,
        fusion=fusion,
        text_encoder=None if modality == "image" else bert,
        text_pooling="mean",
        px=PX,
        width=32,
        blocks=2,
        heads=4,
    )


def tiny_parts(
    modality: Literal["text", "image", "both"] = "both",
    fusion: Literal["concat", "cross"] = "cross",
    seed: int = 0,
    taxonomy: Taxonomy | None = None,
    **changes: Any,
) -> TinyParts:
    """The parts of a tiny bundle, random by `seed`; torch's own random state is left as it was.

    Args:
        changes: of the model's configuration.
    """
    taxonomy = taxonomy or tiny_taxonomy()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CategoryModel(replace(tiny_config(taxonomy, modality, fusion), **changes)).eval()
        with torch.no_grad():  # spread the logits, so that answers differ between listings
            for name, parameter in model.members.named_parameters():
                if "heads." in name:
                    parameter.mul_(3.0)
    return TinyParts(
        model=model,
        tokenizer=None if modality == "image" else tiny_tokenizer(),
        taxonomy=taxonomy,
        preprocessing=Preprocessing(px=PX, max_tokens=16),
        calibration=Calibration({"both": 1.5, "text": 2.0}, {"both": 0.9, "text": 0.9}),
    )


def make_tiny_bundle(
    folder: str | Path,
    *,
    modality: Literal["text", "image", "both"] = "both",
    fusion: Literal["concat", "cross"] = "cross",
    seed: int = 0,
    taxonomy: Taxonomy | None = None,
    name: str = "tiny",
    created_ms: int = CREATED_MS,
    text_fields: tuple[str, ...] = ("title",),
    **changes: Any,
) -> Path:
    """Writes a tiny bundle to `folder` and returns it; `changes` as in `tiny_parts`."""
    parts = tiny_parts(modality, fusion, seed, taxonomy, **changes)
    bundle.write(
        folder,
        model=parts.model,
        tokenizer=parts.tokenizer,
        taxonomy=parts.taxonomy,
        preprocessing=replace(parts.preprocessing, text_fields=text_fields),
        calibration=parts.calibration,
        name=name,
        metrics={"path_accuracy": 0.0},
        split_fingerprint="none",
        data_note="random weights, for tests",
        created_ms=created_ms,
    )
    return Path(folder)
