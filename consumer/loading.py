"""Settings from `mmcat.toml`, `MMCAT_…` variables and the command line; the last wins. And where each came from.

One clear sentence per problem. Called by the root of the program. After settings.py, which says what there is.
"""

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from consumer.errors import ConfigError
from consumer.settings import DELIMITER, PREFIX, STARS, Settings, is_secret

FILE: Final = "mmcat.toml"
# Variables of the program that are not settings of the service.
NOT_SETTINGS: Final = ("MMCAT_HOME", "MMCAT_CONFIG", "MMCAT_TEST_", "MMCAT_KAFKA_LIBS")


def load(
    file: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> tuple[Settings, dict[str, str]]:
    """Read the settings. Returns them with the origin of each that is not a default, by dotted name.

    Args:
        file: a toml file; None: the one `MMCAT_CONFIG` names, or `mmcat.toml` here if there is one.
        overrides: dotted names of options given on the command line; they win.

    Raises:
        ConfigError: a sentence per wrong setting, with its name, its origin and what is allowed.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    named = file or (Path(environment["MMCAT_CONFIG"]) if environment.get("MMCAT_CONFIG") else None)
    path = named or Path(FILE)
    if named or path.is_file():
        for name, value in _leaves(_read(path)):
            _put(values, origins, name, value, f"file {path}")
    for variable, value in environment.items():
        if variable.startswith(PREFIX) and value and not variable.startswith(NOT_SETTINGS):
            name = variable.removeprefix(PREFIX).lower().replace(DELIMITER, ".")
            _put(values, origins, name, _from_text(name, value), f"environment {variable}")
    for name, value in (overrides or {}).items():
        if value is not None:
            _put(values, origins, name, value, "command line")
    try:
        return Settings(**values), origins
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(problem, origins) for problem in error.errors())) from None


def shown(settings: Settings) -> dict[str, str | int | float | bool | list[Any] | None]:
    """Every setting by its dotted name, secrets as stars."""
    plain = settings.model_dump(mode="json")
    plain["kafka"] = {
        name: STARS if is_secret(name.replace("_", ".")) else value for name, value in plain["kafka"].items()
    }
    return dict(_leaves(plain))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"the settings file {path} is not TOML: {error}") from None


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _put(values: dict[str, Any], origins: dict[str, str], name: str, value: Any, origin: str) -> None:
    """Set a dotted name; under kafka everything after the first dot is one property."""
    branch, _, leaf = name.partition(".")
    if leaf:
        part = values.setdefault(branch, {})
        if not isinstance(part, dict):
            raise ConfigError(f"{branch} ({origins[branch]}) is a group of settings, not one value")
        part[leaf.replace(".", "_") if branch == "kafka" else leaf] = value
        name = f"{branch}.{leaf.replace('.', '_')}" if branch == "kafka" else name
    else:
        values[branch] = value
    origins[name] = origin


def _from_text(name: str, text: str) -> Any:
    """A variable's text: lists by commas (or as JSON arrays), all else as pydantic reads text."""
    if name in ("photo.allow", "photo.deny", "photo.ports", "retry.delays"):
        items = text.strip().removeprefix("[").removesuffix("]").split(",")
        return [item.strip().strip("\"'") for item in items if item.strip()]
    if name == "photo.headers":  # values may hold commas: several are a JSON array
        with suppress(ValueError):
            return json.loads(text) if text.lstrip().startswith("[") else [text]
    return text


def _sentence(problem: Any, origins: Mapping[str, str]) -> str:
    name = ".".join(str(step) for step in problem["loc"] if not isinstance(step, int))
    origin = f" ({origins[name]})" if name in origins else ""
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(dict(_leaves(Settings().model_dump(mode="json")))), 1, 0.5)
        return f"there is no setting {name}{origin}" + (f": did you mean {near[0]}?" if near else "")
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{name}{origin}: {message}" if name else message
