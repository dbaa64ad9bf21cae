"""One page of pictures: pairs that look alike, blanks, distributions."""

import os
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import axes as plots
from matplotlib import figure

from pcam_tfdata import schema
from pcam_tfdata.audit import finding, job, scan, shifts
from pcam_tfdata.audit import table as tables
from pcam_tfdata.system import files

_PAIR_KINDS = (
    finding.NEAR_ACROSS,
    finding.NEAR_OVERLAP,
    finding.LABEL_CONFLICT,
    finding.EXACT_ACROSS,
    finding.NEAR_WITHIN,
)
_PAIR_COLUMNS, _PAIR_ROWS = 4, 3
_NOTE_LETTERS = 50  # In a line above a pair; more reach into the next one's.
_NUM_BLANKS = 12  # Of each label.
_GAP_PIXELS = 6
_WIDTH_INCHES = 12.0
_NUM_BINS = 40
_LINE_CHARACTERS, _MAX_LINES = 170, 40
_FRAME = 190  # Grey level of the line around a patch.
_LABEL_COLORS = {-1: "#7a7a7a", 0: "#4c72b0", 1: "#b1307f"}


class _Shown(NamedTuple):
    """A pair to draw: numbers of two patches, and what to write over them."""

    patches: tuple[int, int]
    title: str


def draw(audit: job.Audit, summary: dict[str, object], path: str) -> None:
    """Draws what an audit found, as PNG, whole or not at all."""
    shown = _choose_pairs(audit)
    blanks = _choose_blanks(audit)
    pair_rows = max(1, -(-len(shown) // _PAIR_COLUMNS))
    heights = [
        0.5 + 0.17 * len(_headlines(audit)),
        0.4 + 1.9 * pair_rows if shown else 0.5,
        0.4 + 1.1 * len(blanks) if blanks else 0.5,
        3.2,
    ]
    page = figure.Figure(
        figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained"
    )
    parts = page.subfigures(4, 1, height_ratios=heights)
    _write_headlines(parts[0], audit, summary)
    _draw_pairs(parts[1], audit.table, shown)
    _draw_blanks(parts[2], audit.table, blanks)
    _draw_distributions(parts[3], audit.table)
    with files.open_whole(path, "wb") as file:
        page.savefig(file, format="png", dpi=110)


def _headlines(audit: job.Audit) -> list[str]:
    """Returns a line for each finding, and more for long ones."""
    texts = [
        f"{found.gravity.upper()}  {finding.KINDS[found.kind]}: {found.text}"
        for found in audit.findings
    ]
    lines = [
        line
        for full in texts or ["Nothing found."]
        for line in textwrap.wrap(
            full, _LINE_CHARACTERS, subsequent_indent="      "
        )
    ]
    return lines[:_MAX_LINES]


def _write_headlines(
    part: figure.SubFigure, audit: job.Audit, summary: dict[str, object]
) -> None:
    names = [
        f"{folder['records_dir']} ({folder['num_patches']:,} patches)"
        for folder in summary["folders"]
    ]
    part.text(
        0.01, 0.97, " beside ".join(names), va="top", fontsize=11, weight="bold"
    )
    part.text(
        0.01,
        0.97 - 0.3 / _height(part),
        "\n".join(_headlines(audit)),
        va="top",
        fontsize=8,
        linespacing=1.5,
    )


def _write_title(part: figure.SubFigure, title: str) -> None:
    part.suptitle(title, fontsize=10, x=0.01, ha="left")


def _draw_pairs(
    part: figure.SubFigure, table: tables.Table, shown: Sequence[_Shown]
) -> None:
    _write_title(
        part, "Pairs that look alike" if shown else "No pairs that look alike"
    )
    if not shown:
        return
    rows = -(-len(shown) // _PAIR_COLUMNS)
    grid = part.subplots(rows, _PAIR_COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, pair in zip(grid, shown, strict=False):
        first, second = map(
            _frame, scan.read_images(table.shards, pair.patches)
        )
        gap = np.full((len(first), _GAP_PIXELS, 3), 255, np.uint8)
        axes.imshow(np.hstack([first, gap, second]))
        axes.set_title(pair.title, fontsize=6.5)


def _frame(image: np.ndarray) -> np.ndarray:
    return np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=_FRAME)


def _draw_blanks(
    part: figure.SubFigure,
    table: tables.Table,
    blanks: dict[int, Sequence[int]],
) -> None:
    _write_title(
        part, "Nearly blank, by label" if blanks else "No nearly blank patch"
    )
    if not blanks:
        return
    grid = part.subplots(len(blanks), _NUM_BLANKS, squeeze=False)
    for row, (label, numbers) in zip(grid, blanks.items(), strict=True):
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(
            f"label {label}", fontsize=8, color=_LABEL_COLORS[label]
        )
        images = scan.read_images(table.shards, numbers)
        for axes, image in zip(row, images, strict=False):
            axes.imshow(image)
            axes.spines[:].set(visible=True, linewidth=0.5, color="#bbbbbb")


def _draw_distributions(part: figure.SubFigure, table: tables.Table) -> None:
    *curves, classes = part.subplots(1, 3)
    values = shifts.measures(table.scanned.statistics)
    own = [p for p in table.sections_of(0) if p.num_patches]
    densities = (
        values["red density"] + values["green density"] + values["blue density"]
    ) / schema.NUM_CHANNELS
    for axes, column, title in (
        (curves[0], densities, "Optical density, mean of a patch"),
        (curves[1], values["tissue share"], "Share of tissue in a patch"),
    ):
        _draw_curves(axes, column, own)
        axes.set_title(title, fontsize=9)
    curves[0].legend(frameon=False, fontsize=7)
    _draw_classes(classes, table, [p for p in own if p.labeled])


def _draw_curves(
    axes: plots.Axes,
    values: np.ndarray,
    sections: Sequence[tables.Section],
) -> None:
    own = values[: sections[-1].patches.stop]
    bins = np.linspace(*np.quantile(own, (0.001, 0.999)), _NUM_BINS)
    for part in sections:
        axes.hist(
            values[part.patches],
            bins if bins[-1] > bins[0] else None,
            density=True,
            histtype="step",
            linewidth=1.2,
            label=part.name,
            linestyle="-" if part.labeled else ":",
        )
    axes.set_yticks([])
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_classes(
    axes: plots.Axes,
    table: tables.Table,
    sections: Sequence[tables.Section],
) -> None:
    labels = table.scanned.labels
    shares = [
        100 * float((labels[part.patches] == schema.POSITIVE).mean())
        for part in sections
    ]
    bars = axes.bar(range(len(shares)), shares, 0.5, color=_LABEL_COLORS[1])
    axes.bar_label(bars, fmt="%.1f%%", fontsize=7)
    axes.set_xticks(range(len(shares)), [part.name for part in sections])
    axes.set_title("Share of label 1", fontsize=9)
    axes.set_yticks([])
    axes.margins(y=0.15)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _choose_pairs(audit: job.Audit) -> list[_Shown]:
    """Returns pairs of the gravest kinds; of each, from its whole range."""
    most = _PAIR_COLUMNS * _PAIR_ROWS
    kinds = [
        found
        for kind in _PAIR_KINDS
        for found in audit.findings
        if found.kind == kind and found.groups
    ]
    shown = []
    for place, found in enumerate(kinds):
        room = -(-(most - len(shown)) // (len(kinds) - place))
        for number in _spread(len(found.groups), room):
            first, second = found.groups[number][:2]
            note = found.notes[number] if found.notes else "equal pixels"
            title = (
                f"{_where(audit.table, first)} | {_where(audit.table, second)}"
            )
            note = textwrap.fill(note, _NOTE_LETTERS)
            shown.append(_Shown((first, second), f"{title}\n{note}"))
    return shown


def _choose_blanks(audit: job.Audit) -> dict[int, Sequence[int]]:
    """Returns blank patches of each label, label 1 first."""
    table = audit.table
    blank = table.is_blank & (table.folder == 0)
    chosen = {}
    for label in (schema.POSITIVE, schema.NEGATIVE, schema.UNLABELED):
        numbers = np.flatnonzero(blank & (table.scanned.labels == label))
        if len(numbers):
            places = _spread(len(numbers), _NUM_BLANKS)
            chosen[label] = numbers[places].tolist()
    return chosen


def _spread(count: int, room: int) -> list[int]:
    """Returns up to `room` places, evenly from 0 to count - 1."""
    return np.unique(
        np.linspace(0, count - 1, min(count, room)).astype(int)
    ).tolist()


def _where(table: tables.Table, number: int) -> str:
    section = table.sections[table.section[number]]
    folder = os.path.basename(
        os.path.normpath(table.folders[section.folder].records_dir)
    )
    name = section.name if section.folder == 0 else f"{folder}:{section.name}"
    label = table.scanned.labels[number]
    return name if label == schema.UNLABELED else f"{name}, label {label}"


def _height(part: figure.SubFigure) -> float:
    return part.bbox.height / part.figure.dpi
