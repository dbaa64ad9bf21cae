"""From repeats to a table and a JSON file."""

import dataclasses
import json
import statistics
from collections.abc import Mapping, Sequence

from pcam_tfdata import schema
from pcam_tfdata.benchmark import contender, machine, measure
from pcam_tfdata.system import files

_MEGABYTE = 1_000_000
_COLUMNS = (
    "", "patches/s", "min-max", "ratio to limit", "MB/s", "peak MB",
    "CPU s/1,000",
)  # fmt: skip
_MISSING = "not measured"


@dataclasses.dataclass(frozen=True)
class Row:
    """A contender in the table; medians over the repeats.

    Attributes:
        name: Of the contender.
        patches_per_second: And the least and the largest below.
        ratio_to_limit: Of its rate to the limit's of the same round; None if
            the limit failed.
        megabytes_per_second: Pixels, in 1,000,000 bytes.
        peak_rss_mb: Most anonymous and shared memory of any repeat, in
            1,000,000 bytes; mapped files do not count. None if not measured.
        cpu_seconds_per_1000_patches: Likewise.
        setting: What a reader must know.
        error: Why it failed; nothing else is known then.
    """

    name: str
    patches_per_second: float | None = None
    patches_per_second_min: float | None = None
    patches_per_second_max: float | None = None
    ratio_to_limit: float | None = None
    megabytes_per_second: float | None = None
    peak_rss_mb: float | None = None
    cpu_seconds_per_1000_patches: float | None = None
    setting: str = ""
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class Report:
    """What a benchmark found.

    Attributes:
        machine: See `machine.describe`.
        versions: Of the programs.
        parameters: Of the measurement.
        rows: As JSON has them.
        table: The same as text.
        notes: Lines below the table.
    """

    machine: Mapping[str, object]
    versions: Mapping[str, str | None]
    parameters: Mapping[str, object]
    rows: Sequence[Mapping[str, object]]
    table: str
    notes: Sequence[str] = ()


def build(
    machine_facts: Mapping[str, object],
    parameters: Mapping[str, object],
    plan: contender.Plan,
    rows: Sequence[Row],
) -> Report:
    """Returns the report of contenders measured by a plan."""
    planned = {
        "repeats": plan.num_repeats,
        "min_patches": plan.min_patches,
        "min_seconds": plan.min_seconds,
    }
    return Report(
        machine_facts,
        machine.list_versions(),
        parameters | planned,
        to_json(rows),
        format_rows(rows),
    )


def add_note(report: Report, note: str) -> Report:
    """Returns the report with a line below its table."""
    return dataclasses.replace(report, notes=(*report.notes, note))


def summarize(
    outcomes: Sequence[measure.Outcome], limit_name: str
) -> list[Row]:
    """Returns a row for each outcome; the limit is the one of that name."""
    (limit,) = [o for o in outcomes if o.name == limit_name]
    return [_row(outcome, limit) for outcome in outcomes]


def median_ratio(
    outcome: measure.Outcome, reference: measure.Outcome
) -> float | None:
    """Returns the median, over rounds, of one rate to another of that round.

    None if one of them failed.
    """
    if outcome.error or reference.error:
        return None
    pairs = zip(outcome.repeats, reference.repeats, strict=True)
    return statistics.median(each.rate / other.rate for each, other in pairs)


def to_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Returns rows as JSON has them: a failed one has its name and `error`."""
    found = []
    for row in rows:
        fields = dataclasses.asdict(row)
        if row.error is None:
            del fields["error"]
        else:
            fields = {name: fields[name] for name in ("name", "error")}
        found.append(fields)
    return found


def format_rows(rows: Sequence[Row]) -> str:
    """Returns rows as a table, failed ones with their reason below it."""
    failed = [f"{row.name}: failed: {row.error}" for row in rows if row.error]
    return "\n".join([format_table(list_cells(rows)), *failed])


def list_cells(rows: Sequence[Row]) -> list[list[str]]:
    """Returns the head of the table, and the cells of each row."""
    return [list(_COLUMNS), *(_cells(row) for row in rows)]


def format_table(table: Sequence[Sequence[str]]) -> str:
    """Returns lines of cells as text, the first column to the left."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(
                zip(line, widths, strict=True)
            )
        ).rstrip()
        for line in table
    )


def format_report(report: Report) -> str:
    """Returns the report as text: machine, parameters, table, notes."""
    made = report.machine
    machine = (
        f"{made['cpu']}, {made['cores']} cores, {made['ram_gib']} GiB RAM,"
        f" {made['platform']}"
    )
    gpus = made.get("gpus")
    if gpus is not None:
        machine += f"; {', '.join(gpus) or 'no GPU'}"
    versions = ", ".join(
        f"{name} {version or 'not installed'}"
        for name, version in report.versions.items()
    )
    parameters = ", ".join(
        f"{name}={_show(value)}"
        for name, value in report.parameters.items()
        if value is not None
    )
    lines = [machine, versions, parameters, "", report.table, *report.notes]
    return "\n".join(lines)


def write_json(path: str, report: Report) -> None:
    """Writes a report as a JSON file that appears whole or not at all."""
    content = {
        "machine": report.machine,
        "versions": report.versions,
        "parameters": report.parameters,
        "rows": report.rows,
        "notes": list(report.notes),
    }
    files.write_text(path, json.dumps(content, indent=1) + "\n")


def _row(outcome: measure.Outcome, limit: measure.Outcome) -> Row:
    if outcome.error is not None:
        return Row(outcome.name, setting=outcome.setting, error=outcome.error)
    repeats = outcome.repeats
    rates = [repeat.rate for repeat in repeats]
    rate = statistics.median(rates)
    row = Row(
        outcome.name,
        patches_per_second=rate,
        patches_per_second_min=min(rates),
        patches_per_second_max=max(rates),
        ratio_to_limit=median_ratio(outcome, limit),
        megabytes_per_second=rate * schema.IMAGE_BYTES / _MEGABYTE,
        setting=outcome.setting,
    )
    if any(repeat.cpu_seconds is None for repeat in repeats):
        return row
    return dataclasses.replace(
        row,
        peak_rss_mb=max(repeat.peak_bytes for repeat in repeats) / _MEGABYTE,
        cpu_seconds_per_1000_patches=statistics.median(
            1000 * repeat.cpu_seconds / repeat.num_patches for repeat in repeats
        ),
    )


def _cells(row: Row) -> list[str]:
    if row.error is not None:
        return [row.name, "failed", *[""] * (len(_COLUMNS) - 2)]
    lowest, highest = row.patches_per_second_min, row.patches_per_second_max
    return [
        row.name,
        f"{row.patches_per_second:,.0f}",
        f"{lowest:,.0f}-{highest:,.0f}",
        _number(row.ratio_to_limit, ".3f"),
        f"{row.megabytes_per_second:,.1f}",
        _number(row.peak_rss_mb, ",.0f"),
        _number(row.cpu_seconds_per_1000_patches, ".4f"),
    ]


def _number(value: float | None, how: str) -> str:
    return _MISSING if value is None else format(value, how)


def _show(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)
