"""Listings from a path, whatever it holds: a folder of one's own (folder.py) or Kakao Arena's chunks (kakao.py).

After both readers; before train.py and the checks, which need not know which it was.
"""

from collections.abc import Sequence
from pathlib import Path

from training.data import Dataset
from training.errors import DataError
from training.progress import Progress
from training.readers.bad_rows import MAX_BAD_SHARE
from training.readers.folder import given_taxonomy, read_folder
from training.readers.kakao import read_kakao

_HDF5 = b"\x89HDF\r\n\x1a\n"


def chunk_files(path: Path) -> Sequence[Path]:
    """The HDF5 files that a path is or holds, by name; none for a folder of another kind.

    In a folder with chunks of several splits those named train… are meant.
    """
    if path.is_file():
        return [path] if _is_hdf5(path) else []
    if not path.is_dir():
        return []
    found = sorted(file for file in path.iterdir() if file.is_file() and _is_hdf5(file))
    return [file for file in found if file.name.startswith("train")] or found


def read_listings(
    path: str | Path,
    title_column: str = "title",
    *,
    cache: Path | None = None,
    max_bad_share: float = MAX_BAD_SHARE,
    allow_private: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Reads a folder of listings, a folder of chunk files (with or without a taxonomy.tsv), or one chunk file.

    Raises:
        DataError: neither, or what the reader refuses.
    """
    root = Path(path)
    if chunks := chunk_files(root):
        tree = given_taxonomy(chunks[0].parent)
        return read_kakao(chunks, taxonomy=tree, cache=cache, max_bad_share=max_bad_share, progress=progress)
    if not root.is_dir():
        raise DataError(f"{root} is neither a folder of listings nor a chunk file (see docs/data-format.md)")
    return read_folder(
        root,
        title_column,
        cache=cache,
        max_bad_share=max_bad_share,
        allow_private=allow_private,
        progress=progress,
    )


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5
