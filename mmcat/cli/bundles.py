"""Where trained bundles of the demo live, and which bundle a command means when it is given none.

Everything lies under `MMCAT_HOME` (default `~/.cache/mmcat`), in folders named by a hash of data and recipe: another
seed, another recipe or another generator never meets an old bundle.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from mmcat.cli.texts import CommandError

__all__ = ["ENGINES", "FEATURES", "bundle_key", "demo_folder", "find_bundle", "home"]

FEATURES = "features"
"""Under `home()`: what encoders made of listings, and frozen splits; named by content, so runs share it."""
ENGINES = "engines"
"""Under `home()`: what engines made of bundles, named by fingerprint and version; old ones are removed by hand."""
BUNDLE_VARIABLE = "MMCAT_MODEL__BUNDLE"


def home() -> Path:
    """The folder of everything that this program keeps."""
    named = os.environ.get("MMCAT_HOME")
    return Path(named) if named else Path.home() / ".cache" / "mmcat"


def bundle_key(facts: Mapping[str, object]) -> str:
    """Twelve hex digits that stand for everything a bundle is made of: the facts given and the code that makes it."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for file in _sources():
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _sources() -> list[Path]:
    import training

    folder = Path(str(training.__file__)).parent
    return sorted(file for file in folder.rglob("*") if file.suffix in (".py", ".yaml"))


def demo_folder(kind: str, facts: Mapping[str, object]) -> Path:
    """The folder of one demo's bundles: `cross`, `concat`, `text`, `image` and `report.json` in it."""
    return home() / "demo" / f"{kind}-{bundle_key(facts)}"


def find_bundle(named: Path | None) -> Path:
    """The bundle a command means: the one named, else the setting's, else the youngest of the demo's.

    Raises:
        CommandError: there is none.
    """
    if named is not None:
        return named
    if setting := os.environ.get(BUNDLE_VARIABLE):
        return Path(setting)
    made = sorted((home() / "demo").glob("*/cross/bundle.json"), key=lambda file: file.stat().st_mtime)
    if not made:
        raise CommandError("no bundle: name one with --bundle, or make one with `mmcat demo` or `mmcat train shop`")
    return made[-1].parent
