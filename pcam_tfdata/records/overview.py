"""A first look at a records folder: counts, and patches to draw."""

import os
from typing import Any

import numpy as np

from pcam_tfdata.records import records_folder, tfrecord
from pcam_tfdata.system import files

OVERVIEW_JSON = "overview.json"
OVERVIEW_TEXT = "overview.txt"


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
        "split", "patches", "unique ids", "slides", "negative", "positive",
        "unlabelled", "shards", "MB", "mean R,G,B", "std R,G,B",
    )  # fmt: skip
    rows: list[tuple[str, ...]] = [columns]
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
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            value.rjust(width) for value, width in zip(row, widths, strict=True)
        )
        for row in rows
    ]
    lines.append(
        f"{overview['num_patches']:,} patches, {overview['num_unique_ids']:,}"
        f" unique ids. Channels in [0, 255]."
    )
    return "\n".join(lines) + "\n"


def write_overview(output_dir: str, overview: dict[str, Any]) -> None:
    """Writes an overview as JSON and as text."""
    os.makedirs(output_dir, exist_ok=True)
    files.write_json(os.path.join(output_dir, OVERVIEW_JSON), overview)
    text = format_overview(overview)
    files.write_text(os.path.join(output_dir, OVERVIEW_TEXT), text)


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
    images, labels = [], []
    for number, index in zip(*selection.locate(patches), strict=True):
        shard = shards[number]
        data = shard.read_record(int(index))
        shard.check_record(index, data)
        record = np.frombuffer(data, np.uint8)[np.newaxis]
        images.append(tfrecord.view_images(record, shard.layout)[0])
        labels.append(data[shard.layout.label_offset])
    return np.stack(images), np.array(labels, np.int64)
