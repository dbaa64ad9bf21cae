"""The official PCam files (Veeling et al. 2018), plain or gzipped:

    camelyonpatch_level_2_split_SPLIT_x.h5       x: uint8 [n, 96, 96, 3]
    camelyonpatch_level_2_split_SPLIT_y.h5       y: uint8 [n, 1, 1, 1]
    camelyonpatch_level_2_split_SPLIT_mask.h5    mask: uint8 [n, 96, 96, 1]
    camelyonpatch_level_2_split_SPLIT_meta.csv   coord_x, coord_y, wsi, ...

SPLIT is train, valid or test; mask and meta may be missing.
"""

import contextlib
import dataclasses
import gzip
import logging
import os
import zlib
from collections.abc import Iterator
from typing import IO

import h5py
import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import listing, slide_meta
from pcam_tfdata.system import faults, files, name_arrays, progress

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_PREFIX = "camelyonpatch_level_2_split_"
_READ_PATCHES = 256
_NUMBERS = "biuf"  # Kinds of NumPy's types.

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """Rows of an x and a mask file.

    Attributes:
        x_path: The file of pixels.
        mask_path: The file of masks, empty where there is none.
        rows: int64 [num_patches].
        stamps: What tells these files, and that of labels, from others that
            had their names.
    """

    x_path: str
    mask_path: str
    rows: np.ndarray
    stamps: str

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, rows: np.ndarray | slice) -> "Rows":
        """See `listing.Images.take`."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def locate(self, row: int) -> str:
        """Returns a file and the row in it."""
        return f"{self.x_path}: row {self.rows[row]}"

    def identify(self, *, are_hashed: bool) -> str:
        """Returns sizes and times of the files; masks are in no hash."""
        return self.stamps

    def read(self) -> Iterator[listing.Pixels]:
        """See `listing.Images.read`; a block of rows at a time.

        Rows that follow each other in the file are read fastest.

        Raises:
            ValueError: some of the rows cannot be read.
        """
        with contextlib.ExitStack() as stack:
            images = stack.enter_context(_open(self.x_path, "x"))
            if self.mask_path:
                masks = stack.enter_context(_open(self.mask_path, "mask"))
            for start in range(0, len(self), _READ_PATCHES):
                rows = self.rows[start : start + _READ_PATCHES]
                shares = np.full(len(rows), np.nan)
                if self.mask_path:
                    mask = _read_rows(self.mask_path, masks, rows)
                    center = mask[:, schema.CENTER, schema.CENTER]
                    shares = (center > 0).mean((1, 2, 3))
                block = _read_rows(self.x_path, images, rows)
                yield from map(listing.Pixels, block, shares.tolist())


def list_patches(
    options: listing.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the official splits that are there.

    Returns:
        Listings `train`, `validation`, `test`, whose names are SPLIT_ROW; and
        no faults.

    Raises:
        FileNotFoundError: no split is there, or one without its labels.
        ValueError: a file is not what it should be.
    """
    listings = [
        _list_split(options, theirs, ours)
        for theirs, ours in SPLITS.items()
        if _find(options.input_dir, f"{theirs}_x.h5")
    ]
    if not listings:
        raise FileNotFoundError(
            f"{options.input_dir}: found no {_PREFIX}train_x.h5 or the like,"
            " expected the official PCam files. Check --input_dir."
        )
    return listings, []


def _list_split(
    options: listing.SourceOptions, theirs: str, ours: str
) -> listing.Listing:
    x_path, y_path, mask_path, meta_path = (
        _unpack(options, f"{theirs}_{part}")
        for part in ("x.h5", "y.h5", "mask.h5", "meta.csv")
    )
    where = os.path.join(options.input_dir, f"{_PREFIX}{theirs}")
    if not y_path:
        raise FileNotFoundError(
            f"{where}_y.h5: not found, expected the labels beside the pixels."
            " Fetch it."
        )
    # Before anything is read of them.
    paths = filter(None, (x_path, mask_path, y_path))
    stamps = "\n".join(map(files.stamp, paths))
    num_patches = _check(x_path, "x", schema.NUM_CHANNELS)
    labels = _read_labels(y_path, num_patches)
    if mask_path:
        _check(mask_path, "mask", 1, num_patches)
    else:
        _logger.info("%s_x.h5: no mask, so no tumor_fraction.", where)
    names = [f"{ours}_{row}" for row in range(num_patches)]
    patches = listing.Listing(
        split=ours,
        labels=labels,
        names=name_arrays.to_array(names),
        images=Rows(x_path, mask_path, np.arange(num_patches), stamps),
    )
    if meta_path:
        return slide_meta.add_to(patches, meta_path)
    _logger.info("%s_meta.csv: not there, so slides are not known.", where)
    return patches


def _find(input_dir: str, name: str) -> str:
    """Returns the path of a file, or of its gzipped twin; empty for none."""
    path = os.path.join(input_dir, _PREFIX + name)
    return next(filter(files.is_file, (path, f"{path}.gz")), "")


def _unpack(options: listing.SourceOptions, name: str) -> str:
    """Returns the path of a file, empty for none; a gzipped one is unpacked."""
    packed_path = _find(options.input_dir, name)
    if not packed_path.endswith(".gz"):
        return packed_path
    # Of another file of this name, a killed job may have left what was in it.
    folder = os.path.join(options.unpacked_dir, files.stamp(packed_path))
    path = os.path.join(folder, _PREFIX + name)
    if files.is_file(path):
        return path
    _logger.info("%s: unpacking.", packed_path)
    files.make_folder(folder)
    num_packed = (files.size(packed_path) or 0) >> 20
    try:
        with (
            files.open_file(packed_path, "rb") as file,
            gzip.open(file) as packed,
            files.open_whole(path, "wb") as unpacked,
            progress.Progress(num_packed, "unpack") as bar,
        ):
            bar.unit = " MiB"
            while block := packed.read(1 << 20):
                unpacked.write(block)
                bar.advance_to(file.tell() >> 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{packed_path}: found no whole gzip file ({error}). Fetch it"
            " again."
        ) from error
    return path


def _check(
    path: str, name: str, num_channels: int, num_patches: int | None = None
) -> int:
    """Returns how many images a file has; refuses what is none of a patch."""
    with _open(path, name) as dataset:
        shape = dataset.shape or (0,)
        found = f"{dataset.dtype}{dataset.shape}"
    num_patches = shape[0] if num_patches is None else num_patches
    size = schema.PATCH_SIZE
    expected = f"uint8{(num_patches, size, size, num_channels)}"
    if found != expected:
        raise ValueError(
            f"{path}: found {name} {found}, expected {expected}. Fetch it"
            " again."
        )
    return num_patches


def _read_labels(path: str, num_patches: int) -> np.ndarray:
    with _open(path, "y") as dataset:
        if dataset.size != num_patches or dataset.dtype.kind not in _NUMBERS:
            raise ValueError(
                f"{path}: found y {dataset.dtype}{dataset.shape}, expected a"
                f" number for each of the {num_patches:,} patches in x. Fetch"
                " both again."
            )
        labels = dataset[()].reshape(-1)
    if not np.isin(labels, (schema.NEGATIVE, schema.POSITIVE)).all():
        raise ValueError(
            f"{path}: found labels {sorted(set(labels.tolist()))[:5]}, expected"
            " 0 and 1. Fetch it again."
        )
    return labels.astype(np.int8)


def _read_rows(
    path: str, dataset: h5py.Dataset, rows: np.ndarray
) -> np.ndarray:
    try:
        if (np.diff(rows) == 1).all():
            return dataset[rows[0] : rows[-1] + 1]
        return np.stack([dataset[row] for row in rows])
    except OSError as error:
        raise ValueError(
            f"{path}: found rows among {rows.min()} to {rows.max()} that cannot"
            f" be read ({error}), expected whole ones. Fetch it again."
        ) from error


@contextlib.contextmanager
def _open(path: str, name: str) -> Iterator[h5py.Dataset]:
    with contextlib.ExitStack() as stack:
        source: str | IO[bytes] = path
        try:
            if files.is_remote(path):
                source = stack.enter_context(files.open_file(path, "rb"))
            dataset = stack.enter_context(h5py.File(source))[name]
            if not isinstance(dataset, h5py.Dataset):
                raise KeyError("it is a group")
            yield dataset
        except (OSError, KeyError) as error:
            raise ValueError(
                f"{path}: found no HDF5 file with a dataset {name!r} ({error})."
                " Fetch it again."
            ) from error
