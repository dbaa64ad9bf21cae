"""All patches that an audit looks at, numbered through folders and splits."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
import pandas

from pcam_tfdata import schema
from pcam_tfdata.audit import patch_statistics, scan
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.system import workers


@dataclasses.dataclass(frozen=True, slots=True)
class Patch:
    """A record and its row of the sidecar: patch `row` of a records folder."""

    records_dir: str
    split: str
    row: int
    id: str
    label: int
    slide: str
    source_name: str


PATCH_FIELDS = [field.name for field in dataclasses.fields(Patch)]


@dataclasses.dataclass(frozen=True)
class Table:
    """Patches of all folders, numbered in order.

    Attributes:
        folders: The one that is audited first.
        rows: A row for each patch, with the fields of `Patch`; the number of
            its `folder`; its `section`, which is the name of the split, with
            its folder where that is not the audited one; whether its split is
            `labeled`; whether it is `blank`, so that there is nearly nothing
            to see; and its `tumor_fraction`, NaN where not known.
        measured: What was measured of each patch, `patch_statistics.MEASURES`.
        selection: The shards of all folders.
    """

    folders: tuple[records_folder.RecordsFolder, ...]
    rows: pandas.DataFrame
    measured: np.ndarray
    selection: records_folder.Selection

    @property
    def own(self) -> pandas.DataFrame:
        """The rows of the audited folder, which come first."""
        return self.rows[: self.folders[0].num_patches]

    @property
    def own_splits(self) -> list[tuple[manifest.Split, slice]]:
        """The splits of the audited folder, and the numbers of their patches."""
        content = self.folders[0].content
        return [
            (split, slice(first, first + split.num_records))
            for split in content.splits
            for first in [content.first_row(split.name)]
        ]

    @property
    def is_positive(self) -> np.ndarray:
        """bool [n]: which patches have label 1."""
        return self.rows["label"].eq(schema.POSITIVE).to_numpy()

    def source(self, folder: int) -> str:
        """Returns the kind of source of a folder, such as `kaggle`."""
        return str(self.folders[folder].content.options.get("source", ""))

    def describe(self, patches: Sequence[int]) -> Iterator[Patch]:
        """Yields patches by their numbers."""
        rows = self.rows.iloc[np.asarray(patches, np.int64)]
        return map(Patch, *(rows[name] for name in PATCH_FIELDS))


def read_table(pool: workers.Workers, records_dirs: Sequence[str]) -> Table:
    """Returns all patches of records folders, each read once.

    Raises:
        FileNotFoundError, ValueError: one is no sound records folder.
    """
    folders = tuple(map(records_folder.open_folder, records_dirs))
    shards = [shard for folder in folders for shard in folder.list_shards()]
    for shard in shards:
        shard.check()
    selection = records_folder.Selection(tuple(shards))
    rows = pandas.concat(
        map(_read_rows, range(len(folders)), folders), ignore_index=True
    )
    fractions, measured = scan.read_patches(pool, selection)
    rows = rows.assign(
        tumor_fraction=fractions, blank=patch_statistics.is_blank(measured)
    )
    return Table(folders, rows, measured, selection)


def _read_rows(
    number: int, folder: records_folder.RecordsFolder
) -> pandas.DataFrame:
    """Returns what the manifest and the sidecar of a folder say of its patches."""
    rows = folder.read_sidecar(["split", "id", "label", "slide", "source_name"])
    prefix = f"{folder.path}:" if number else ""
    labeled = {split.name: split.labeled for split in folder.content.splits}
    return rows.assign(
        records_dir=folder.path,
        folder=number,
        row=np.arange(len(rows)),
        label=rows["label"].astype(np.int8),
        section=prefix + rows["split"],
        labeled=rows["split"].map(labeled),
    )
