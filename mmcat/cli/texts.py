"""What several commands share: the typer application they start from, JSON on stdout, progress on stderr, errors.

Stdout holds a command's answer and nothing else, so that `--json` can be piped; what is said on the way goes to stderr.
"""

import json
import sys
from typing import Any

import typer

from mmcat.errors import MmcatError

__all__ = ["CommandError", "exit_code", "new_app", "print_json", "say", "sentence"]

# By qualified name, so that looking an error up imports nothing: whoever raised it has imported its module.
EXIT_CODES = {
    "consumer.errors.FatalError": 3,
    "consumer.errors.ConsumerError": 1,
    "mmcat.cli.processes.ServerError": 1,
    "mmcat.errors.MmcatError": 1,
}


class CommandError(MmcatError):
    """A command cannot do what it was asked: one sentence, exit code 1."""


def exit_code(error: BaseException) -> int | None:
    """The exit code of an error that we raise on purpose, or None where it is a defect and its traceback matters."""
    for kind in type(error).__mro__:
        code = EXIT_CODES.get(f"{kind.__module__}.{kind.__qualname__}")
        if code is not None:
            return code
    return None


def sentence(error: BaseException) -> str:
    """The error as one line."""
    return " ".join(str(error).split()) or type(error).__name__


def new_app(**settings: Any) -> typer.Typer:
    """A typer application as all commands have it: plain help (rich costs 0.2 s and wraps examples), no completion."""
    return typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
        **settings,
    )


def print_json(value: object) -> None:
    """One JSON object on stdout, readable, with Korean as Korean."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2, default=str) + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """One line of progress on stderr."""
    print(text, file=sys.stderr, flush=True)
