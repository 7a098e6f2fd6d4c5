"""Learning with the last blocks of the encoders unfrozen: what comes before them stays as it is.

    photo ─> frozen blocks, once per row, kept on disk ─> [last blocks] ─┐
      (with views: frozen blocks each step, no gradients) ───────────────┤
                                                                         ├─> fusion, heads
    title ─> frozen layers (each step; no gradients) ───> [last layers] ─┘

BatchNorm keeps its statistics and frozen parts are in eval mode, as in serving. An encoder of which nothing is tuned is
not run at all: its cached features are taken. Afterwards the encoders have changed, so their features are computed anew
by whoever needs them.

After steps.py, fusion.py, stem.py; before train.py.
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.normalisation import Normalisation
from mmcat.preparation import Preprocessing
from mmcat.text import Tokenizer
from training.data import Dataset
from training.engine import fit
from training.errors import RecipeError
from training.features import pixels
from training.fusion import Inputs, drop_modalities, standardise
from training.order import IMAGE_VIEW, Dice, Rows
from training.progress import Progress
from training.recipe import FusionRecipe, Tune
from training.stem import Stem, last_blocks
from training.steps import Encoders
from training.task import NOTHING, Arguments, Fitted, Keep, Task
from training.views import augmented


@dataclass(frozen=True, slots=True)
class Sources:
    """What the tuned encoders read, of all rows.

    Args:
        titles: as serving sees them; read where text layers are tuned.
        stem: what the frozen blocks made of the photos; None where none are tuned, or photos have views.
        photos: None where one view of each photo is seen, or no block is tuned.
    """

    titles: list[str]
    stem: Stem | None = None
    photos: "Photos | None" = None


@dataclass(frozen=True, slots=True)
class Photos:
    """Photos as they are decoded, in one of `views` by chance; view 0 where nothing is learned."""

    dataset: Dataset
    preprocessing: Preprocessing
    views: int

    def take(self, rows: Rows, dice: Dice | None) -> Arguments:
        """Argument "pixels_BXXC", uint8 [B, px, px, 3]; black where a row has no photo."""
        listed = [self.dataset.rows[row] for row in rows]
        found, there_B = pixels(listed, self.preprocessing)
        px = self.preprocessing.px
        pixels_BXXC = np.zeros((len(rows), px, px, 3), np.uint8)
        for place, photo in zip(np.flatnonzero(there_B), found, strict=True):
            view = 0 if dice is None else int(dice[place, IMAGE_VIEW] * self.views)
            pixels_BXXC[place] = augmented(photo, listed[place].id, view)
        return {"pixels_BXXC": torch.from_numpy(pixels_BXXC)}


class Tuned(nn.Module):
    """A model that runs the tail of its image encoder on what the stem kept, and all of its text encoder on tokens."""

    def __init__(self, model: CategoryModel, tune: Tune, stem: Stem | None, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model = model
        self.normalisation = Normalisation(preprocessing)
        if model.text_encoder is not None and tune.text_layers:
            for parameter in _last_layers(model.text_encoder, tune.text_layers):
                parameter.requires_grad_(True)
        self.stem = stem
        self.tail = None if stem is None else stem.tail
        if model.image_encoder is not None:
            model.image_encoder.to(memory_format=torch.channels_last)
            self.tail = last_blocks(model.image_encoder, tune.image_blocks)
        if self.tail is not None:
            for parameter in self.tail.parameters():
                parameter.requires_grad_(True)

    def train(self, mode: bool = True) -> "Tuned":
        """Training mode, but for BatchNorm: a few small batches must not undo what millions of photos have taught."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, **arguments: Tensor | None) -> list[Tensor]:
        """Arguments of `fuse`, or in place of an encoder's vectors what it is run on."""
        ids_BT, mask_BT = arguments.pop("ids_BT", None), arguments.pop("mask_BT", None)
        if ids_BT is not None and mask_BT is not None:
            text_BTD = self.model.encode_text(ids_BT, mask_BT)
            arguments["text_BTD"] = text_BTD
            arguments["text_mask_BT"] = mask_BT.bool() if text_BTD.shape[1] > 1 else None
        kept = [value for name, value in sorted(arguments.items()) if name.startswith("kept") and value is not None]
        for name in [name for name in arguments if name.startswith("kept")]:
            del arguments[name]
        if self.stem is not None and kept:
            arguments["image_BND"] = self.stem.finish(kept)
        pixels_BXXC = arguments.pop("pixels_BXXC", None)
        if pixels_BXXC is not None:
            arguments["image_BND"] = self.model.encode_image(self.normalisation(pixels_BXXC))
        return self.model.fuse(**arguments)  # the names are those of `Inputs.take`


def learn_tuned(
    trained: Encoders,
    config: ModelConfig,
    inputs: Inputs,
    sources: Sources,
    train_rows: Rows,
    select_rows: Rows,
    recipe: FusionRecipe,
    *,
    seed: int,
    progress: Progress,
    stage: str,
    device: str = "cpu",
    keep: Keep = NOTHING,
) -> tuple[Encoders, CategoryModel, Fitted]:
    """Trains a fusion and the last blocks of copies of the encoders that it reads.

    Returns:
        The tuned encoders, the fusion without them, and how it went.

    Raises:
        RecipeError: more layers to tune than the text encoder has.
    """
    own = replace(trained, model=copy.deepcopy(trained.model), singles={})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CategoryModel(config, encoders=False)
    standardise(model, inputs, train_rows)
    model.text_encoder = own.model.text_encoder if config.reads_text and recipe.tune.text_layers else None
    stem = None
    if config.reads_image and sources.stem is not None and own.model.image_encoder is not None:
        stem = sources.stem.onto(own.model.image_encoder)
    if config.reads_image and sources.photos is not None:
        model.image_encoder = own.model.image_encoder
    network = Tuned(model, recipe.tune, stem, trained.preprocessing)

    def arguments(rows: Rows, dice: Dice | None) -> Arguments:
        found = inputs.take(rows, config, dice)
        if model.text_encoder is not None and own.tokenizer is not None:
            found |= _tokens(own.tokenizer, [sources.titles[row] for row in rows])
        if stem is not None:
            found |= {"image_BND": None} | stem.take(rows)
        elif sources.photos is not None and config.reads_image:
            found |= {"image_BND": None} | sources.photos.take(rows, dice)
        return found if dice is None else drop_modalities(found, config, recipe.missing, dice)

    def lr_share(name: str) -> float:
        return 1.0 if name.startswith("model.members.") else recipe.tune.lr_scale

    task = Task(network, arguments, inputs.taxonomy, inputs.targets, train_rows, select_rows, lr_share)
    fitted = fit(task, recipe, seed=seed, stage=stage, progress=progress, device=device, keep=keep)
    model.text_encoder = model.image_encoder = None
    own.model.to(device).eval().requires_grad_(False)
    return own, model.cpu().eval(), fitted


def _tokens(tokenizer: Tokenizer, titles: list[str]) -> Arguments:
    ids_BT, mask_BT = tokenizer.encode(titles)
    ids = {"ids_BT": torch.from_numpy(ids_BT), "mask_BT": torch.from_numpy(mask_BT)}
    return {**ids, "text_BTD": None, "text_mask_BT": None}


def _last_layers(encoder: nn.Module, count: int) -> list[nn.Parameter]:
    """Parameters of the last layers of a Hugging Face encoder: its longest list of modules holds them."""
    lists = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    layers = max(lists, key=len, default=nn.ModuleList())
    if count > len(layers):
        raise RecipeError(f"fusion.tune.text_layers is {count}, and the text encoder has {len(layers)} layers")
    return [parameter for layer in list(layers)[-count:] for parameter in layer.parameters()]
