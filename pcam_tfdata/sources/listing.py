"""What every kind of source takes, and hands on: columns, no pixels yet."""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from pcam_tfdata.images import tiff
from pcam_tfdata.system import files, remote

_NOT_KNOWN = float("nan")
_COLUMNS = (
    "labels", "names", "slides", "coordinates", "center_tumor", "tumor_fractions",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SourceOptions:
    """Which patches to list.

    Attributes:
        source: Kind of it, one of `choices.SOURCES`.
        input_dir: The folder of the source.
        slide_csv: Slide of each patch, columns `id` and `slide` or `wsi`, and
            maybe `tumor_fraction`; for
            `kaggle`.
        class_folders: The folders of label 0 and of label 1; for `folder`.
        follow_symlinks: Whether links among the files are followed.
        unpacked_dir: A folder that may be made, for what must be unpacked.
    """

    source: str
    input_dir: str
    slide_csv: str | None = None
    class_folders: Sequence[str] = ("0", "1")
    follow_symlinks: bool = False
    unpacked_dir: str = ""


@dataclasses.dataclass(frozen=True)
class Pixels:
    """What was read of a patch.

    Attributes:
        image: uint8 [96, 96, 3], C-contiguous; None where it cannot be used.
        tumor_fraction: Share of tumor pixels in the centre; NaN if not known.
        reason: Why it cannot be used: where, what was found, what was expected.
    """

    image: np.ndarray | None
    tumor_fraction: float = _NOT_KNOWN
    reason: str = ""


class Images(Protocol):
    """The pixels of some patches; pickled where another process reads them."""

    def __len__(self) -> int:
        """Returns how many patches there are."""

    def take(self, rows: np.ndarray | slice) -> "Images":
        """Returns those of some rows, in their order."""

    def locate(self, row: int) -> str:
        """Returns where a patch is, for messages."""

    def identify(self, *, are_hashed: bool) -> str:
        """Returns what tells these bytes from others of the same names.

        Args:
            are_hashed: Whether the SHA-1 of all pixels is known, and checked
                when they are read: then only what is beside them counts.
        """

    def read(self) -> Iterator[Pixels]:
        """Yields each patch in order; those that cannot be used too.

        Raises:
            OSError: the disk, not the patch, is at fault.
        """


@dataclasses.dataclass(frozen=True)
class Listing:
    """The patches of a split before their pixels are read, in order.

    Attributes:
        split: Its name at the source.
        labels: int8 [num_patches], 0 or 1; or -1 for all, where it has none.
        names: bytes [num_patches], the source's own, UTF-8 and unique.
        images: Where the pixels are.
        slides: bytes [num_patches]: the slide of each, or None.
        coordinates: int64 [num_patches, 2]: x and y on the slide, or None.
        center_tumor: float32 [num_patches]: 1 where the source says, beside
            the label, that the centre holds tumor, 0 where it says that it does
            not, NaN where it says nothing; or None.
        tumor_fractions: float32 [num_patches], share of tumor pixels in the
            centre; None for what is read with the pixels.
        is_dealt: Whether it is dealt into folds; if not it stays as it is, in
            its order.
    """

    split: str
    labels: np.ndarray
    names: np.ndarray
    images: Images
    slides: np.ndarray | None = None
    coordinates: np.ndarray | None = None
    center_tumor: np.ndarray | None = None
    tumor_fractions: np.ndarray | None = None
    is_dealt: bool = False

    def __len__(self) -> int:
        return len(self.names)

    @property
    def labeled(self) -> bool:
        """Whether its patches have labels."""
        return not len(self.labels) or bool(self.labels[0] >= 0)

    def take(self, rows: np.ndarray | slice) -> "Listing":
        """Returns the listing of some rows, in their order."""
        columns = {
            name: column[rows]
            for name in _COLUMNS
            if (column := getattr(self, name)) is not None
        }
        return dataclasses.replace(
            self, images=self.images.take(rows), **columns
        )


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """A file for each patch.

    Attributes:
        folder: The folder that all files are in.
        files: bytes [num_patches], their paths within it.
        stamps: uint64 [num_patches], what a bucket's listing told of the state
            of each file: there each question takes its time. Of a disk, which
            is asked, zeros.
    """

    folder: str
    files: np.ndarray
    stamps: np.ndarray

    def __len__(self) -> int:
        return len(self.files)

    def take(self, rows: np.ndarray | slice) -> "ImageFiles":
        """See `Images.take`."""
        return ImageFiles(self.folder, self.files[rows], self.stamps[rows])

    def locate(self, row: int) -> str:
        """Returns the path of a file."""
        return os.path.join(self.folder, self.files[row].decode())

    def identify(self, *, are_hashed: bool) -> str:
        """Returns a hash of sizes and times; none where pixels are hashed."""
        if are_hashed:
            return ""
        stamps = self.stamps.tobytes()
        if not files.is_remote(self.folder):
            stamps = "\n".join(map(files.stamp, list_paths(self))).encode()
        return hashlib.sha256(stamps).hexdigest()

    def read(self) -> Iterator[Pixels]:
        """See `Images.read`."""
        paths = list_paths(self)
        contents: Iterator[bytes | None] = itertools.repeat(None)
        if files.is_remote(self.folder):
            contents = remote.read_many(paths, tiff.MAX_FILE_BYTES + 1)
        for data, path in zip(contents, paths, strict=False):
            try:
                image = (
                    tiff.read(path) if data is None else tiff.decode(data, path)
                )
            except ValueError as error:
                yield Pixels(None, reason=str(error))
            else:
                yield Pixels(image)


def list_paths(images: Images) -> list[str]:
    """Returns where each patch is: of image files, their paths."""
    return [images.locate(row) for row in range(len(images))]
