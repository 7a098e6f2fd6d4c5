"""Encoders that come trained, from a folder or a model hub: found, checked, frozen.

`--encoders` names either, everywhere:

    FOLDER with a ResNet50 and a text encoder (below)      both from there
    FOLDER that is a Hugging Face text encoder             its titles; photos by torchvision's IMAGENET1K_V2
    NAME on the hub, such as kykim/bert-kor-base           the same, from the hub

A folder of both:

    FOLDER/
      resnet50_v1.safetensors   torchvision's names, v1 strides (Caffe, Keras); or
      resnet50.safetensors      torchvision's own, v1.5 strides
      minilm/, e5/, …           a folder with config.json, model.safetensors, tokenizer.json

Without any the hubs are asked: `kykim/bert-kor-base` and torchvision's IMAGENET1K_V2. Before steps.py.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmcat import pretrained
from mmcat.errors import ModelError
from mmcat.model import CategoryModel
from mmcat.text import Tokenizer
from training.errors import RecipeError

HUB_TEXT = "kykim/bert-kor-base"
Strides = Literal["v1", "v1.5"]
Pooling = Literal["cls", "mean", "pooler", "layers"]
_RESNETS: dict[str, Strides] = {"resnet50_v1.safetensors": "v1", "resnet50.safetensors": "v1.5"}
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?")  # owner/name or name; anything else is meant as a folder
_PREFERRED = ("minilm", "e5")  # where a folder has several: the smaller first


@dataclass(frozen=True, slots=True)
class FrozenEncoders:
    """Where the weights are and how they must be run.

    Args:
        text: folder or name on the hub.
        resnet: safetensors file; None for torchvision's IMAGENET1K_V2.
    """

    text: str
    resnet: Path | None
    strides: Strides
    pooling: Pooling

    def text_config(self) -> dict[str, Any]:
        return pretrained.text_config(self.text)

    def tokenizer(self, max_tokens: int) -> Tokenizer:
        """The encoder's own tokenizer; blocks on the network for a hub name."""
        folder = Path(self.text)
        if folder.is_dir():
            return Tokenizer.load(folder / "tokenizer.json", max_tokens)
        from transformers import AutoTokenizer

        try:
            fast = AutoTokenizer.from_pretrained(self.text, use_fast=True)
            return Tokenizer(fast.backend_tokenizer, max_tokens)
        except (OSError, ValueError, AttributeError) as error:
            raise RecipeError(f"no tokenizer of {self.text}: {str(error).partition(chr(10))[0]}") from error

    def fill(self, model: CategoryModel, *, text: bool = True, image: bool = True) -> None:
        """Loads the weights into whichever of the wished encoders the model has, and freezes them."""
        if text and model.text_encoder is not None:
            pretrained.load_text_weights(model, self.text)
            model.text_encoder.eval().requires_grad_(False)
        if image and model.image_encoder is not None:
            if self.resnet is None:
                _fill_from_torchvision(model)
            else:
                pretrained.load_resnet_weights(model, self.resnet)
            model.image_encoder.eval().requires_grad_(False)


def find(encoders: str | Path | None, pooling: Pooling | None = None, *, photos: bool = True) -> FrozenEncoders:
    """Recognises what a folder holds; a name is not looked up yet.

    Args:
        encoders: folder or name, see above; None for our defaults on the hubs.
        pooling: what the recipe says; None reads it from the text encoder's folder (sentence encoders say so there).
        photos: whether a ResNet50 must be there; where none is wanted, none needs to be.

    Raises:
        RecipeError: no folder, or a part is missing in it.
    """
    if encoders is None:
        return FrozenEncoders(HUB_TEXT, None, "v1.5", pooling or "cls")
    root = Path(encoders)
    if not root.is_dir():
        if not _HUB_NAME.fullmatch(str(encoders)):
            raise RecipeError(
                f"no encoders at {root}: give a folder with a ResNet50 and a text encoder, or a hub's name"
            )
        return FrozenEncoders(str(encoders), None, "v1.5", pooling or "cls")
    if (root / "config.json").is_file() and (root / "tokenizer.json").is_file():
        return FrozenEncoders(str(root), None, "v1.5", pooling or _pooling_of(root))
    resnets = [name for name in _RESNETS if (root / name).is_file()]
    texts = {file.parent.name: file.parent for file in sorted(root.glob("*/config.json"))}
    texts = {name: folder for name, folder in texts.items() if (folder / "tokenizer.json").is_file()}
    if photos and not resnets:
        raise RecipeError(f"{root} lacks {' or '.join(_RESNETS)}")
    if not texts:
        raise RecipeError(f"{root} lacks a text encoder's folder with config.json and tokenizer.json")
    chosen = next((name for name in _PREFERRED if name in texts), min(texts))
    text = texts[chosen]
    if not photos:
        return FrozenEncoders(str(text), None, "v1.5", pooling or _pooling_of(text))
    return FrozenEncoders(str(text), root / resnets[0], _RESNETS[resnets[0]], pooling or _pooling_of(text))


def _pooling_of(folder: Path) -> Pooling:
    """What a sentence encoder's folder says of itself; a plain BERT says nothing, and its first token is taken."""
    try:
        said = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "cls"
    return "mean" if said.get("pooling_mode_mean_tokens") else "cls"


def _fill_from_torchvision(model: CategoryModel) -> None:
    """IMAGENET1K_V2 from torchvision's hub; checked against the hash in its name there."""
    from torchvision.models import ResNet50_Weights

    try:
        state = ResNet50_Weights.IMAGENET1K_V2.get_state_dict(progress=False, check_hash=True)
    except OSError as error:
        raise RecipeError(
            f"torchvision's ResNet50 cannot be fetched ({error}): give a folder with --encoders"
        ) from error
    if model.image_encoder is None:
        raise ModelError("this model has no image encoder to fill")
    trunk = {name: value for name, value in state.items() if not name.startswith("fc.")}
    model.image_encoder.trunk.load_state_dict(trunk)
