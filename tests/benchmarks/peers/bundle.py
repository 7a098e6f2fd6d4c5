"""A bundle of the shape that `mmcat train --recipe fashion_cpu` makes, with random weights: they change no speed.

ResNet50 at 128 px, a sentence encoder of six layers, three fusions of two blocks, a tree of the size of a marketplace's
(57 main, 570 middle and 3,420 small categories, and 570 sub). Such a model gives few different paths; heads are spread,
so that their probabilities differ.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import torch

from mmcat import bundle
from mmcat.calibration import Calibration
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.preparation import Preprocessing
from mmcat.taxonomy import Node, Taxonomy
from mmcat.text import Tokenizer

PX, TOKENS, VOCABULARY = 128, 48, 2_000
SENTENCES: Final[dict[str, Any]] = {
    "model_type": "bert", "vocab_size": VOCABULARY, "hidden_size": 384, "num_hidden_layers": 6,
    "num_attention_heads": 12, "intermediate_size": 1_536, "max_position_embeddings": 512,
}  # fmt: skip
MAIN, MIDDLE, SMALL = 57, 10, 6  # of each: categories under one parent


def write(folder: Path, titles: list[str], tokens: int = TOKENS, **changes: Any) -> Path:
    """Writes the bundle; its tokenizer learns from `titles`. Blocks for seconds.

    Args:
        tokens: of the longest title.
        changes: of the model's configuration.
    """
    taxonomy = Taxonomy(_paths())
    shape: dict[str, Any] = {
        "text_encoder": SENTENCES,
        "text_pooling": "layers",
        "image_layers": "layer3+layer4",
        "px": PX,
        "width": 384,
        "blocks": 2,
        "heads": 4,
        "members": 3,
    }
    config = ModelConfig(classes=tuple(map(len, taxonomy.classes)), **(shape | changes))
    torch.manual_seed(0)
    model = CategoryModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.members.named_parameters():
            if "heads." in name:
                parameter.mul_(10.0)
    bundle.write(
        folder,
        model=model,
        tokenizer=Tokenizer.train_wordpiece(titles, size=VOCABULARY, max_tokens=tokens),
        taxonomy=taxonomy,
        preprocessing=Preprocessing(px=config.px, max_tokens=tokens),
        calibration=Calibration({"both": 1.0}, {"both": 0.9}),
        name="peers",
        metrics={},
        split_fingerprint="",
        data_note="random weights, for benchmarks",
        created_ms=1_750_000_000_000,
    )
    return folder


def _paths() -> Iterator[tuple[Node, ...]]:
    for main in range(MAIN):
        for middle in range(MIDDLE):
            parents = (Node(1, f"{main}", f"main {main}"), Node(2, f"{main}.{middle}", f"middle {main}.{middle}"))
            for small in range(SMALL):
                own = f"{main}.{middle}.{small}"
                yield (*parents, Node(3, own, f"small {own}"))
            yield (*parents, Node(3, own, f"small {own}"), Node(4, f"{own}.0", f"sub {own}.0"))
