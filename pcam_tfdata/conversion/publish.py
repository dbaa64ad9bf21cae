"""The last steps of a conversion: describe what was written, and rename it."""

import itertools
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.conversion import journal, replacement
from pcam_tfdata.records import manifest, sharding, tfrecord
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import csv_files, faults, files

_OF_A_DISK = ("file", "local")  # What fsspec calls it.

_logger = logging.getLogger(__name__)


def check_output(output_dir: str, *, overwrite: bool) -> None:
    """Refuses a place where a records folder cannot be put.

    Raises:
        FileExistsError: finished records are there and `overwrite` is false, or
            other things are, or where they would be moved to; or the folder
            cannot be renamed over.
        ValueError: a folder to write cannot be named so.
    """
    if files.is_remote(output_dir):
        _check_remote(output_dir)
        _check_content(output_dir, overwrite=overwrite)
        return
    outputs.check_new(output_dir, "--output_dir")
    _check_replaced(locate_replaced(output_dir))
    if not os.path.exists(output_dir):
        return
    if not os.path.isdir(output_dir):
        raise FileExistsError(
            f"{output_dir}: found a file, expected a folder to be made there."
            " Choose another --output_dir."
        )
    if os.path.ismount(output_dir) or os.path.samefile(output_dir, "."):
        raise FileExistsError(
            f"{output_dir}: found a mount point or the working folder, expected"
            " a folder that can be renamed. Choose one inside it as"
            " --output_dir."
        )
    _check_content(output_dir, overwrite=overwrite)


def _check_remote(output_dir: str) -> None:
    """Refuses what is no folder in a bucket."""
    scheme, _, rest = output_dir.partition("://")
    if scheme in _OF_A_DISK:
        raise ValueError(
            f"{output_dir}: found a folder on a disk with {scheme}:// before"
            f" it, expected its path. Pass --output_dir={rest}."
        )
    if not rest.partition("/")[2]:
        raise FileExistsError(
            f"{output_dir}: found a whole bucket, expected a folder in it."
            " Choose one as --output_dir."
        )
    if "?" in output_dir:
        raise ValueError(
            f"{output_dir}: found a question mark, after which stores expect"
            " the version of a file, expected a name without. Choose another"
            " --output_dir."
        )


def _check_content(output_dir: str, *, overwrite: bool) -> None:
    content = set(files.list_names(output_dir))
    if manifest.MANIFEST_FILE in content and not overwrite:
        raise FileExistsError(
            f"{output_dir}: found finished records. Pass --overwrite to replace"
            " them, or choose another --output_dir."
        )
    foreign = sorted(content - _own_files(output_dir, content))
    if foreign:
        raise FileExistsError(
            f"{output_dir}: found a folder with other files in it"
            f" ({foreign[0]}), expected none, an empty one or finished records."
            " Choose another --output_dir."
        )


def _check_replaced(folder: str) -> None:
    """Refuses what `_rename` would remove, unless a killed job left it."""
    if files.holds_others(folder, _is_of_records):
        raise FileExistsError(
            f"{folder}: found something other than records that were being"
            " replaced, expected to remove them. Move it away, or choose another"
            " --output_dir."
        )


def _is_of_records(name: str) -> bool:
    return name in manifest.FILES or sharding.is_shard_name(name)


def _own_files(output_dir: str, content: set[str]) -> set[str]:
    """Returns which files of a folder a conversion wrote there."""
    if manifest.MANIFEST_FILE not in content:
        return replacement.list_unfinished(output_dir)
    try:
        made = manifest.read(output_dir)
    except ValueError:
        return set()  # What a damaged manifest names is anyone's guess.
    return manifest.list_files(made)


def describe_split(
    name: str, *, labeled: bool, results: Sequence[journal.ShardResult]
) -> manifest.Split:
    """Returns what the manifest says of a split, from its written shards.

    Raises:
        ValueError: all of its patches were left out.
    """
    label_counts = sum(result.label_counts for result in results)
    values, squares = sum(result.channel_sums for result in results)
    num_records = int(label_counts.sum())
    if not num_records:
        raise ValueError(
            f"Split {name}: found no patch that can be used, expected at least"
            " one. Ask for fewer folds, or mend the source."
        )
    num_pixels = num_records * schema.PATCH_SIZE**2
    mean = values / num_pixels
    std = np.sqrt(squares / num_pixels - mean**2)
    labels = (
        (schema.NEGATIVE, schema.POSITIVE) if labeled else (schema.UNLABELED,)
    )
    return manifest.Split(
        name=name,
        labeled=labeled,
        layout=tfrecord.layout(labeled=labeled),
        shards=tuple(result.shard for result in results),
        class_counts={str(n): int(label_counts[n]) for n in labels},
        channel_mean=tuple(mean.tolist()),
        channel_std=tuple(std.tolist()),
    )


def write_folder(
    folder: str, made: manifest.Manifest, skipped: Sequence[faults.Fault]
) -> manifest.Manifest:
    """Joins the parts of the sidecar and writes all files but the shards.

    Returns:
        The manifest as it was written.
    """
    names = [shard.name for split in made.splits for shard in split.shards]
    rows = itertools.count()
    path = os.path.join(folder, manifest.SIDECAR_FILE)
    with files.open_whole(path, newline="") as sidecar:
        sidecar.write(",".join(manifest.SIDECAR_COLUMNS) + "\n")
        for name in names:
            part_path = os.path.join(folder, f"{name}.csv")
            with files.open_file(
                part_path, encoding="utf-8", newline=""
            ) as part:
                sidecar.writelines(_number_rows(part, rows))
    path = os.path.join(folder, manifest.SKIPPED_FILE)
    files.remove(path)  # One may be there, of a killed job that skipped some.
    if skipped:
        rows = [(fault.name, fault.reason) for fault in skipped]
        csv_files.write_csv(path, ("name", "reason"), rows)
    return manifest.write(folder, made)


def _number_rows(lines: Iterable[str], numbers: Iterator[int]) -> Iterator[str]:
    """Yields lines of CSV with a number before each row.

    A quoted field may hold a line's end: a row starts where no quote is open.
    """
    is_quoted = False
    for line in lines:
        yield line if is_quoted else f"{next(numbers)},{line}"
        is_quoted ^= line.count('"') % 2 == 1


def put_into_place(
    folder: str, output_dir: str, made: manifest.Manifest
) -> None:
    """Makes a finished folder the output, as `check_output` allowed.

    On a disk it is renamed; a bucket cannot do that, so files are copied there,
    see `replacement`.
    """
    names = manifest.list_files(made)
    if not files.is_file(os.path.join(folder, manifest.SKIPPED_FILE)):
        names.discard(manifest.SKIPPED_FILE)
    if files.is_remote(output_dir):
        replacement.copy(folder, output_dir, names)
        return
    # Last: until then, a killed job need not write a shard again.
    journal.remove_others(folder, names)
    _rename(folder, output_dir)


def locate_replaced(output_dir: str) -> str:
    """Returns where records are moved for the time of their replacement."""
    return f"{output_dir}.replaced"


def _rename(folder: str, output_dir: str) -> None:
    replaced = locate_replaced(output_dir)
    shutil.rmtree(replaced, ignore_errors=True)
    if os.path.isdir(output_dir):
        os.rename(output_dir, replaced)
    try:
        os.rename(folder, output_dir)
    except OSError:
        if os.path.isdir(replaced):
            os.rename(replaced, output_dir)
        raise
    shutil.rmtree(replaced, ignore_errors=True)
