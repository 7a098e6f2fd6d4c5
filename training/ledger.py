"""The ledger of a split's test part: a line for every look at it, beside the split file.

A part that is looked at again and again while recipes are chosen is no test any more; the ledger keeps the count. It is
JSON lines, appended to and never rewritten. Before train.py and the demo, which look.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from training.errors import DataError


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the test part.

    Args:
        date: RFC 3339, UTC.
        split: the split's fingerprint.
        recipe, recipe_digest: its name, and SHA-256 of all that it says.
        model: whose answers were measured.
        purpose: what for, in words.
    """

    date: str
    split: str
    recipe: str
    recipe_digest: str
    model: str
    purpose: str


def ledger_file(split_file: Path) -> Path:
    """Where the looks of a split are kept."""
    return split_file.with_name(f"{split_file.name}.ledger.jsonl")


def note_test_look(
    split_file: Path, *, split_fingerprint: str, recipe: Mapping[str, Any], model: str, purpose: str
) -> Look:
    """Appends a line; runs side by side do not mix theirs.

    Args:
        recipe: as JSON (`Recipe.model_dump(mode="json")`); its name stands in it.
    """
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    now = datetime.now(UTC).isoformat(timespec="seconds")
    look = Look(now, split_fingerprint, str(recipe.get("name", "")), digest, model, purpose)
    path = ledger_file(split_file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(look), ensure_ascii=False) + "\n")
    return look


def looks(split_file: Path) -> list[Look]:
    """All looks so far, oldest first; none where nobody has looked.

    Raises:
        DataError: a line that is no look; the message names it.
    """
    path = ledger_file(split_file)
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            found.append(Look(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise DataError(f"{path}, line {number}: not a look at the test part ({error})") from error
    return found
