"""The command table: usage, unknown commands, exit codes and sentences, without starting any command's work."""

import subprocess
import sys

import pytest
import typer

from mmcat.cli import main, root, texts
from mmcat.errors import BundleError


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    """A typer application that stands in the table as `probe`."""
    app = texts.new_app()
    monkeypatch.setattr(root, "COMMANDS", (root.Command("probe", "probe", "a probe", root.TRY),))
    monkeypatch.setattr(root, "load", lambda _command: app)
    return app


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {command.name} " in out for command in root.COMMANDS)


def test_no_command_is_wrong_usage_and_stdout_stays_empty(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr()
    assert not shown.out
    assert "Usage: mmcat" in shown.err


def test_a_misspelled_command_is_told_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demmo"]) == 2
    assert "did you mean demo?" in capsys.readouterr().err


def test_an_unknown_option_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--loud", "demo"]) == 2
    assert "--loud" in capsys.readouterr().err


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("mmcat 0.")


@pytest.mark.parametrize("command", root.COMMANDS, ids=lambda command: command.name)
def test_every_command_has_help_with_an_example(command: root.Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command.name, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage: mmcat {command.name}" in out
    assert f"mmcat {command.name}" in out.partition("Example")[2]


@pytest.mark.parametrize("name", [command.name for command in root.COMMANDS])
def test_a_wrong_option_of_a_command_is_wrong_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--no-such-option"]) == 2
    assert "no-such-option" in capsys.readouterr().err


def test_an_error_of_ours_is_one_sentence_and_exit_code_one(
    command: typer.Typer, capsys: pytest.CaptureFixture[str]
) -> None:
    @command.command()
    def fail() -> None:
        raise BundleError("the folder /nowhere\nis not a bundle")

    assert main(["probe"]) == 1
    assert capsys.readouterr().err == "mmcat: the folder /nowhere is not a bundle\n"


def test_debug_keeps_the_traceback(command: typer.Typer) -> None:
    @command.command()
    def fail() -> None:
        raise BundleError("no")

    with pytest.raises(BundleError):
        main(["--debug", "probe"])


def test_a_defect_keeps_its_traceback_without_being_asked(command: typer.Typer) -> None:
    @command.command()
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        main(["probe"])


def test_an_exit_code_of_a_command_is_the_programs(command: typer.Typer) -> None:
    @command.command()
    def fail() -> None:
        raise typer.Exit(3)

    assert main(["probe"]) == 3


def test_an_interrupt_is_130(command: typer.Typer) -> None:
    @command.command()
    def fail() -> None:
        raise KeyboardInterrupt

    assert main(["probe"]) == 130


def test_the_module_runs_as_the_program() -> None:
    done = subprocess.run([sys.executable, "-m", "mmcat.cli", "nonsense"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
