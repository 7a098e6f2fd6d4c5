"""Bundles of earlier steps, from which a later step takes its encoders: text and image before the fusion.

A bundle is read whole and by its sums, and its weights must fit one for one; it must have been trained on the same
split, taxonomy and way of preparing listings, or its figures and the new ones would not be of one kind.

After features.py; before steps.py.
"""

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

from mmcat import bundle
from mmcat.bundle import LoadedBundle
from mmcat.preparation import Preprocessing
from training.data import Dataset
from training.errors import CheckpointError
from training.features import OF_TEXT

_OF = {"text": OF_TEXT, "image": tuple(one.name for one in fields(Preprocessing) if one.name not in OF_TEXT)}


def earlier_bundles(
    folder: str | Path | None, dataset: Dataset, split_fingerprint: str, preprocessing: Preprocessing
) -> dict[str, LoadedBundle]:
    """What `folder/text` and `folder/image` hold, or the one bundle that `folder` is; none for None.

    Raises:
        CheckpointError: no bundle there, or one of another split, taxonomy or preparation.
        BundleError: a bundle that is broken.
    """
    if folder is None:
        return {}
    root = Path(folder)
    paths = [path for path in (root, root / "text", root / "image") if (path / "bundle.json").is_file()]
    found: dict[str, LoadedBundle] = {}
    for path in paths:
        loaded = bundle.load(path)
        modality = loaded.model.config.modality
        if modality == "both":
            raise CheckpointError(f"{path} is a fusion already: name the bundles of the text and image steps")
        _check(path, loaded, dataset, split_fingerprint, preprocessing)
        found[modality] = loaded
    if not found:
        raise CheckpointError(f"{root} holds no bundle of an earlier step: neither text/ nor image/")
    return found


def _check(
    path: Path, loaded: LoadedBundle, dataset: Dataset, split_fingerprint: str, preprocessing: Preprocessing
) -> None:
    ours, theirs = asdict(preprocessing), asdict(loaded.preprocessing)
    differing: Mapping[str, bool] = {
        "split": loaded.split_fingerprint != split_fingerprint,
        "taxonomy": loaded.taxonomy.digest != dataset.taxonomy.digest,
        "kind of photo vectors": loaded.config.reads_image
        and loaded.config.given_photo_width != dataset.given_photo_width,
        **{name: ours[name] != theirs[name] for name in _OF[loaded.config.modality]},
    }
    if names := [name for name, differs in differing.items() if differs]:
        raise CheckpointError(f"{path} was trained with another {', '.join(names)}: train that step again")
