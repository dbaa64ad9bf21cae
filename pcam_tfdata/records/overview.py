"""A first look at a records folder: counts, and patches to draw."""

import os
from typing import Any

import numpy as np
import pandas

from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import files


def summarize(records: records_folder.RecordsFolder) -> dict[str, Any]:
    """Returns counts of a records folder, what it was made from, and its hash.

    Counts and channel statistics of `splits` are those of the manifest; a split
    of unknown slides has 0 `num_slides`.

    Raises:
        FileNotFoundError, ValueError: its sidecar is missing or another's.
    """
    content = records.content
    rows = records.read_sidecar(["split", "id", "slide"]).replace("", None)
    unique = rows.groupby("split")[["id", "slide"]].nunique().to_dict()
    return {
        "num_patches": len(rows),
        "num_unique_ids": rows["id"].nunique(),
        "record_bytes": content.splits[0].layout.record_bytes,
        "splits": [
            {
                "name": split.name,
                "num_patches": split.num_records,
                "num_unique_ids": unique["id"][split.name],
                "num_slides": unique["slide"][split.name],
                "class_counts": split.class_counts,
                "num_shards": len(split.shards),
                "num_bytes": sum(shard.num_bytes for shard in split.shards),
                "channel_mean": split.channel_mean,
                "channel_std": split.channel_std,
            }
            for split in content.splits
        ],
        "options": content.options,
        "manifest_sha256": records.manifest_sha256,
    }


def format_overview(overview: dict[str, Any]) -> str:
    """Returns an overview as a page of text."""
    columns = (
        "split", "patches", "unique_ids", "slides", "negative", "positive",
        "unlabelled", "shards", "MB", "mean_RGB", "std_RGB",
    )  # fmt: skip
    rows = []
    for split in overview["splits"]:
        counts = [split["class_counts"].get(k, 0) for k in ("0", "1", "-1")]
        rows.append(
            (
                split["name"],
                f"{split['num_patches']:,}",
                f"{split['num_unique_ids']:,}",
                f"{split['num_slides'] or '-'}",
                *(f"{count:,}" for count in counts),
                str(split["num_shards"]),
                f"{split['num_bytes'] / 1e6:,.1f}",
                ",".join(f"{value:.1f}" for value in split["channel_mean"]),
                ",".join(f"{value:.1f}" for value in split["channel_std"]),
            )
        )
    table = pandas.DataFrame(rows, columns=columns).to_string(index=False)
    return (
        f"{table}\n{overview['num_patches']:,} patches,"
        f" {overview['num_unique_ids']:,} unique ids. Channels in [0, 255].\n"
    )


def write_overview(output_dir: str, overview: dict[str, Any]) -> None:
    """Writes an overview as JSON and as text."""
    os.makedirs(output_dir, exist_ok=True)
    files.write_json(os.path.join(output_dir, "overview.json"), overview)
    text = format_overview(overview)
    files.write_text(os.path.join(output_dir, "overview.txt"), text)


def sample_patches(
    records: records_folder.RecordsFolder, num_patches: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns patches drawn from the labelled splits, without repetition.

    Returns:
        Images, uint8 [n, 96, 96, 3], and labels, int64 [n].

    Raises:
        FileNotFoundError, ValueError: a shard is missing, or a record damaged.
    """
    shards = [shard for shard in records.list_shards() if shard.labeled]
    selection = records_folder.Selection(tuple(shards))
    rng = np.random.default_rng(seed)
    count = min(num_patches, selection.num_patches)
    patches = rng.choice(selection.num_patches, count, replace=False)
    layout = tfrecord.layout(labeled=True)
    block = np.empty((count, layout.record_bytes), np.uint8)
    for row, number, index in zip(
        block, *selection.locate(patches), strict=True
    ):
        record = shards[number].read_record(int(index))
        shards[number].check_record(index, record)
        row[:] = np.frombuffer(record, np.uint8)
    images = tfrecord.view_images(block, layout)
    return images, block[:, layout.label_offset].astype(np.int64)
