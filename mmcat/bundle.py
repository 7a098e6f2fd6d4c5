"""A trained model as a folder: written whole or not at all, read only if every byte is the one that was written.

    bundle.json         format version, name, created_ms, model, preprocessing, calibration, split, metrics, reference
    model.safetensors   all weights, float32
    taxonomy.tsv        the paths, in label order
    tokenizer.json      absent in bundles that read photos alone
    README.md           the model card
    int8.safetensors    where `mmcat bundle calibrate` put it; not among the sums (engines/int8.py)
    SHA256SUMS          of all the others; its own SHA-256 is the bundle's fingerprint

No pickles, no code, no network. After weights.py, text.py, preparation.py, calibration.py, reference.py, model_card.py;
before categorizer.py.
"""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from mmcat.calibration import Calibration
from mmcat.errors import BundleError, MmcatError
from mmcat.family import ModelConfig
from mmcat.model import CategoryModel
from mmcat.model_card import model_card
from mmcat.preparation import Preprocessing
from mmcat.reference import Reference
from mmcat.taxonomy import Taxonomy
from mmcat.text import Tokenizer
from mmcat.weights import Weights

FORMAT_VERSION = 3  # 2: reference and label_note, one threshold for all levels; 3: members
DAY_MS = 86_400_000  # created_ms ranks results (design: generation), so a clock that runs ahead must not win for long
_SUMS = "SHA256SUMS"
_KEYS = {
    *("format_version", "name", "created_ms", "model", "preprocessing", "calibration"),
    *("taxonomy_digest", "split_fingerprint", "data_note", "label_note", "metrics", "reference"),
}


@dataclass(frozen=True, slots=True)
class LoadedBundle:
    """A verified bundle.

    Args:
        weights: of its model.
        tokenizer: None for photos alone.
        folder: where it was read; None for one that was put together in memory.
    """

    name: str
    created_ms: int
    fingerprint: str
    weights: Weights
    tokenizer: Tokenizer | None
    taxonomy: Taxonomy
    preprocessing: Preprocessing
    calibration: Calibration
    split_fingerprint: str
    data_note: str
    metrics: Mapping[str, Any]
    reference: Reference | None
    folder: Path | None = None

    @property
    def config(self) -> ModelConfig:
        """Of its model."""
        return self.weights.config

    @property
    def model(self) -> CategoryModel:
        """See `Weights.model`."""
        return self.weights.model


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def write(
    folder: str | Path,
    *,
    model: CategoryModel,
    tokenizer: Tokenizer | None,
    taxonomy: Taxonomy,
    preprocessing: Preprocessing,
    calibration: Calibration,
    name: str,
    metrics: Mapping[str, Any],
    split_fingerprint: str,
    data_note: str,
    created_ms: int,
    label_note: str = "",
    reference: Reference | None = None,
) -> str:
    """Writes a bundle beside `folder` and renames it into place; an older bundle there is replaced.

    Args:
        metrics: JSON values; shown in the model card (see model_card.py for those with tables of their own).
        split_fingerprint: of the split file the figures come from; "" where there is none.
        data_note: what the model was trained on and under which licence, in one sentence.
        created_ms: ms since 1970; the default generation of its results.
        label_note: what is known of wrong labels in the data, in one sentence.
        reference: of its answers on the calibration part; None: drift cannot be told.

    Returns:
        The fingerprint.

    Raises:
        BundleError: parts that do not belong together, or `folder` exists and is not a bundle.
    """
    target = Path(folder)
    config = model.config
    _check_parts(config, tokenizer, taxonomy, preprocessing)
    if (config.reads_text and model.text_encoder is None) or (config.encodes_photos and model.image_encoder is None):
        raise BundleError("the model was built without its encoders: a bundle holds the whole of it")
    if target.exists() and not (target / _SUMS).is_file():
        raise BundleError(f"{target} exists and is not a bundle: choose another folder or remove it")
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": name,
        "created_ms": created_ms,
        "model": model.config.to_json(),
        "preprocessing": preprocessing.to_json(),
        "calibration": calibration.to_json(),
        "taxonomy_digest": taxonomy.digest,
        "split_fingerprint": split_fingerprint,
        "data_note": data_note,
        "label_note": label_note,
        "metrics": dict(metrics),
        "reference": None if reference is None else reference.to_json(),
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        beside.chmod(0o755)  # mkdtemp's 0700 would hide the bundle from the service's user
        state = {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}
        save_file(state, str(beside / "model.safetensors"), metadata={"format": "pt"})
        (beside / "model.safetensors").chmod(0o644)
        taxonomy.write(beside / "taxonomy.tsv")
        if tokenizer is not None:
            tokenizer.write(beside / "tokenizer.json")
        (beside / "README.md").write_text(model_card(manifest, taxonomy), encoding="utf-8")
        text = json.dumps(manifest, ensure_ascii=False, indent=2, allow_nan=False)
        (beside / "bundle.json").write_text(text + "\n", encoding="utf-8")
        sums = "".join(f"{_sha256(file)}  {file.name}\n" for file in sorted(beside.iterdir()))
        (beside / _SUMS).write_text(sums, encoding="utf-8")
        for file in beside.iterdir():
            _sync(file)
        _rename(beside, target)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return hashlib.sha256(sums.encode()).hexdigest()


def _check_parts(
    config: ModelConfig, tokenizer: Tokenizer | None, taxonomy: Taxonomy, preprocessing: Preprocessing
) -> None:
    if config.classes not in (tuple(map(len, taxonomy.classes)), (len(taxonomy),)):
        raise BundleError(f"the model's classes {config.classes} are not those of the taxonomy")
    if config.px != preprocessing.px:
        raise BundleError(f"the model wants {config.px} px and the preprocessing gives {preprocessing.px}")
    if config.reads_text != (tokenizer is not None):
        raise BundleError(f"a model of modality {config.modality!r} and its tokenizer do not belong together")
    if tokenizer is not None and tokenizer.max_tokens != preprocessing.max_tokens:
        raise BundleError(f"tokenizer ({tokenizer.max_tokens}) and preprocessing ({preprocessing.max_tokens}) differ")


def _rename(beside: Path, target: Path) -> None:
    """Puts the new folder in place; an old one steps aside first and is put back if that fails."""
    if not target.exists():
        beside.rename(target)
    else:
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old)  # a folder may be renamed onto an empty one
        try:
            beside.rename(target)
        except OSError:
            old.rename(target)
            raise
        shutil.rmtree(old)
    _sync(target.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# ── Reading ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def load(folder: str | Path, *, now_ms: int | None = None) -> LoadedBundle:
    """Verifies a bundle and builds its model; blocks for seconds.

    Args:
        now_ms: the clock, for tests.

    Raises:
        BundleError: anything missing, changed, unknown or dated ahead; one sentence that names the file.
    """
    loaded = read(folder, now_ms=now_ms)
    _ = loaded.model  # weights that do not fit it are found here
    return loaded


def read(folder: str | Path, *, now_ms: int | None = None) -> LoadedBundle:
    """As `load`, but the model is built when somebody asks for it; blocks for a second per GB.

    That its weights fit is seen then. Every file is verified here: what was made of a bundle with this fingerprint
    was made of weights that fit.
    """
    root = Path(folder)
    fingerprint = _verify(root)
    manifest, taxonomy = _manifest(root, int(time.time() * 1000) if now_ms is None else now_ms)
    try:
        config = ModelConfig.from_json(manifest["model"])
        preprocessing = Preprocessing.from_json(manifest["preprocessing"])
        calibration = Calibration.from_json(manifest["calibration"])
        reference = None if manifest["reference"] is None else Reference.from_json(manifest["reference"])
        tokenizer = None
        if config.reads_text:
            tokenizer = Tokenizer.load(root / "tokenizer.json", preprocessing.max_tokens)
        _check_parts(config, tokenizer, taxonomy, preprocessing)
        weights = Weights.read(root / "model.safetensors", config)
    except MmcatError as error:
        raise BundleError(f"{root}: {error}") from error
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # values of other types in bundle.json; no safetensors file
        reason = str(error).partition("\n")[0]
        raise BundleError(f"{root}: the weights do not fit the configuration ({reason}): export it again") from error
    return LoadedBundle(
        name=manifest["name"],
        created_ms=manifest["created_ms"],
        fingerprint=fingerprint,
        weights=weights,
        tokenizer=tokenizer,
        taxonomy=taxonomy,
        preprocessing=preprocessing,
        calibration=calibration,
        split_fingerprint=manifest["split_fingerprint"],
        data_note=manifest["data_note"],
        metrics=manifest["metrics"],
        reference=reference,
        folder=root,
    )


def read_manifest(folder: str | Path) -> tuple[dict[str, Any], str]:
    """What bundle.json says and the fingerprint, verified as by `load`, without the weights; raises what it raises."""
    fingerprint = _verify(Path(folder))
    manifest, _ = _manifest(Path(folder), int(time.time() * 1000))
    return manifest, fingerprint


def check_served(folder: str | Path, config: ModelConfig) -> None:
    """Whether the bundle with this configuration can answer listings.

    Raises:
        BundleError: it can be measured alone; one sentence that says why.
    """
    if config.why_not_served is not None:
        raise BundleError(f"{folder}: {config.why_not_served}")


def fingerprint(folder: str | Path) -> str:
    """The bundle's fingerprint without loading or verifying it: SHA-256 of its SHA256SUMS."""
    try:
        return _sha256(Path(folder) / _SUMS)
    except OSError as error:
        raise BundleError(f"{folder} is not a bundle: no {_SUMS} in it") from error


def _verify(root: Path) -> str:
    """Every listed file is there, plain and unchanged; nothing else could be read in its place."""
    if not root.is_dir():
        raise BundleError(f"no bundle at {root}: give the folder that training wrote")
    for entry in root.iterdir():
        if entry.is_symlink() or not entry.is_file():
            raise BundleError(f"{entry} is not a plain file: a bundle holds no links or folders, copy it whole")
    try:
        text = (root / _SUMS).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{root} is not a bundle: no readable {_SUMS} in it") from error
    sums = {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines())}
    required = {"bundle.json", "model.safetensors", "taxonomy.tsv", "README.md"}
    unknown = set(sums) - required - {"tokenizer.json"}
    if unknown or required - set(sums):
        raise BundleError(
            f"{root}: {_SUMS} lists other files than a bundle has: {sorted(unknown | required - set(sums))}"
        )
    for name, expected in sums.items():
        file = root / name
        if not file.is_file():
            raise BundleError(f"{root}: {name} is missing: copy the bundle again")
        if _sha256(file) != expected:
            raise BundleError(f"{root}: {name} has changed since it was written (wrong SHA-256): copy the bundle again")
    return hashlib.sha256(text.encode()).hexdigest()


def _manifest(root: Path, now_ms: int) -> tuple[dict[str, Any], Taxonomy]:
    try:
        manifest: dict[str, Any] = json.loads((root / "bundle.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise BundleError(f"{root}: bundle.json is not JSON: {error}") from error
    version = manifest.get("format_version") if isinstance(manifest, dict) else None
    if version != FORMAT_VERSION:
        older = isinstance(version, int) and version < FORMAT_VERSION
        what_to_do = "train it again" if older else "update mmcat"
        raise BundleError(f"{root}: format version {version!r}, and this mmcat reads {FORMAT_VERSION}: {what_to_do}")
    if set(manifest) != _KEYS:
        raise BundleError(f"{root}: bundle.json differs from the format in {sorted(set(manifest) ^ _KEYS)}")
    created_ms = manifest["created_ms"]
    if not isinstance(created_ms, int) or isinstance(created_ms, bool) or created_ms < 0:
        raise BundleError(f"{root}: created_ms is {created_ms!r}, not milliseconds since 1970")
    if created_ms > now_ms + DAY_MS:
        raise BundleError(f"{root}: created more than a day ahead of this clock ({created_ms} ms): check both clocks")
    taxonomy = Taxonomy.load(root / "taxonomy.tsv")
    if manifest["taxonomy_digest"] != taxonomy.digest:
        raise BundleError(f"{root}: taxonomy.tsv is not the one the model was trained on: export it again")
    return manifest, taxonomy


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
