"""`mmcat data check`: words for people, JSON for programs, and an exit code for both."""

import json
from pathlib import Path

import pytest

from mmcat.cli import main
from tests.unit.training.small import lines, write_folder


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MMCAT_HOME", str(tmp_path / "home"))


def test_a_good_folder_is_described_and_exits_0(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(write_folder(tmp_path / "f"))]) == 0
    out = capsys.readouterr().out
    assert "90 listings, 9 paths" in out
    assert "note: level 1: 1 categories" in out


def test_a_folder_that_training_refuses_exits_1_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_folder(tmp_path / "f", [*lines(), "p1\ttitle"])
    assert main(["data", "check", str(folder), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["refused"] is True
    assert found["findings"][0]["severity"] == "error"
    assert found["findings"][1]["examples"] == ["line 92, column (all): 2 cells where the header has 7"]


def test_a_folder_that_is_not_there_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(tmp_path / "nowhere")]) == 1
    assert "neither a folder of listings nor a chunk file" in capsys.readouterr().out
