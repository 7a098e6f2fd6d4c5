"""`mmcat bundle`: show, verify, diff and calibrate on real bundles, and the one sentence where something is broken."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mmcat import bundle
from mmcat.cli import main
from mmcat.engines.int8 import FILE
from mmcat.taxonomy import Node, Taxonomy
from tests.support.tiny import TITLES, make_tiny_bundle, tiny_taxonomy


def test_show_says_what_the_bundle_holds(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", str(tiny_bundle)]) == 0
    shown = capsys.readouterr().out
    assert bundle.fingerprint(tiny_bundle) in shown.replace("\n", "").replace(" ", "")
    assert "model.fusion" in shown
    assert main(["bundle", "show", str(tiny_bundle), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("fingerprint") == bundle.fingerprint(tiny_bundle)
    assert said == json.loads((tiny_bundle / "bundle.json").read_text())


def test_show_says_what_is_not_for_service(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_tiny_bundle(tmp_path / "given", given_photo_width=7)
    assert main(["bundle", "show", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "not for service its photo vectors (7 wide) came with the data" in shown
    assert main(["bundle", "verify", str(folder)]) == 0
    assert main(["predict", "boots", "--bundle", str(folder)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_calibrate_refuses_what_is_not_for_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mmcat.engines.quantize.missing", lambda: None)
    folder = make_tiny_bundle(tmp_path / "given", given_photo_width=7)
    assert main(["bundle", "calibrate", str(folder), str(listings(tmp_path / "listings", 3))]) == 1
    heard = capsys.readouterr().err
    assert heard.count("\n") == 1
    assert "its photo vectors (7 wide) came with the data" in heard


def test_verify_loads_it_and_says_one_sentence_where_it_cannot(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bundle", "verify", str(tiny_bundle)]) == 0
    assert bundle.fingerprint(tiny_bundle) in capsys.readouterr().out
    broken = shutil.copytree(tiny_bundle, tmp_path / "broken")
    with (broken / "README.md").open("a") as file:
        file.write("and more")
    for command in ("verify", "show"):
        assert main(["bundle", command, str(broken)]) == 1
        heard = capsys.readouterr()
        assert not heard.out
        assert heard.err.count("\n") == 1
        assert "README.md has changed" in heard.err


def test_diff_tells_configuration_paths_and_figures_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [*tiny_taxonomy().paths[:-1], (Node(1, "garden", "Garden"),)]
    one = make_tiny_bundle(tmp_path / "one", modality="text")
    other = make_tiny_bundle(tmp_path / "other", modality="text", taxonomy=Taxonomy(paths), name="grown")
    assert main(["bundle", "diff", str(one), str(other), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["names"] == ["tiny", "grown"]
    assert found["paths"] == {"added": ["Garden"], "removed": ["Vouchers"]}
    assert not found["configuration"]  # as many classes as before
    assert found["metrics"] == {"path_accuracy": [0.0, 0.0]}
    image = make_tiny_bundle(tmp_path / "image", modality="image")
    assert main(["bundle", "diff", str(one), str(image)]) == 0
    shown = capsys.readouterr().out
    assert "model.modality" in shown
    assert "paths added: 0" in shown


# ── calibrate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def listings(folder: Path, count: int) -> Path:
    """A folder of so many listings, without photos."""
    dice = np.random.default_rng(0)
    rows = [f"{row}\t{' '.join(dice.choice(TITLES, 2))}" for row in range(count)]
    folder.mkdir()
    (folder / "listings.tsv").write_text("\n".join(["product_id\ttitle", *rows]) + "\n", encoding="utf-8")
    return folder


def test_calibrate_puts_int8_beside_the_weights_and_says_what_auto_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("nncf", reason="the extra `calibrate` is not installed")
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path / "home"))
    folder = make_tiny_bundle(tmp_path / "text", modality="text")
    before = bundle.fingerprint(folder)
    words = ["bundle", "calibrate", str(folder), str(listings(tmp_path / "listings", 50))]
    assert main([*words, "--count", "20", "--judge", "24", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)  # and nothing of NNCF's on stdout
    assert said["bytes"] == (folder / FILE).stat().st_size
    assert "on 24 real listings" in said["why"]
    assert bundle.fingerprint(folder) == before
    assert main(["bundle", "verify", str(folder)]) == 0
    assert f"{FILE} is of this bundle: text, 24 real listings" in capsys.readouterr().out
    assert main(["predict", "boots", "--bundle", str(folder), "--precision", "int8", "--json"]) == 0
    model = json.loads(capsys.readouterr().out)["model"]
    assert (model["engine"], model["precision"]) == ("openvino-cpu", "int8")
    (folder / FILE).write_bytes(b"")
    assert main(["bundle", "verify", str(folder)]) == 1
    assert f"{FILE} cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rows", "lacks", "why"),
    [
        (10, None, "gave 10 listings that the model can read, and 812 are wanted"),
        (10, "nncf not installed (pip install 'mmcat[calibrate]')", "nothing can be calibrated: nncf not installed"),
        (0, None, "there is no table"),
    ],
)
def test_calibrate_says_in_one_sentence_what_it_lacks(
    rows: int,
    lacks: str | None,
    why: str,
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("mmcat.engines.quantize.missing", lambda: lacks)
    folder = listings(tmp_path / "listings", rows) if rows else tmp_path
    assert main(["bundle", "calibrate", str(tiny_bundle), str(folder)]) == 1
    heard = capsys.readouterr()
    assert not heard.out
    assert heard.err.count("\n") == 1
    assert why in heard.err
    assert not (tiny_bundle / FILE).exists()
