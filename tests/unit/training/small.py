"""A small world for training's tests: a folder of 90 listings, encoders with random weights, a recipe of seconds.

Titles name the audience, photos (flat colours) the thing: one alone is not enough.
"""

import io
import zipfile
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.text import Tokenizer
from training.recipe import Recipe

THINGS = {"shoe": (200, 30, 30), "bag": (30, 200, 30), "mug": (30, 30, 200)}
AUDIENCES = ("men", "women", "")
HEADER = "product_id\ttitle\tlevel1\tlevel2\tlevel3\thard_title\timage"
BERT = {
    "model_type": "bert",
    "vocab_size": 100,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
}


def small_recipe() -> Recipe:
    """Frozen encoders, 32 px, 12 epochs of a fusion 16 wide."""
    fusion = {
        "width": 16,
        "blocks": 1,
        "heads": 2,
        "epochs": 12,
        "batch": 16,
        "lr": 0.01,
        "ema": 0.5,
        "enough_steps": 1,
    }
    return Recipe.model_validate({
        "name": "small", "encoders": "pretrained", "fusion": fusion,
        "photo": {"px": 32, "layers": "layer3+layer4"},
        "text": {"max_tokens": 16, "pooling": "layers"},
        "baselines": False,
    })  # fmt: skip


def lines(count: int = 90) -> list[str]:
    """Rows of `listings.tsv`, without the header."""
    found = []
    for number in range(count):
        thing, audience = list(THINGS)[number % 3], AUDIENCES[number // 3 % 3]
        title = f"item {number} {audience}".strip()
        found.append(f"p{number}\t{title}\tgoods\t{thing}\t{audience}\t{title}\tp{number}.jpg")
    return found


def write_folder(folder: Path, rows: list[str] | None = None, *, zipped: bool = True) -> Path:
    """Writes listings and their photos."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = lines() if rows is None else rows
    (folder / "listings.tsv").write_text("\n".join([HEADER, *rows]) + "\n", encoding="utf-8")
    photos = {f"p{number}.jpg": jpeg(list(THINGS.values())[number % 3], number) for number in range(90)}
    if zipped:
        with zipfile.ZipFile(folder / "photos.zip", "w") as archive:
            for name, data in photos.items():
                archive.writestr(name, data)
    else:
        (folder / "photos").mkdir()
        for name, data in photos.items():
            (folder / "photos" / name).write_bytes(data)
    return folder


def spoil(folder: Path, name: str) -> None:
    """Changes a byte of a member of the folder's photos.zip: it no longer fits its checksum."""
    path = folder / "photos.zip"
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
    data = bytearray(path.read_bytes())
    data[member.header_offset + 30 + len(name) + member.compress_size // 2] ^= 0xFF
    path.write_bytes(data)


def jpeg(colour: tuple[int, int, int], number: int) -> bytes:
    """A flat photo, a little different for each number."""
    buffer = io.BytesIO()
    shade = tuple(min(255, channel + number % 40) for channel in colour)
    Image.new("RGB", (40, 30), shade).save(buffer, "JPEG")
    return buffer.getvalue()


def write_encoders(folder: Path, seed: int = 0) -> Path:
    """A ResNet50 and a BERT with random weights, in the shape that `training.frozen` recognises."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CategoryModel(ModelConfig(classes=(1, 1, 1, 1), text_encoder=BERT, px=32, width=16, blocks=1, heads=2))
    assert model.text_encoder is not None
    assert model.image_encoder is not None
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.image_encoder.trunk.state_dict(), str(folder / "resnet50_v1.safetensors"))
    model.text_encoder.trunk.save_pretrained(folder / "tiny")  # type: ignore[operator]  # a Hugging Face model
    tokenizer = Tokenizer.train_wordpiece([line.split("\t")[1] for line in lines()], size=100, max_tokens=16)
    tokenizer.write(folder / "tiny" / "tokenizer.json")
    return folder
