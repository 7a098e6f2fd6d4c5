"""What others rely on, generated from the types in use: JSON Schemas of the records, the table of settings.

`python -m consumer.schemas docs` writes them; a test holds the committed files to the types.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, TypeAdapter
from pydantic.fields import FieldInfo

from consumer.events import Event
from consumer.loading import shown
from consumer.results import ResultRecord
from consumer.settings import DELIMITER, PREFIX, Settings

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
SETTINGS_HEAD: Final = """# Settings

Defaults run on the local stack. Variables win over `mmcat.toml` (or the file that `--config` or `MMCAT_CONFIG` names),
options of a command over both. Every other librdkafka property passes through under `kafka`, in the file with its dots
(`"socket.keepalive.enable" = true`), as a variable with underscores (`MMCAT_KAFKA__SOCKET_KEEPALIVE_ENABLE`); those
that the delivery promises rest on are refused. `mmcat config show` prints what is in force, and where it comes from.

| setting | default | variable | meaning |
| --- | --- | --- | --- |
"""


def files() -> dict[str, str]:
    """Path below `docs` to content."""
    result = TypeAdapter(ResultRecord).json_schema(mode="serialization")
    return {
        "schemas/event.schema.json": _json({"$schema": DIALECT, **Event.model_json_schema()}),
        "schemas/result.schema.json": _json({"$schema": DIALECT, **result}),
        "settings.md": SETTINGS_HEAD + "".join(_rows()),
    }


def write(docs: Path) -> None:
    """Write them all."""
    for name, content in files().items():
        (docs / name).parent.mkdir(parents=True, exist_ok=True)
        (docs / name).write_text(content, "utf-8")


def _json(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _rows() -> Iterator[str]:
    defaults = shown(Settings())
    for name, field in _fields(Settings):
        secret = isinstance(field.default, SecretStr)
        value = field.default.get_secret_value() if secret else defaults[name]
        default = json.dumps(value, ensure_ascii=False) if value is not None else "none"
        variable = PREFIX + name.upper().replace(".", DELIMITER)
        yield f"| `{name}` | `{default}` | `{variable}` | {field.description or ''} |\n"


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


if __name__ == "__main__":
    write(Path(sys.argv[1]))
