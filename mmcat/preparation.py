"""Listing → text and pixels: the CPU's part, the same for training and serving.

Preprocessing says how text fields are joined and photos are cut; it travels in the bundle, so that a model always
sees what it was trained on. After photos.py and text.py; before categorizer.py and training's features. No torch of
its own.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from mmcat.errors import ModelError, PhotoError
from mmcat.listing import ImageStatus, Listing, Prepared
from mmcat.photos import MAX_PIXELS, Fit, Pixels, decode

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TEXT_FIELDS = ("title", "brand", "maker", "model")  # of a Listing, what a text may be joined of


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a listing becomes what the network sees.

    Args:
        px: side of the network's input, in pixels.
        fit, fill, max_pixels: as in `photos.decode`.
        mean, std: per channel of RGB in 0..1, applied on the device.
        max_tokens: titles are cut there.
        text_fields: the listing's fields that are joined by a space, in this order.
        scaled_decode: `scaled` of `photos.decode`.
    """

    px: int
    fit: Fit = "pad"
    fill: int = 255
    max_pixels: int = MAX_PIXELS
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    max_tokens: int = 48
    text_fields: tuple[str, ...] = ("title",)
    scaled_decode: bool = False

    def __post_init__(self) -> None:
        unknown = set(self.text_fields) - set(TEXT_FIELDS)
        if unknown or not self.text_fields:
            raise ModelError(f"text fields must be some of {', '.join(TEXT_FIELDS)}, not {sorted(unknown) or 'none'}")
        if self.fit not in ("pad", "crop") or self.px < 1 or not 0 <= self.fill <= 255 or self.max_tokens < 2:
            raise ModelError(f"preprocessing out of range: {asdict(self)}")

    def to_json(self) -> dict[str, Any]:
        """All fields; but `scaled_decode` where it is on alone, so that bundles and stores without it stay as named."""
        return {name: value for name, value in asdict(self).items() if name != "scaled_decode" or value}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Preprocessing":
        """The inverse of `to_json`; a missing or unknown key is a ModelError."""
        known = {field.name for field in fields(cls)}
        values: dict[str, Any] = {"scaled_decode": False} | {
            key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
        }
        if set(values) != known:
            raise ModelError(f"preprocessing differs from what is known in {sorted(set(values) ^ known)}")
        return cls(**values)


def listing_text(listing: Listing, text_fields: Sequence[str]) -> str:
    """The chosen fields that are not empty, joined by a space."""
    return " ".join(part for field in text_fields if (part := str(getattr(listing, field)).strip()))


def prepare(listing: Listing, preprocessing: Preprocessing, *, with_photo: bool = True) -> Prepared:
    """Prepares one listing where no model is loaded, as `Categorizer.prepare` does; never raises for a bad photo.

    Args:
        with_photo: False for models that read text alone: the photo is not decoded and counts as absent.
    """
    text = listing_text(listing, preprocessing.text_fields)
    if not with_photo:
        return Prepared(listing.id, text, None, ImageStatus.ABSENT)
    digest = b"" if listing.image is None else hashlib.sha256(listing.image).digest()
    return Prepared(listing.id, text, *photo(listing, preprocessing), digest)


def photo(listing: Listing, preprocessing: Preprocessing) -> tuple[Pixels | None, ImageStatus]:
    """Pixels and what became of the photo; USED exactly when there are pixels. Never raises for a bad photo."""
    if listing.image is None:
        known = listing.image_status
        return None, ImageStatus.ABSENT if known is None or known is ImageStatus.USED else known
    try:
        pixels = decode(
            listing.image,
            preprocessing.px,
            preprocessing.fit,
            preprocessing.fill,
            preprocessing.max_pixels,
            scaled=preprocessing.scaled_decode,
        )
    except PhotoError as error:
        return None, ImageStatus(error.code)
    return pixels, ImageStatus.USED
