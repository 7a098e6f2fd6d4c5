"""JSON Schemas of what goes in and out, generated from the types that the service uses.

`python -m consumer.schemas docs/schemas` writes them; a test holds the committed files to the types.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter

from consumer.events import Event
from consumer.results import ResultRecord

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """By file name."""
    event = Event.model_json_schema()
    result = TypeAdapter(ResultRecord).json_schema(mode="serialization")
    return {
        "event.schema.json": {"$schema": DIALECT, **event},
        "result.schema.json": {"$schema": DIALECT, **result},
    }


def write(folder: Path) -> None:
    """Write one file per schema."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, schema in schemas().items():
        (folder / name).write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
