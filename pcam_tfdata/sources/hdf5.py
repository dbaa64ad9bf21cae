"""The official PCam files (Veeling et al. 2018), plain or gzipped:

    camelyonpatch_level_2_split_SPLIT_x.h5       x: uint8 [n, 96, 96, 3]
    camelyonpatch_level_2_split_SPLIT_y.h5       y: uint8 [n, 1, 1, 1]
    camelyonpatch_level_2_split_SPLIT_mask.h5    mask: uint8 [n, 96, 96, 1]
    camelyonpatch_level_2_split_SPLIT_meta.csv   coord_x, coord_y, wsi, ...

SPLIT is train, valid or test; mask and meta may be missing.
"""

import contextlib
import gzip
import hashlib
import logging
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping

import h5py
import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.sources import catalog, listing, slide_meta
from pcam_tfdata.system import csv_files, faults, files, name_arrays

SPLITS = {"train": "train", "valid": "validation", "test": "test"}
_PREFIX = "camelyonpatch_level_2_split_"
_READ_PATCHES = 256
_NUMBERS = "biuf"  # Kinds of NumPy's types.
_CENTER_TUMOR = "center_tumor_patch"
_TRUTH = {"true": 1, "false": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}

_logger = logging.getLogger(__name__)


class Rows:
    """Rows of an x and a mask file.

    Args:
        x_path: Of the file of pixels.
        mask_path: Of that of masks, or None.
        rows: int64 [num_patches].
        stamps: What tells these files, and that of labels, from others: path
            and `files.stamp`.
    """

    def __init__(
        self,
        x_path: str,
        mask_path: str | None,
        rows: np.ndarray,
        stamps: Mapping[str, str],
    ) -> None:
        self._x_path = x_path
        self._mask_path = mask_path
        self._rows = rows
        self._stamps = stamps

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: np.ndarray | slice) -> "Rows":
        """See `listing.Images.take`."""
        chosen = self._rows[rows]
        return Rows(self._x_path, self._mask_path, chosen, self._stamps)

    def locate(self, row: int) -> str:
        """Returns a file and the row in it."""
        return f"{self._x_path}: row {self._rows[row]}"

    def identify(self, *, are_hashed: bool) -> str:
        """Returns sizes and times of the files; masks are in no hash."""
        return "\n".join(self._stamps.values())

    def read(self) -> Iterator[listing.Pixels]:
        """See `listing.Images.read`; a block of rows at a time.

        Rows that follow each other in the file are read fastest.

        Raises:
            RuntimeError: a file is not what it was when patches were listed.
            ValueError: some of the rows cannot be read.
        """
        self._check_unchanged()
        yield from self._read()
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        for path, stamp in self._stamps.items():
            if files.stamp(path) != stamp:
                raise RuntimeError(
                    f"{path}: found another file than when the conversion"
                    " began, expected it to stay. Run the same command again"
                    " once it does."
                )

    def _read(self) -> Iterator[listing.Pixels]:
        with contextlib.ExitStack() as stack:
            images = stack.enter_context(_open_file(self._x_path))["x"]
            masks = None
            if self._mask_path is not None:
                masks = stack.enter_context(_open_file(self._mask_path))["mask"]
            for start in range(0, len(self), _READ_PATCHES):
                rows = self._rows[start : start + _READ_PATCHES]
                block = _read_rows(self._x_path, images, rows)
                shares = np.full(len(rows), np.nan)
                if masks is not None:
                    mask = _read_rows(self._mask_path, masks, rows)
                    center = mask[:, schema.CENTER, schema.CENTER]
                    shares = (center > 0).mean((1, 2, 3))
                for image, share in zip(block, shares, strict=True):
                    yield listing.Pixels(image, float(share))


def list_patches(
    options: catalog.SourceOptions,
) -> tuple[list[listing.Listing], list[faults.Fault]]:
    """Returns the official splits that are there.

    Returns:
        Listings `train`, `validation`, `test`, whose names are SPLIT_ROW; and no
        faults.

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
    options: catalog.SourceOptions, theirs: str, ours: str
) -> listing.Listing:
    x_path, mask_path = (
        _unpack(options, f"{theirs}_{part}.h5") for part in ("x", "mask")
    )
    y_path = _find_labels(options, theirs)
    # Before anything is read of them.
    stamps = {
        path: files.stamp(path) for path in (x_path, mask_path, y_path) if path
    }
    num_patches = _count_rows(x_path, "x")
    _check(x_path, "x", (num_patches, *schema.IMAGE_SHAPE))
    labels = _read_labels(y_path, num_patches)
    if mask_path is None:
        _logger.info(
            "%s: no mask, so no tumor_fraction.", os.path.basename(x_path)
        )
    else:
        size = schema.PATCH_SIZE
        _check(mask_path, "mask", (num_patches, size, size, 1))
    meta = _read_meta(options, theirs, num_patches)
    names = [f"{ours}_{row}" for row in range(num_patches)]
    return listing.Listing(
        split=ours,
        labels=labels,
        names=name_arrays.to_array(names),
        images=Rows(x_path, mask_path, np.arange(num_patches), stamps),
        **meta,
    )


def _read_rows(
    path: str, dataset: h5py.Dataset, rows: np.ndarray
) -> np.ndarray:
    first, last = int(rows[0]), int(rows[-1])
    try:
        if last - first == len(rows) - 1 and (np.diff(rows) == 1).all():
            return dataset[first : last + 1]
        return np.stack([dataset[row] for row in rows])
    except OSError as error:
        raise ValueError(
            f"{path}: found rows among {rows.min()} to"
            f" {rows.max()} that cannot be read ({error}), expected whole ones."
            " Fetch it again."
        ) from error


def _find(input_dir: str, name: str) -> str | None:
    """Returns the path of a file, or of its gzipped twin, or None."""
    path = os.path.join(input_dir, _PREFIX + name)
    for found in (path, f"{path}.gz"):
        if files.is_file(found):
            return found
    return None


def _unpack(options: catalog.SourceOptions, name: str) -> str | None:
    """Returns the path of a file; a gzipped one is unpacked first."""
    found = _find(options.input_dir, name)
    if found is None or not found.endswith(".gz"):
        return found
    # Of another file of this name, a killed job may have left what was in it.
    source = hashlib.sha256(f"{found} {files.stamp(found)}".encode())
    folder = os.path.join(options.unpacked_dir, source.hexdigest()[:16])
    path = os.path.join(folder, _PREFIX + name)
    if files.is_file(path):
        return path
    _logger.info("%s: unpacking.", found)
    files.make_folder(folder)
    try:
        with (
            files.open_file(found, "rb") as file,
            gzip.open(file) as packed,
            files.open_whole(path, "wb") as unpacked,
        ):
            shutil.copyfileobj(packed, unpacked, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(
            f"{found}: found no whole gzip file ({error}). Fetch it again."
        ) from error
    return path


def _find_labels(options: catalog.SourceOptions, theirs: str) -> str:
    name = f"{theirs}_y.h5"
    path = _unpack(options, name)
    if path is None:
        raise FileNotFoundError(
            f"{os.path.join(options.input_dir, _PREFIX + name)}: not found,"
            " expected the labels beside the pixels. Fetch it."
        )
    return path


def _read_labels(path: str, num_patches: int) -> np.ndarray:
    with _open(path, "y") as dataset:
        is_column = bool(dataset.shape) and dataset.size == num_patches
        if not is_column or dataset.dtype.kind not in _NUMBERS:
            raise ValueError(
                f"{path}: found y {_show(dataset)}, expected a number for each"
                f" of the {num_patches:,} patches in x. Fetch both again."
            )
        labels = dataset[:].reshape(-1)
    if not np.isin(labels, (schema.NEGATIVE, schema.POSITIVE)).all():
        raise ValueError(
            f"{path}: found labels {sorted(set(labels.tolist()))[:5]}, expected"
            " 0 and 1. Fetch it again."
        )
    return labels.astype(np.int8)


def _count_rows(path: str, name: str) -> int:
    with _open(path, name) as dataset:
        return dataset.shape[0] if dataset.shape else 0


def _show(dataset: h5py.Dataset) -> str:
    shape = " without values" if dataset.shape is None else dataset.shape
    return f"{dataset.dtype}{shape}"


def _check(path: str, name: str, shape: tuple[int, ...]) -> None:
    with _open(path, name) as dataset:
        found = _show(dataset)
        expected = f"uint8{shape}"
    if found != expected:
        raise ValueError(
            f"{path}: found {name} {found}, expected {expected}. Fetch it again."
        )


@contextlib.contextmanager
def _open_file(path: str) -> Iterator[h5py.File]:
    if not files.is_remote(path):
        with h5py.File(path) as file:
            yield file
        return
    with files.open_file(path, "rb") as data, h5py.File(data) as file:
        yield file


@contextlib.contextmanager
def _open(path: str, name: str) -> Iterator[h5py.Dataset]:
    try:
        with _open_file(path) as file:
            if not isinstance(file[name], h5py.Dataset):
                raise ValueError(
                    f"{path}: found a group {name!r}, expected a dataset. Fetch"
                    " it again."
                )
            yield file[name]
    except (OSError, KeyError) as error:
        raise ValueError(
            f"{path}: found no HDF5 file with a dataset {name!r} ({error})."
            " Fetch it again."
        ) from error


def _read_meta(
    options: catalog.SourceOptions, theirs: str, num_patches: int
) -> dict[str, np.ndarray | None]:
    """Returns the columns of a listing that the meta file tells."""
    name = f"{theirs}_meta.csv"
    path = _unpack(options, name)
    if path is None:
        _logger.info(
            "%s: not there, so slides are not known.",
            os.path.join(options.input_dir, _PREFIX + name),
        )
        return {}
    slides, coordinates = slide_meta.read(path, num_patches)
    return {
        "slides": slides,
        "coordinates": coordinates,
        "center_tumor": _read_center_tumor(path, num_patches),
    }


def _read_center_tumor(path: str, num_patches: int) -> np.ndarray | None:
    """Returns `listing.Listing.center_tumor` of a meta file."""
    if _CENTER_TUMOR not in csv_files.read_header(path):
        return None
    rows = csv_files.iterate_csv(path, (_CENTER_TUMOR,))
    values = (_TRUTH.get(text.lower(), np.nan) for (text,) in rows)
    return np.fromiter(values, np.float32, num_patches)
