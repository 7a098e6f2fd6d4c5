"""Every error the library raises on purpose, as one tree, so that a caller catches the kind that decides the action.

    MmcatError
    ├── TaxonomyError    the category tree cannot be read, or a path is not in it: mend the file
    ├── PhotoError       one photo gives no pixels (code "undecodable" or "refused"): categorize by title
    ├── BundleError      the folder is not a bundle this version can run: refuse to start
    └── ModelError       settings of a model or engine that cannot work together: refuse to start

Each message is one sentence for a person: what is wrong, where, and what to do about it.
Comes before everything else in the package; imports nothing.
"""

from typing import Literal

PhotoErrorCode = Literal["undecodable", "refused"]


class MmcatError(Exception):
    """Root of the tree: whatever the library refuses on purpose."""


class TaxonomyError(MmcatError):
    """The category tree cannot be read, or a path is asked for that is not in it."""


class PhotoError(MmcatError):
    """One photo gives no pixels; never a reason to lose the listing.

    Args:
        code: "undecodable" (not an image, or broken) or "refused" (an image we will not unpack: too large).
        detail: one short sentence; holds nothing of the photo's content.
    """

    def __init__(self, code: PhotoErrorCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code: PhotoErrorCode = code
        self.detail = detail

    def __str__(self) -> str:
        return f"photo {self.code}: {self.detail}"


class BundleError(MmcatError):
    """The folder is not a bundle that this version can run."""


class ModelError(MmcatError):
    """Settings of a model or an engine that cannot work together."""
