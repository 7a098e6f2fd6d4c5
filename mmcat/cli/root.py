"""The command table: `mmcat --help` reads nothing but this file, and a command loads its own module alone.

The root is plain Python on purpose: importing typer takes 0.1–0.2 s and rich as much again, and `mmcat --help` promises
to answer in under 0.3 s on a busy machine. The commands themselves are typer's.

Exit codes: 0 done, 1 one clear sentence on stderr, 2 wrong usage, 3 the service must be restarted, 130 interrupted.
"""

import contextlib
import difflib
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

__all__ = ["COMMANDS", "Command", "main"]

ABOUT = (
    "Puts each marketplace listing in its category as it is registered: Kafka in, photo and title, category path out."
)
INTERRUPTED = 128 + signal.SIGINT


@dataclass(frozen=True, slots=True)
class Command:
    """One line of the table: the module in `mmcat.cli` whose typer application `app` runs the command."""

    name: str
    module: str
    help: str
    group: str


TRY, RUN, MAKE = "Try it", "Run it", "Make models"
COMMANDS = (
    Command("demo", "demo", "train a small model, start all servers, watch listings come out with their category", TRY),
    Command("predict", "predict", "categorize a title, a photo (file or address) or a table of listings", TRY),
    Command("simulate", "simulate", "play a shop: register listings in Kafka at a rate and serve their photos", TRY),
    Command("consume", "consume", "the service: listings from Kafka, results to Kafka, Redis kept in step", RUN),
    Command("cache-writer", "cache_writer", "only keep Redis in step with the output topic", RUN),
    Command("cache", "cache", "fill the Redis view anew from the output topic, or compare the two", RUN),
    Command("topics", "topics", "create the topics with the right policies, or check them", RUN),
    Command("replay", "replay", "categorize a range of a topic again", RUN),
    Command("categorize", "categorize", "a table of listings in, a table of answers out, on one machine or many", RUN),
    Command("dead-letter", "dead_letter", "list, show and send again what could not be categorized", RUN),
    Command("resume", "resume", "let partitions go on that the guard holds back", RUN),
    Command("bench", "bench", "how fast this machine is at each part of the work, and the bottleneck", RUN),
    Command("top", "top", "watch a running service: lag, listings/s, stages, batches", RUN),
    Command("config", "config", "show every setting with where its value comes from", RUN),
    Command("data", "data", "check a folder of listings before training on it", MAKE),
    Command("train", "train", "train a bundle on the simulated shop or on a folder of listings", MAKE),
    Command("compare", "compare", "several models over several seeds on one split, with intervals", MAKE),
    Command("evaluate", "evaluate", "every figure of a bundle on held listings, with an HTML report", MAKE),
    Command("bundle", "bundle", "show a bundle, verify it, or tell how two differ", MAKE),
)


def usage() -> str:
    """The text of `mmcat --help`."""
    lines = ["Usage: mmcat [--debug] COMMAND [OPTIONS]...", "", ABOUT]
    width = max(len(command.name) for command in COMMANDS)
    for group in dict.fromkeys(command.group for command in COMMANDS):
        lines += ["", f"{group}:"]
        lines += [f"  {command.name:<{width}}  {command.help}" for command in COMMANDS if command.group == group]
    lines += [
        "",
        "Options:",
        "  --debug    show the traceback of an error, not only its sentence",
        "  --version  print the version",
        "  --help     this text; `mmcat COMMAND --help` has the options and examples of one command",
        "",
        "Example: mmcat demo",
    ]
    return "\n".join(lines)


def version() -> str:
    """The installed version, without importing the library."""
    from importlib.metadata import version as installed

    return f"mmcat {installed('mmcat')}"


def load(command: Command) -> "typer.Typer":
    """Import one command's module and return its typer application."""
    module = importlib.import_module(f"mmcat.cli.{command.module}")
    application: typer.Typer = module.app
    return application


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code.

    Args:
        arguments: the command line after the program's name; by default the process's own.
    """
    if arguments is not None:
        return _main(list(arguments))
    return _leave(_main(sys.argv[1:]))


def _leave(code: int) -> int:
    """End the program, at once where torch is loaded: taking it apart takes Python one to five seconds, for nothing.

    All that matters is done by then: every command leaves its contexts and returns.
    """
    if "torch" not in sys.modules:
        return code
    with contextlib.suppress(OSError):  # a reader that has left, as `| head` does
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _main(rest: list[str]) -> int:
    debug = False
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("--help", "-h"):
            print(usage())
            return 0
        if option == "--version":
            print(version())
            return 0
        if option != "--debug":
            return _wrong_usage(f"no such option: {option}")
        debug = True
    if not rest:
        print(usage(), file=sys.stderr)
        return 2
    command = next((command for command in COMMANDS if command.name == rest[0]), None)
    if command is None:
        close = difflib.get_close_matches(rest[0], [command.name for command in COMMANDS], n=1)
        return _wrong_usage(f"no such command: {rest[0]}" + (f" (did you mean {close[0]}?)" if close else ""))
    return _run(command, rest[1:], debug=debug)


def _wrong_usage(sentence: str) -> int:
    print(f"mmcat: {sentence}\nTry 'mmcat --help'.", file=sys.stderr)
    return 2


def _run(command: Command, arguments: list[str], *, debug: bool) -> int:
    """Run one command; an error of ours becomes one sentence and its exit code, any other keeps its traceback."""
    from consumer.log import configure_logging
    from mmcat.cli.texts import exit_code, sentence

    configure_logging("debug" if debug else "error")  # until a command's settings say otherwise; stdout is for results
    try:
        load(command)(arguments, prog_name=f"mmcat {command.name}")
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:  # the edge of the program: decide between a sentence and a traceback
        code = exit_code(error)
        if debug or code is None:
            raise
        print(f"mmcat: {sentence(error)}", file=sys.stderr)
        return code
    return 0
