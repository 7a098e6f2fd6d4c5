"""Listings from a path, whatever it holds: a folder of one's own (folder.py) or Kakao Arena's chunks (kakao.py).

After both readers; before train.py and the checks, which need not know which it was.
"""

from collections.abc import Sequence
from pathlib import Path

from mmcat.taxonomy import Taxonomy
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
    found = _hdf5_files(path)
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


def read_chunks(
    folder: Path, split: str, taxonomy: Taxonomy, *, cache: Path, progress: Progress | None = None
) -> Dataset:
    """Reads those of a folder's chunk files that are named `split…`: dev and test, whose truth is not known.

    Args:
        taxonomy: of the model that shall predict.

    Raises:
        DataError: there are none, or what the reader refuses.
    """
    chunks = [file for file in _hdf5_files(folder) if file.name.startswith(split)]
    if not chunks:
        raise DataError(f"{folder} has no chunk files named {split}… (see docs/data-format.md)")
    return read_kakao(chunks, taxonomy=taxonomy, cache=cache, progress=progress)


def _hdf5_files(folder: Path) -> Sequence[Path]:
    if not folder.is_dir():
        return []
    return sorted(file for file in folder.iterdir() if file.is_file() and _is_hdf5(file))


def _is_hdf5(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_HDF5)) == _HDF5
