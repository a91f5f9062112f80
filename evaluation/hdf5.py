"""HDF5 files, through h5py where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_hdf5(path: Path, *names: str) -> Any:
    """The file at `path` for reading, an `h5py.File`; it holds arrays called `names`.

    Raises:
        ValueError: h5py is not installed, or the file is no HDF5 file with these arrays.
    """
    try:
        import h5py
    except ImportError as error:
        raise ValueError(f"{path} is an HDF5 file, which h5py reads; install it: pip install h5py") from error
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}); restore the file") from error
    if missing := [name for name in names if not isinstance(file.get(name), h5py.Dataset)]:
        held = ", ".join(sorted(file)) or "nothing"
        file.close()
        raise ValueError(f"{path} has no array {', '.join(missing)}; it holds {held}")
    return file
