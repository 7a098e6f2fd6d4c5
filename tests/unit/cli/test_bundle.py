"""`mmcat bundle`: show, verify and diff on real bundles, and the one sentence where a bundle is broken."""

import json
import shutil
from pathlib import Path

import pytest

from mmcat import bundle
from mmcat.cli import main
from mmcat.taxonomy import Node, Taxonomy
from tests.support.tiny import make_tiny_bundle, tiny_taxonomy


def test_show_says_what_the_bundle_holds(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", str(tiny_bundle)]) == 0
    shown = capsys.readouterr().out
    assert bundle.fingerprint(tiny_bundle) in shown.replace("\n", "").replace(" ", "")
    assert "model.fusion" in shown
    assert main(["bundle", "show", str(tiny_bundle), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said.pop("fingerprint") == bundle.fingerprint(tiny_bundle)
    assert said == json.loads((tiny_bundle / "bundle.json").read_text())


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
