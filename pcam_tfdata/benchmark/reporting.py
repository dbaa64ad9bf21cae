"""From repeats to a table and a JSON file."""

import dataclasses
import os
import platform
import statistics
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import harness, process_usage
from pcam_tfdata.system import workers

# Columns of a table: heading, and how a row fills it. A table has those that one
# of its rows can fill.
_COLUMNS = (
    ("patches/s", "{patches_per_second:,.0f}"),
    ("min-max", "{patches_per_second_min:,.0f}-{patches_per_second_max:,.0f}"),
    ("seconds", "{seconds:.4f}"),
    ("min-max", "{seconds_min:.4f}-{seconds_max:.4f}"),
    ("ratio to limit", "{ratio_to_limit:.3f}"),
    ("MB/s", "{megabytes_per_second:,.1f}"),
    ("peak MB", "{peak_rss_mb:,.0f}"),
    ("CPU s/1,000", "{cpu_seconds_per_1000_patches:.4f}"),
    ("mmap to it", "{ratio_of_mmap:.2f}"),
)

Row = dict[str, str | float | None]


@dataclasses.dataclass(frozen=True)
class Report:
    """The figures of a benchmark; its JSON file has the same fields.

    Attributes:
        machine: See `describe_machine`.
        versions: Of Python and of what every benchmark stands on.
        parameters: What was measured, and how often.
        rows: One for each contender, see `make_row`.
        notes: Lines below the table.
    """

    machine: Mapping[str, object]
    versions: Mapping[str, str]
    parameters: Mapping[str, object]
    rows: Sequence[Row]
    notes: Sequence[str]

    def to_text(self) -> str:
        """Returns machine, versions, parameters, table and notes."""
        lines = [
            ", ".join(f"{name}={value}" for name, value in facts.items())
            for facts in (self.machine, self.versions, self.parameters)
        ]
        return "\n".join([*lines, "", format_table(self.rows), *self.notes])


def describe_machine() -> dict[str, object]:
    """Returns cpu, cores, ram_gib, platform and gpus; not the name."""
    pages, page_bytes = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
    models = [
        line.split(":", 1)[1].strip()
        for line in process_usage.read_lines("cpuinfo")
        if line.startswith("model name")
    ]
    return {
        "cpu": next(iter(models), platform.machine()),
        "cores": workers.count_cores(),
        "ram_gib": round(pages * page_bytes / (1 << 30), 1),
        "platform": platform.platform(),
        "gpus": list_gpus(),
    }


def list_gpus() -> list[str]:
    """Returns the name of each GPU that TensorFlow sees."""
    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
        for gpu in tf.config.list_physical_devices("GPU")
    ]


def list_versions() -> dict[str, str]:
    """Returns the versions of Python and of what every benchmark stands on."""
    packages = {m.__name__: m.__version__ for m in (np, tf, keras)}
    return {"python": platform.python_version()} | packages


def make_row(
    outcome: harness.Outcome,
    limit: harness.Outcome,
    unit: str = "patches_per_second",
) -> Row:
    """Returns a contender as JSON has it; medians over the repeats.

    Args:
        outcome: What came of it.
        limit: What came of the limit.
        unit: `patches_per_second`, or `seconds` of a piece of work.

    Returns:
        name: What the table calls it.
        error: Why it failed; then there is nothing else.
        UNIT, UNIT_min, UNIT_max: The figure, and its extremes.
        ratio_to_limit: The figure to the limit's of the same round; None if the
            limit failed.
        megabytes_per_second: Pixels, in 1,000,000 bytes; this and what follows
            not for `seconds`.
        peak_rss_mb: Most anonymous and shared memory of any repeat, in
            1,000,000 bytes; mapped files do not count. None if not measured.
        cpu_seconds_per_1000_patches: Processor time; None if not measured.
        setting: What a reader must know.
    """
    if outcome.error is not None:
        return {"name": outcome.name, "error": outcome.error}
    figures = [getattr(repeat, unit) for repeat in outcome.repeats]
    median = statistics.median(figures)
    row: Row = {
        "name": outcome.name,
        unit: median,
        f"{unit}_min": min(figures),
        f"{unit}_max": max(figures),
        "ratio_to_limit": outcome.ratio_to(limit, unit),
    }
    if unit == "seconds":
        return row
    peak_bytes = max(repeat.peak_bytes for repeat in outcome.repeats)
    cpu_seconds = [
        1000 * repeat.cpu_seconds / repeat.num_patches
        for repeat in outcome.repeats
    ]
    return row | {
        "megabytes_per_second": median * schema.IMAGE_BYTES / 1e6,
        "peak_rss_mb": peak_bytes / 1e6 or None,
        "cpu_seconds_per_1000_patches": statistics.median(cpu_seconds) or None,
        "setting": "",
    }


def format_table(rows: Sequence[Row]) -> str:
    """Returns rows as text, and below it what is to be known of them."""
    table = pd.DataFrame(index=[str(row["name"]) for row in rows])
    for heading, template in _COLUMNS:
        cells = [_fill(template, row) for row in rows]
        if any(cells):
            table[heading] = cells
    lines = [] if table.empty else [table.to_string()]
    lines += [f"{r['name']}: {r['setting']}" for r in rows if r.get("setting")]
    lines += [
        f"{r['name']}: failed: {r['error']}" for r in rows if "error" in r
    ]
    return "\n".join(lines)


def _fill(template: str, row: Row) -> str:
    """Returns a cell; an empty one where a row has no such figure."""
    try:
        return template.format_map(row)
    except KeyError:
        return ""
    except TypeError:  # None cannot be formatted.
        return "not measured"
