"""A first look at a records folder: counts, and patches to draw."""

import dataclasses
import json
import os

import numpy as np

from pcam_tfdata.records import records_folder, tfrecord

OVERVIEW_JSON = "overview.json"
OVERVIEW_TEXT = "overview.txt"


@dataclasses.dataclass(frozen=True)
class Sample:
    """Patches to draw: uint8 [n, 96, 96, 3], labels int64 [n]."""

    images: np.ndarray
    labels: np.ndarray


def summarize(records_dir: str) -> dict[str, object]:
    """Returns counts, sizes and channel statistics of a records folder.

    A split of unknown slides has 0 `num_slides`.

    Raises:
        FileNotFoundError, ValueError: it is no records folder.
    """
    records = records_folder.open_folder(records_dir)
    content = records.content
    rows = records.read_sidecar(["split", "id", "slide"]).replace("", None)
    unique = rows.groupby("split").nunique()
    return {
        "num_patches": len(rows),
        "num_unique_ids": rows["id"].nunique(),
        "record_bytes": content.splits[0].layout.record_bytes,
        "splits": [
            {
                "name": split.name,
                "num_patches": split.num_records,
                "num_unique_ids": int(unique.at[split.name, "id"]),
                "num_slides": int(unique.at[split.name, "slide"]),
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


def format_summary(summary: dict[str, object]) -> str:
    """Returns the summary as a page of text."""
    columns = (
        "split", "patches", "unique ids", "slides", "negative", "positive",
        "unlabelled", "shards", "MB", "mean R,G,B", "std R,G,B",
    )  # fmt: skip
    rows = [columns]
    for split in summary["splits"]:
        counts = [split["class_counts"].get(key, 0) for key in ("0", "1", "-1")]
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
        f"{summary['num_patches']:,} patches, {summary['num_unique_ids']:,}"
        f" unique ids. Channels in [0, 255]."
    )
    return "\n".join(lines) + "\n"


def write_summary(output_dir: str, summary: dict[str, object]) -> None:
    """Writes the summary as JSON and as text."""
    os.makedirs(output_dir, exist_ok=True)
    for name, text in (
        (OVERVIEW_JSON, json.dumps(summary, indent=1) + "\n"),
        (OVERVIEW_TEXT, format_summary(summary)),
    ):
        with open(
            os.path.join(output_dir, name), "w", encoding="utf-8"
        ) as file:
            file.write(text)


def sample_patches(records_dir: str, num_patches: int, seed: int) -> Sample:
    """Returns patches drawn from the labelled splits, without repetition."""
    shards = [
        shard
        for shard in records_folder.open_folder(records_dir).list_shards()
        if shard.labeled
    ]
    starts = np.cumsum([0, *(shard.num_records for shard in shards)])
    rng = np.random.default_rng(seed)
    count = min(num_patches, int(starts[-1]))
    images, labels = [], []
    for patch in rng.choice(starts[-1], count, replace=False):
        number = int(np.searchsorted(starts, patch, "right")) - 1
        shard = shards[number]
        shard.check()
        data = shard.read_record(int(patch - starts[number]))
        record = np.frombuffer(data, np.uint8)[np.newaxis]
        images.append(tfrecord.view_images(record, shard.layout)[0])
        labels.append(int(record[0, shard.layout.label_offset]))
    return Sample(np.stack(images), np.array(labels, np.int64))
