"""The command line of the research code, on our engine: `python -m training.train --modality both …`.

"Multi-Modal Cross-Attention Network for e-Commerce Product Categorization" (2022) trains in three calls; so does this:

    python -m training.train --modality text --train_fn DATA --model_fn models
    python -m training.train --modality img  --train_fn DATA --model_fn models
    python -m training.train --modality both --multiModal_type cross --n_block 6 --num_head 4 --train_fn DATA \\
        --load_model_path models --model_fn models

Each call writes a bundle (models/text, models/image, models/cross or models/concat) that runs by itself; the third
takes the encoders of the first two, weight for weight. Flags not given are the recipe's (`--recipe`, seed_kakao).
Of Kakao Arena's chunks, whose photos are vectors, image, cross and concat can be measured and not served.
Unlike there, train and validation rows are the same in every call, a frozen encoder has no dropout, the class "absent"
can be predicted, and nothing is pickled.

After train.py, which does the work.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mmcat.errors import MmcatError
from training.data import Dataset
from training.errors import DataError, RecipeError
from training.hardware import device_of, processes
from training.progress import Progress, Quiet
from training.readers.read import chunk_files, read_listings
from training.recipe import Recipe
from training.run import Options
from training.splits import SHARES
from training.train import train

_MODELS = {"text": "text", "img": "image", "simple": "concat", "cross": "cross"}
_OF_STEP = {"text": "text_training", "img": "image_training", "both": "fusion"}
# Where a flag's value goes in the recipe; {step} is the part of the recipe that this call trains.
_KEYS = {
    "batch_size": "{step}.batch",
    "n_epochs": "{step}.epochs",
    "lr": "{step}.lr",
    "warmup_ratio": "{step}.warmup_share",
    "n_block": "fusion.blocks",
    "num_head": "fusion.heads",
    "max_length": "text.max_tokens",
}


_LINE_S = 10.0


class _Lines(Quiet):
    """Progress as lines on stderr: stages, every ten seconds how it goes, and what must stay."""

    def __init__(self) -> None:
        self._done, self._spoke_s = 0, 0.0

    def begin(self, stage: str, total: int) -> None:
        self._done, self._spoke_s = 0, time.monotonic()
        print(f"{stage} ({total})", file=sys.stderr)

    def advance(self, count: int = 1, note: str = "") -> None:
        self._done += count
        if time.monotonic() - self._spoke_s > _LINE_S:
            self._spoke_s = time.monotonic()
            print(f"  {self._done} {note}".rstrip(), file=sys.stderr)

    def say(self, line: str) -> None:
        print(line, file=sys.stderr)


def main(arguments: Sequence[str] | None = None, progress: Progress | None = None) -> None:
    """Exits with 2 for wrong usage, with 1 and one sentence for what cannot be done."""
    given = parser().parse_args(arguments)
    progress = progress or _Lines()
    cache = given.cache or given.model_fn.parent / "features"
    try:
        report = train(
            read_data(given.train_fn, given.img_path, cache, progress),
            recipe_of(given),
            given.model_fn,
            encoders=given.pretrained_model_name,
            cache=cache,
            shares=shares_of(given.valid_ratio),
            seed=given.seed,
            progress=progress,
            options=options_of(given),
        )
    except MmcatError as error:
        raise SystemExit(f"error: {error}") from error
    world = processes(device_of(given.device))
    accuracies = report.path_accuracy() if world.is_main_process else {}
    world.destroy_process_group()
    for name, accuracy in accuracies.items():
        print(f"{accuracy:.4f}  {name}, path accuracy on {report.measured_on}")


def parser() -> argparse.ArgumentParser:
    """The flags under the names of the research code, and a few of ours below."""
    parser = argparse.ArgumentParser(
        prog="python -m training.train", description="One step of training: text, image, or their fusion."
    )
    flag = parser.add_argument
    flag("--modality", choices=("text", "img", "both"), required=True, help="which step")
    flag("--multiModal_type", choices=("simple", "cross"), default="cross", help="simple: concatenation")
    flag(
        "--train_fn",
        type=Path,
        required=True,
        metavar="DATA",
        help="a data folder or Kakao Arena's chunks, see docs/data-format.md",
    )
    flag("--img_path", type=Path, help="photos, where the data does not bring its own")
    flag("--model_fn", type=Path, default=Path("models"), metavar="FOLDER", help="where the bundle goes")
    flag("--logging_fn", type=Path, metavar="FOLDER", help="where the JSON lines go; default: MODEL_FN/logs")
    flag("--load_model_path", type=Path, metavar="FOLDER", help="bundles of the text and image steps, for both")
    flag("--pretrained_model_name", metavar="NAME|FOLDER", help="encoders; default: kykim/bert-kor-base")
    flag("--n_block", type=int, help="cross-attention blocks")
    flag("--num_head", type=int, help="attention heads")
    flag("--batch_size", type=int)
    flag("--n_epochs", type=int)
    flag("--lr", type=float)
    flag("--warmup_ratio", type=float, help="share of the steps")
    flag("--max_length", type=int, help="tokens of a title")
    flag("--valid_ratio", type=float, help="share of listings that choose the epoch; default 0.07")
    ours = parser.add_argument_group("not in the research code")
    ours.add_argument("--recipe", default="seed_kakao", help="by name or file")
    ours.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="of the recipe; repeatable")
    ours.add_argument("--seed", type=int, default=0)
    ours.add_argument("--resume", action="store_true", help="go on where this call was stopped")
    ours.add_argument("--cache", type=Path, help="folder of features and splits; default: beside MODEL_FN")
    ours.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    return parser


def recipe_of(given: argparse.Namespace) -> Recipe:
    """The recipe with what the flags say, and then with what `--set` says."""
    base = Recipe.load(given.recipe, given.set)
    own = _OF_STEP[given.modality]  # where the recipe trains no such encoder, its heads learn as the fusion does
    step = own if getattr(base, own) is not None else "fusion"
    values = {key.format(step=step): getattr(given, flag) for flag, key in _KEYS.items()}
    changes = [f"{key}={value!r}" for key, value in values.items() if value is not None]
    return Recipe.load(given.recipe, [*changes, *given.set])


def options_of(given: argparse.Namespace) -> Options:
    """Which model the call trains, and where from and to."""
    if given.load_model_path is not None and given.modality != "both":
        raise RecipeError("--load_model_path gives the fusion its encoders: it belongs to --modality both")
    name = _MODELS[given.multiModal_type if given.modality == "both" else given.modality]
    return Options(
        models=(name,), load=given.load_model_path, resume=given.resume, logs=given.logging_fn, device=given.device
    )


def shares_of(valid_ratio: float | None) -> Mapping[str, float]:
    """The split's shares with another validation part; calibration and test parts stay, training gives or takes."""
    if valid_ratio is None:
        return SHARES
    train_share = SHARES["train"] + SHARES["select"] - valid_ratio
    if valid_ratio <= 0 or train_share <= 0:
        most = SHARES["train"] + SHARES["select"]
        raise RecipeError(f"--valid_ratio must lie between 0 and {most:.2f}, not {valid_ratio}")
    return {**SHARES, "train": train_share, "select": valid_ratio}


def read_data(data: Path, photos: Path | None, cache: Path, progress: Progress | None = None) -> Dataset:
    """Reads what `--train_fn` names: a data folder, or Kakao Arena's chunks, whose photos are vectors of their own.

    Raises:
        DataError: none of the formats that we know, or `--img_path` names photos that are not the data's own.
    """
    own = {(data / name).resolve() for name in ("photos", "photos.zip")}
    if photos is not None and not chunk_files(data) and photos.resolve() not in own:
        raise DataError(f"--img_path {photos}: a data folder brings its own photos, in photos/ or photos.zip")
    return read_listings(data, cache=cache, progress=progress)
