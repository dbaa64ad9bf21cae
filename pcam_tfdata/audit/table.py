"""All patches that an audit looks at, numbered through folders and splits."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from pcam_tfdata.audit import scan
from pcam_tfdata.records import manifest, sidecar
from pcam_tfdata.system import workers


@dataclasses.dataclass(frozen=True)
class Folder:
    """A records folder, as the user named it, and what it holds."""

    records_dir: str
    content: manifest.Manifest

    @property
    def source(self) -> str:
        """Kind of source that it was made from, such as `kaggle`."""
        return str(self.content.options.get("source", ""))

    @property
    def num_patches(self) -> int:
        """Of all splits."""
        return sum(split.num_records for split in self.content.splits)


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
    folders = tuple(Folder(path, manifest.read(path)) for path in records_dirs)
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
        rows = {number - first for number in wanted if first <= number < after}
        for row, found in sidecar.read_rows(folder.records_dir, rows):
            number = first + row
            _check_id(table, number, folder.records_dir, row, found["id"])
            places[number] = found
        first = after
    return places


def _read_slides(
    folders: Sequence[Folder],
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the slide of each patch, and the names of the slides."""
    numbers = {"": 0}
    slides = [
        sidecar.read_slides(folder.records_dir, folder.content, numbers)
        for folder in folders
    ]
    return np.concatenate(slides), tuple(numbers)


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
    table: Table, number: int, records_dir: str, row: int, found: object
) -> None:
    expected = table.scanned.ids[number].decode("ascii")
    if found != expected:
        raise ValueError(
            f"{sidecar.path_of(records_dir)}: found id {found} in row {row},"
            f" expected {expected}, as in the record. See pcam verify."
        )
