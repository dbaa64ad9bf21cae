"""Several records folders become one: of a site each, or of a year.

A conversion plans all of its patches in memory. Parts that were converted by
themselves are joined shard by shard, so memory holds some rows, and at the end
eight bytes of each patch's id.
"""

import logging
import os
import shutil
from collections.abc import Sequence

from pcam_tfdata.conversion import (
    describe_folder,
    leaks,
    merged_manifest,
    publish,
    workspace,
)
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.system import csv_files, faults, files

_logger = logging.getLogger(__name__)


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
        RuntimeError: another process is at it.
        OSError: the disk is full, or the like. Nothing is left then.
    """
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
    output_dir = files.resolve(output_dir)
    parts = _open_parts(records_dirs)
    content, new_names = merged_manifest.merge(parts)
    warnings = leaks.describe_split_slides(parts)
    if warnings:
        content.options["grouped_by_slide"] = False
    publish.check_output(output_dir, overwrite=overwrite)
    if not overwrite and workspace.has_finished_shards(output_dir):
        raise FileExistsError(
            f"{workspace.locate(output_dir)}: found a job that is not finished,"
            " expected none. Finish it, pass --overwrite to drop it, or choose"
            " another --output_dir."
        )
    skipped = _read_skipped(records_dirs)
    with workspace.open_folder(output_dir, restart=True) as folder:
        # Again: another job may have finished before this one held the lock.
        publish.check_output(output_dir, overwrite=overwrite)
        for part, names in zip(parts, new_names, strict=True):
            _add_part(part, names, folder)
        content = describe_folder.write_files(folder, content, skipped)
        warnings += leaks.describe_copies(folder)
        publish.put_into_place(folder, output_dir, content)
    if skipped:  # A row may stand for many patches.
        warnings.append(
            f"{manifest.SKIPPED_FILE} lists the faults of patches that were"
            " skipped."
        )
    for line in warnings:
        _logger.warning("Warning: %s", line)
    return content


def _open_parts(
    records_dirs: Sequence[str],
) -> list[records_folder.RecordsFolder]:
    """Opens the parts; refuses one that is not as its manifest says."""
    parts: dict[str, records_folder.RecordsFolder] = {}
    for folder in records_dirs:
        part = records_folder.open_folder(folder)
        if other := parts.get(part.manifest_sha256):
            raise ValueError(
                f"--records_dirs: found the records of {folder} in"
                f" {other.path} too, expected each once."
            )
        parts[part.manifest_sha256] = part
        columns = tuple(csv_files.read_header(part.sidecar_path))
        if columns != manifest.SIDECAR_COLUMNS:
            raise ValueError(
                f"{part.sidecar_path}: found columns {','.join(columns)},"
                f" expected {','.join(manifest.SIDECAR_COLUMNS)}. Convert again"
                " with this version."
            )
        for shard in part.list_shards():
            shard.check()
    return list(parts.values())


def _add_part(
    part: records_folder.RecordsFolder, new_names: dict[str, str], folder: str
) -> None:
    """Writes a part's shards into a folder, and their rows of the sidecar."""
    for old_name, name in new_names.items():
        source = os.path.realpath(os.path.join(part.path, old_name))
        try:
            os.link(source, os.path.join(folder, name))
        except OSError:  # Another file system, one without links, and so on.
            shutil.copyfile(source, os.path.join(folder, name))
        # A shard whose patches were all left out has no row.
        open(os.path.join(folder, f"{name}.csv"), "w").close()
    columns = manifest.SIDECAR_COLUMNS[1:]  # Rows are numbered anew.
    for block in part.iterate_sidecar(columns):
        block["shard"] = block["shard"].map(new_names)
        for shard, rows in block.groupby("shard", sort=False):
            path = os.path.join(folder, f"{shard}.csv")
            rows.to_csv(path, mode="a", header=False, index=False)


def _read_skipped(records_dirs: Sequence[str]) -> list[faults.Fault]:
    """Returns what finished records folders say of patches left out."""
    paths = [os.path.join(d, manifest.SKIPPED_FILE) for d in records_dirs]
    return [
        faults.Fault(name, reason)
        for path in filter(files.is_file, paths)
        for name, reason in csv_files.read_csv(path, ("name", "reason"))
    ]
