"""Puts a listing (title, photo) in its category path. The library: no Kafka, no HTTP, no training.

    from mmcat import Categorizer, Listing
    categorizer = Categorizer.load("bundle/", device="auto", engine="auto")
    results = categorizer.categorize([Listing("p1", title="…", image=jpeg_bytes)], top_k=3)

The modules, in the order of the data:

    errors.py       the tree of everything refused on purpose
    taxonomy.py     which paths exist; a path as four class labels
    listing.py      the nouns: Listing → Prepared → Result
    avif_header.py  how many pixels an AVIF unpacks to, by its streams
    photo_headers.py  what a photo says of itself, before it is unpacked
    photos.py       bytes → pixels, safely
    text.py         titles → token ids
    preparation.py  the CPU's part of a listing, the same for training and serving
    normalisation.py  pixels as they are decoded → as image encoders read them
    family.py       which member of the model family, as plain data
    model.py        the model family, in one file that teaches
    pretrained.py   starting weights for its encoders (training only)
    paths.py        level scores → existing paths, stop included, and alternatives
    calibration.py  temperature, threshold, how deep an answer is safe
    evidence.py     what an answer rests on: the shares of title and photo
    reference.py    what answers looked like when the model was made, to tell drift by
    model_card.py   the README of a bundle
    weights.py      a bundle's weights, a model once somebody asks for one
    bundle.py       a trained model as a folder
    engines/        what runs it on hardware: eager PyTorch, or OpenVINO on the CPU
    features.py     vectors of photos and titles, kept
    shared_decoding.py  a photo that many listings show is decoded once
    stacking.py     listings → a batch in which each title and photo stands once
    categorizer.py  all of it behind one class
    cli/            the program `mmcat`, root of library, consumer and training

Importing this package loads neither torch nor numpy: names come when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmcat.categorizer import Categorizer
    from mmcat.errors import BundleError, MmcatError, ModelError, PhotoError, TaxonomyError
    from mmcat.listing import (
        Candidate,
        Decision,
        Evidence,
        ImageStatus,
        Listing,
        ModelInfo,
        PathNode,
        Prepared,
        Result,
    )
    from mmcat.taxonomy import Taxonomy

__all__ = [
    "BundleError",
    "Candidate",
    "Categorizer",
    "Decision",
    "Evidence",
    "ImageStatus",
    "Listing",
    "MmcatError",
    "ModelError",
    "ModelInfo",
    "PathNode",
    "PhotoError",
    "Prepared",
    "Result",
    "Taxonomy",
    "TaxonomyError",
]

_HOMES = {"Categorizer": "mmcat.categorizer", "Taxonomy": "mmcat.taxonomy"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'mmcat' has no attribute {name!r}")
    home = _HOMES.get(name, "mmcat.errors" if name.endswith("Error") else "mmcat.listing")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
