"""`mmcat config show`: values with origins, secrets hidden, wrong settings named."""

import json
import os
import signal
from pathlib import Path

import pytest

from mmcat.cli import main


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_each_value_names_its_origin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[batch]\nmax_listings = 8\n[kafka]\ngroup_id = 'g1'\n")
    monkeypatch.setenv("MMCAT_KAFKA__GROUP_ID", "g2")
    assert main(["config", "show", "--json", "--config", str(file)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["batch.max_listings"] == {"value": 8, "origin": f"file {file}"}
    assert shown["kafka.group_id"] == {"value": "g2", "origin": "environment MMCAT_KAFKA__GROUP_ID"}
    assert shown["photo.deadline_s"]["origin"] == "default"


def test_secrets_are_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MMCAT_VIEW__URL", "redis://:hunter2@cache:6379/0")
    monkeypatch.setenv("MMCAT_KAFKA__SASL_PASSWORD", "hunter2")
    assert main(["config", "show"]) == 0
    assert main(["config", "show", "--json"]) == 0
    assert "hunter2" not in capsys.readouterr().out


def test_a_misspelled_setting_is_one_sentence_and_exit_code_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_BATCH__MAX_LISTING", "8")
    assert main(["config", "show"]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "batch.max_listings" in said


def test_a_missing_settings_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "show", "--config", "nowhere.toml"]) == 1
    assert "nowhere.toml" in capsys.readouterr().err


def test_only_the_service_needs_the_name_that_exactly_once_rests_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MMCAT_DELIVERY", "exactly_once")
    assert main(["config", "show"]) == 0
    assert main(["consume"]) == 1
    assert "needs kafka.instance_id" in capsys.readouterr().err


def test_a_signal_while_the_model_loads_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def loads(_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()

    monkeypatch.setattr("mmcat.cli.consume.load_model", loads)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # as process 1 of a container has it
    try:
        assert main(["consume"]) == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
