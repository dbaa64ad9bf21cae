"""Several records folders become one: of a site each, or of a year.

A conversion plans all of its patches in memory. Parts that were converted by
themselves are joined shard by shard, so memory holds one patch's row, and at
the end eight bytes of each patch's id.
"""

import collections
import csv
import dataclasses
import itertools
import logging
import os
import shutil
from collections.abc import Mapping, Sequence

import numpy as np

from pcam_tfdata.conversion import duplicates, publish, workspace
from pcam_tfdata.records import manifest, sharding
from pcam_tfdata.system import csv_files, faults, files, versions

_NUM_PLACES = 3  # row, split, shard: what changes.
_SLIDE = manifest.SIDECAR_COLUMNS.index("slide")

_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class _Part:
    """A records folder, and the SHA-256 of its manifest, which names its data."""

    folder: str
    content: manifest.Manifest
    name: str


@dataclasses.dataclass(frozen=True)
class _Piece:
    """A shard: its file in a part, and what it is called in the whole."""

    path: str
    split: str
    shard: manifest.Shard


def join(
    records_dirs: Sequence[str], output_dir: str, *, overwrite: bool = False
) -> manifest.Manifest:
    """Makes one records folder of several; splits of the same name are joined.

    Shards are linked (hard links), or copied where that cannot be. Their bytes
    are not read: `verify` does that.

    Args:
        records_dirs: Finished records folders on a disk, in the order that
            patches of a split will have.
        output_dir: Folder to make.
        overwrite: Replaces finished records there, drops unfinished ones.

    Returns:
        The manifest of what was written.

    Raises:
        FileExistsError: the output is there already, or a conversion to it is
            not finished.
        FileNotFoundError, ValueError: a part is no records folder, or parts do
            not fit each other.
        RuntimeError: another process is at it, or a part was written anew
            meanwhile.
        OSError: the disk is full, or the like. Nothing is left then.
    """
    output_dir = files.resolve(output_dir)
    _check_paths(records_dirs, output_dir)
    parts = _read_parts(records_dirs)
    planned = _plan(parts)
    for part, pieces in zip(parts, planned, strict=True):
        _check_part(part, pieces)
    made = _describe(parts, planned)
    publish.check_output(output_dir, overwrite=overwrite)
    with workspace.open_folder(
        output_dir, restart=True, keep_finished=not overwrite
    ) as place:
        publish.check_output(output_dir, overwrite=overwrite)
        made, split_slides = _fill(place.records_dir, parts, planned, made)
        shared = duplicates.describe(place.records_dir)
        publish.put_into_place(place.records_dir, output_dir, made)
    for line in shared:
        _logger.warning("Warning: %s", line)
    _warn(split_slides)
    return made


def _check_paths(records_dirs: Sequence[str], output_dir: str) -> None:
    if len(records_dirs) < 2 or not all(records_dirs):
        raise ValueError(
            f"--records_dirs: found {','.join(records_dirs)!r}, expected two"
            " folders or more, with a comma between them."
        )
    for path in (*records_dirs, output_dir):
        if files.is_remote(path):
            raise ValueError(
                f"{path}: found a folder in a bucket, expected one on a disk."
                " Copy it there."
            )
    places = (
        output_dir,
        workspace.locate(output_dir),
        publish.locate_replaced(output_dir),
    )
    for part in map(os.path.realpath, records_dirs):
        for place in places:
            if files.is_within(part, place) or files.is_within(place, part):
                raise ValueError(
                    f"--output_dir: found {output_dir}, which would be written"
                    f" over {part} or into it, expected a folder elsewhere."
                )


def _read_parts(records_dirs: Sequence[str]) -> list[_Part]:
    found: dict[str, _Part] = {}
    for folder in records_dirs:
        content = manifest.read(folder)
        name = manifest.hash_manifest(folder)
        if name in found:
            raise ValueError(
                f"--records_dirs: found the records of {folder} in"
                f" {found[name].folder} too, expected each once."
            )
        found[name] = _Part(folder, content, name)
    return list(found.values())


def _plan(parts: Sequence[_Part]) -> list[list[_Piece]]:
    """Returns the shards of each part, in the order of its sidecar."""
    totals: collections.Counter[str] = collections.Counter()
    for part in parts:
        totals.update({s.name: len(s.shards) for s in part.content.splits})
    numbers = {split: itertools.count() for split in totals}

    def name(split: str) -> str:
        return sharding.shard_name(split, next(numbers[split]), totals[split])

    return [
        [
            _Piece(
                os.path.join(part.folder, shard.name),
                split.name,
                dataclasses.replace(shard, name=name(split.name)),
            )
            for split in part.content.splits
            for shard in split.shards
        ]
        for part in parts
    ]


def _check_part(part: _Part, pieces: Sequence[_Piece]) -> None:
    """Refuses a part that is not as its manifest says, as far as is seen."""
    path = os.path.join(part.folder, manifest.SIDECAR_FILE)
    columns = tuple(csv_files.read_header(path))
    if columns != manifest.SIDECAR_COLUMNS:
        raise ValueError(
            f"{path}: found columns {','.join(columns)}, expected"
            f" {','.join(manifest.SIDECAR_COLUMNS)}. Convert again with this"
            " version."
        )
    manifest.check_sidecar(part.folder)
    for piece in pieces:
        size = files.size(piece.path)
        if size != piece.shard.num_bytes:
            raise ValueError(
                f"{piece.path}: found {size} bytes, expected"
                f" {piece.shard.num_bytes}. Run pcam verify on its folder."
            )


def _describe(
    parts: Sequence[_Part], planned: Sequence[Sequence[_Piece]]
) -> manifest.Manifest:
    splits: dict[str, list[manifest.Split]] = {}
    for part in parts:
        for split in part.content.splits:
            splits.setdefault(split.name, []).append(split)
    shards: dict[str, list[manifest.Shard]] = {name: [] for name in splits}
    for piece in itertools.chain.from_iterable(planned):
        shards[piece.split].append(piece.shard)
    return manifest.Manifest(
        splits=tuple(
            _join_splits(same, shards[name]) for name, same in splits.items()
        ),
        options=_find_common(parts)
        | {"manifest_sha256_of_parts": [part.name for part in parts]},
        versions=versions.of_conversion(),
    )


def _join_splits(
    splits: Sequence[manifest.Split], shards: Sequence[manifest.Shard]
) -> manifest.Split:
    """Returns the description of splits of the same name as one."""
    first = splits[0]
    if len({split.labeled for split in splits}) > 1:
        raise ValueError(
            f"Split {first.name}: found it with labels in some parts and"
            " without in others, expected the same in all. Leave those without"
            " out, and predict them by themselves."
        )
    weight = np.array([split.num_records for split in splits], float)[:, None]
    weight /= weight.sum()
    mean = np.array([split.channel_mean for split in splits])
    squares = np.square([split.channel_std for split in splits]) + mean**2
    whole_mean = (weight * mean).sum(0)
    variance = (weight * squares).sum(0) - whole_mean**2
    whole_std = np.sqrt(np.maximum(variance, 0))  # Rounding may leave less.
    return dataclasses.replace(
        first,
        shards=tuple(shards),
        class_counts={
            label: sum(split.class_counts[label] for split in splits)
            for label in first.class_counts
        },
        channel_mean=tuple(whole_mean.tolist()),
        channel_std=tuple(whole_std.tolist()),
    )


def _find_common(parts: Sequence[_Part]) -> dict[str, object]:
    """Returns the options in which all parts agree."""
    first, *others = (part.content.options for part in parts)
    return {
        name: value
        for name, value in first.items()
        if all(options.get(name) == value for options in others)
    }


def _fill(
    folder: str,
    parts: Sequence[_Part],
    planned: Sequence[Sequence[_Piece]],
    made: manifest.Manifest,
) -> tuple[manifest.Manifest, dict[str, set[str]]]:
    """Writes all that a records folder holds.

    Returns:
        The manifest as it was written; and the slides that are in several
        splits, with these.
    """
    splits_of_slide: dict[str, set[str]] = collections.defaultdict(set)
    for part, pieces in zip(parts, planned, strict=True):
        _add(part, pieces, folder, splits_of_slide)
    _check_unchanged(parts)
    split_slides = {
        slide: splits
        for slide, splits in splits_of_slide.items()
        if slide and len(splits) > 1
    }
    if split_slides:
        made.options["grouped_by_slide"] = False
    skipped = [fault for part in parts for fault in _read_skipped(part.folder)]
    if skipped:  # A row may stand for many patches.
        _logger.warning(
            "%s lists the faults of patches that were skipped.",
            manifest.SKIPPED_FILE,
        )
    return publish.write_folder(folder, made, skipped), split_slides


def _check_unchanged(parts: Sequence[_Part]) -> None:
    """Refuses parts that were written anew meanwhile."""
    for part in parts:
        if manifest.hash_manifest(part.folder) != part.name:
            raise RuntimeError(
                f"{part.folder}: found other records than when it was begun to"
                " join them. Join again once they stay."
            )


def _add(
    part: _Part,
    pieces: Sequence[_Piece],
    folder: str,
    splits_of_slide: dict[str, set[str]],
) -> None:
    """Writes a part's shards into a folder, and their rows of the sidecar.

    Notes the splits in which a slide has patches.
    """
    path = os.path.join(part.folder, manifest.SIDECAR_FILE)
    with files.open_file(path, encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        next(rows)
        for piece in pieces:
            name = piece.shard.name
            target = os.path.join(folder, name)
            _link(piece.path, target)
            with files.open_whole(f"{target}.csv", newline="") as sidecar:
                writer = csv.writer(sidecar, lineterminator="\n")
                for row in itertools.islice(rows, piece.shard.num_records):
                    writer.writerow([piece.split, name, *row[_NUM_PLACES:]])
                    splits_of_slide[row[_SLIDE]].add(piece.split)


def _link(source: str, target: str) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # Another file system, one without links, and so on.
        shutil.copyfile(source, target)


def _read_skipped(records_dir: str) -> list[faults.Fault]:
    path = os.path.join(records_dir, manifest.SKIPPED_FILE)
    if not files.is_file(path):
        return []
    rows = csv_files.read_csv(path, ("name", "reason"))
    return [faults.Fault(name, reason) for name, reason in rows]


def _warn(split_slides: Mapping[str, set[str]]) -> None:
    """Says which slides the parts have dealt to different splits."""
    if not split_slides:
        return
    slide, splits = next(iter(split_slides.items()))
    _logger.warning(
        "Warning: %s slides are in several splits, as %s in %s: validation will"
        " be optimistic. Convert the parts that share slides as one.",
        f"{len(split_slides):,}",
        slide,
        ", ".join(sorted(splits)),
    )
