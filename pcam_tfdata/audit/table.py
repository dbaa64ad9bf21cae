"""All patches that an audit looks at, numbered through folders and splits."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas

from pcam_tfdata.audit import scan
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.system import workers


@dataclasses.dataclass(frozen=True)
class Folder:
    """A records folder, opened."""

    records: records_folder.RecordsFolder

    @property
    def records_dir(self) -> str:
        """The folder, as the user named it."""
        return self.records.path

    @property
    def content(self) -> manifest.Manifest:
        """What its manifest says."""
        return self.records.content

    @property
    def source(self) -> str:
        """Kind of source that it was made from, such as `kaggle`."""
        return str(self.content.options.get("source", ""))

    @functools.cached_property
    def rows(self) -> pandas.DataFrame:
        """What the sidecar says of the patches."""
        return self.records.read_sidecar(
            ["split", "id", "label", "slide", "source_name"]
        )

    @property
    def num_patches(self) -> int:
        """Of all splits."""
        return self.records.num_patches


@dataclasses.dataclass(frozen=True)
class Section:
    """A split of one of the folders, and where its patches are.

    Attributes:
        folder: Number of the folder; 0 is the one that is audited.
        name: Of the split.
        labeled: Whether its labels are 0 and 1.
        patches: Numbers of its patches.
    """

    folder: int
    name: str
    labeled: bool
    patches: slice

    @property
    def num_patches(self) -> int:
        """How many it has."""
        return self.patches.stop - self.patches.start


@dataclasses.dataclass(frozen=True)
class Table:
    """Patches of all folders; patch k is element k of each array.

    Attributes:
        folders: The one that is audited first.
        sections: Splits of all folders, in order.
        section: int64 [n], number of the section.
        slide: int64 [n], place of its slide in `slide_names`.
        slide_names: Of all folders; the first, "", is the unknown one.
        scanned: What was read of the patches.
    """

    folders: tuple[Folder, ...]
    sections: tuple[Section, ...]
    section: np.ndarray
    slide: np.ndarray
    slide_names: tuple[str, ...]
    scanned: scan.Scan

    @property
    def folder(self) -> np.ndarray:
        """int64 [n], number of the folder of each patch."""
        numbers = [section.folder for section in self.sections]
        return np.array(numbers, np.int64)[self.section]

    @property
    def is_blank(self) -> np.ndarray:
        """bool [n], as in `patch_statistics.Statistics`."""
        return self.scanned.statistics.is_blank

    @property
    def shards(self) -> list[scan.ShardFile]:
        """Of all folders, in the order of the patches."""
        return _shards(self.folders)

    def sections_of(self, folder: int) -> list[Section]:
        """Returns the splits of one folder."""
        return [part for part in self.sections if part.folder == folder]

    def name(self, section: int) -> str:
        """Returns the name of a split, with its folder where not the audited."""
        part = self.sections[section]
        if part.folder == 0:
            return part.name
        return f"{self.folders[part.folder].records_dir}:{part.name}"


def read(pool: workers.Workers, records_dirs: Sequence[str]) -> Table:
    """Returns all patches of records folders, each read once.

    Raises:
        FileNotFoundError, ValueError: one is no sound records folder.
    """
    folders = tuple(
        Folder(records_folder.open_folder(path)) for path in records_dirs
    )
    sections = _sections(folders)
    sizes = [part.num_patches for part in sections]
    slide, slide_names = _read_slides(folders)
    return Table(
        folders=folders,
        sections=tuple(sections),
        section=np.repeat(np.arange(len(sections)), sizes),
        slide=slide,
        slide_names=slide_names,
        scanned=scan.scan(pool, _shards(folders)),
    )


def locate(
    table: Table, patches: Iterable[int]
) -> dict[int, dict[str, object]]:
    """Returns what the sidecars say of some patches, by number.

    Each is `records_dir`, `split`, `row`, `id`, `label`, `slide` and
    `source_name`.

    Raises:
        FileNotFoundError, ValueError: a sidecar is missing or another's.
    """
    wanted = set(map(int, patches))
    places = {}
    first = 0
    for folder in table.folders:
        after = first + folder.num_patches
        for number in sorted(n for n in wanted if first <= n < after):
            row = number - first
            found = folder.rows.iloc[row].to_dict()
            _check_id(table, number, folder.records, row, found["id"])
            places[number] = {
                "records_dir": folder.records_dir,
                "split": found["split"],
                "row": row,
                "id": found["id"],
                "label": int(found["label"]),
                "slide": found["slide"],
                "source_name": found["source_name"],
            }
        first = after
    return places


def _read_slides(
    folders: Sequence[Folder],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the slide of each patch, and the names of the slides."""
    slides = [folder.records.read_slides() for folder in folders]
    numbers, names = pandas.factorize(
        np.concatenate([[""], *slides]).astype(object)
    )
    return numbers[1:], tuple(names)


def _shards(folders: Sequence[Folder]) -> list[scan.ShardFile]:
    return [
        shard
        for folder in folders
        for shard in scan.list_shards(folder.records_dir, folder.content)
    ]


def _sections(folders: Sequence[Folder]) -> list[Section]:
    sections, first = [], 0
    for number, folder in enumerate(folders):
        for split in folder.content.splits:
            patches = slice(first, first + split.num_records)
            sections.append(Section(number, split.name, split.labeled, patches))
            first = patches.stop
    return sections


def _check_id(
    table: Table,
    number: int,
    records: records_folder.RecordsFolder,
    row: int,
    found: object,
) -> None:
    expected = table.scanned.ids[number].decode("ascii")
    if found != expected:
        raise ValueError(
            f"{records.sidecar_path}: found id {found} in row {row},"
            f" expected {expected}, as in the record. See pcam verify."
        )
