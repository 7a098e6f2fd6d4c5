"""A trained model's promise and evidence: three of each in the bundle, and the modality that decides is named."""

import io

import numpy as np
import pytest
from PIL import Image

from mmcat import Categorizer, Listing, bundle
from mmcat.calibration import NEVER, SEEN
from tests.unit.training.small import write_encoders
from training.readers.folder import read_folder
from training.recipe import Recipe
from training.report import Report
from training.train import MODELS, Options, train

THINGS = {"shoe": (220, 20, 20), "bag": (20, 220, 20), "mug": (20, 20, 220)}
WORDS = {"shoe": "men", "bag": "women", "mug": "item"}
BOX = (128, 128, 128)  # a photo that says nothing
COUNT = 420


def _photo(colour: tuple[int, int, int], number: int) -> bytes:
    buffer = io.BytesIO()
    shade = tuple(max(0, channel - number % 20) for channel in colour)
    Image.new("RGB", (40, 40), shade).save(buffer, "JPEG")
    return buffer.getvalue()


def _listing(number: int) -> tuple[str, Listing]:
    """Odd ones are decided by their photo, even ones by their title; the other says nothing."""
    thing = list(THINGS)[number // 2 % 3]
    photo = _photo(THINGS[thing] if number % 2 else BOX, number)
    # Words that the small world's tokenizer knows; the number keeps each listing its own group.
    title = f"{number}" if number % 2 else f"{WORDS[thing]} {WORDS[thing]} {number}"
    return thing, Listing(f"p{number}", title, photo)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("data") / "deciding"
    (folder / "photos").mkdir(parents=True)
    lines = ["product_id\ttitle\tlevel1\tlevel2"]
    for number in range(COUNT):
        thing, listing = _listing(number)
        lines.append(f"p{number}\t{listing.title}\tgoods\t{thing}")
        (folder / "photos" / f"p{number}.jpg").write_bytes(listing.image or b"")
    (folder / "listings.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = Recipe.model_validate({
        "name": "deciding", "encoders": "pretrained", "baselines": False, "error_rate": 0.1,
        "photo": {"px": 32, "layers": "layer3+layer4"}, "text": {"max_tokens": 16, "pooling": "layers"},
        "fusion": {"width": 32, "blocks": 1, "heads": 2, "epochs": 20, "batch": 32, "lr": 0.01, "ema": 0.5},
    })  # fmt: skip
    encoders = write_encoders(tmp_path_factory.mktemp("encoders"))
    out = tmp_path_factory.mktemp("out") / "run"
    shares = {"train": 0.6, "select": 0.1, "calibrate": 0.3}
    return train(read_folder(folder), recipe, out, encoders=encoders, shares=shares, options=Options(device="cpu"))


def test_the_modality_that_decides_has_the_larger_share(report: Report) -> None:
    categorizer = Categorizer.load(report.bundle("cross"), device="cpu", evidence=True)
    numbers = range(COUNT, COUNT + 96)
    results = categorizer.categorize([_listing(number)[1] for number in numbers])
    found = [result.evidence for result in results if result.evidence is not None]
    named = [(one.image > one.text) == bool(number % 2) for one, number in zip(found, numbers, strict=True)]
    assert np.mean(named) >= 0.95


@pytest.mark.parametrize("name", MODELS)
def test_a_bundle_holds_three_temperatures_and_three_thresholds(report: Report, name: str) -> None:
    calibration = bundle.load(report.bundle(name)).calibration
    assert set(calibration.temperatures) == set(calibration.thresholds) == set(SEEN)
    assert (calibration.error_rate, calibration.confidence) == (0.1, 0.9)


def test_what_a_model_cannot_read_is_never_promised(report: Report) -> None:
    _, listing = _listing(1)
    photo_only, title_only = Listing("p", image=listing.image), Listing("t", "men men 7")
    for name, blind in (("text", photo_only), ("image", title_only), ("cross", Listing("nothing"))):
        assert Categorizer.load(report.bundle(name), device="cpu").categorize([blind])[0].safe_level == 0
    assert bundle.load(report.bundle("cross")).calibration.threshold("both") < NEVER


def test_the_report_says_what_the_promise_came_to(report: Report) -> None:
    promise = report.models["cross"].metrics["promise"]
    assert set(promise) == set(SEEN)
    assert promise["both"]["error_rate"] <= 0.1
    assert 0 < promise["both"]["depth"] <= 2
    assert promise["both"]["review"] < 1
    assert set(report.models["text"].metrics["promise"]) == {"both"}
