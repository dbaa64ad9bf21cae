"""One page of pictures: pairs that look alike, blanks, distributions."""

import itertools
import operator
import os
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import axes as plots
from matplotlib import figure

from pcam_tfdata import schema
from pcam_tfdata.audit import audit_report, patch_table
from pcam_tfdata.system import files

_PAIR_KINDS = (
    audit_report.Kind.NEAR_ACROSS,
    audit_report.Kind.NEAR_OVERLAP,
    audit_report.Kind.LABEL_CONFLICT,
    audit_report.Kind.EXACT_ACROSS,
    audit_report.Kind.NEAR_WITHIN,
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


def draw(
    table: patch_table.Table, report: audit_report.Report, path: str
) -> None:
    """Draws what an audit found, as PNG, whole or not at all."""
    headlines = _list_headlines(report)
    pairs = _choose_pairs(report)
    blanks = _choose_blanks(report)
    num_rows = -(-len(pairs) // _PAIR_COLUMNS)
    heights = [
        0.5 + 0.17 * len(headlines),
        0.4 + 1.9 * num_rows if pairs else 0.5,
        0.4 + 1.1 * len(blanks) if blanks else 0.5,
        3.2,
    ]
    page = figure.Figure(
        figsize=(_WIDTH_INCHES, sum(heights)), layout="constrained"
    )
    parts: Any = page.subfigures(4, 1, height_ratios=heights)
    _write_headlines(parts[0], report, headlines)
    titles = ["No pairs that look alike", "No nearly blank patch"]
    if pairs:
        titles[0] = "Pairs that look alike"
        _draw_pairs(parts[1], table, report, pairs)
    if blanks:
        titles[1] = "Nearly blank, by label"
        _draw_blanks(parts[2], table, blanks)
    for part, title in zip(parts[1:3], titles, strict=True):
        part.suptitle(title, fontsize=10, x=0.01, ha="left")
    _draw_distributions(parts[3], table)
    with files.open_whole(path, "wb") as file:
        page.savefig(file, format="png", dpi=110)


def _list_headlines(report: audit_report.Report) -> list[str]:
    """Returns a line for each finding, and more for long ones."""
    texts = [
        f"{finding.gravity.upper()}  {finding.title}: {finding.text}"
        for finding in report.findings
    ]
    wrapper = textwrap.TextWrapper(_LINE_CHARACTERS, subsequent_indent=6 * " ")
    lines = map(wrapper.wrap, texts or ["Nothing found."])
    return list(itertools.chain.from_iterable(lines))[:_MAX_LINES]


def _write_headlines(
    part: figure.SubFigure,
    report: audit_report.Report,
    headlines: Sequence[str],
) -> None:
    folders = " beside ".join(
        f"{folder.records_dir} ({folder.num_patches:,} patches)"
        for folder in report.folders
    )
    below = 0.97 - 0.3 / (part.bbox.height / part.figure.dpi)
    part.text(0.01, 0.97, folders, va="top", fontsize=11, weight="bold")
    part.text(
        0.01, below, "\n".join(headlines), va="top", fontsize=8, linespacing=1.5
    )


def _draw_pairs(
    part: figure.SubFigure,
    table: patch_table.Table,
    report: audit_report.Report,
    pairs: Sequence[audit_report.Example],
) -> None:
    num_rows = -(-len(pairs) // _PAIR_COLUMNS)
    grid = part.subplots(num_rows, _PAIR_COLUMNS, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, pair in zip(grid, pairs, strict=False):
        images = table.read_images(pair.patches[:2])
        first, second = np.pad(
            images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=_FRAME
        )
        gap = np.full((len(first), _GAP_PIXELS, 3), 255, np.uint8)
        axes.imshow(np.hstack([first, gap, second]))
        names = [_name(report, patch) for patch in pair.patches[:2]]
        note = textwrap.fill(pair.note or "equal pixels", _NOTE_LETTERS)
        axes.set_title(f"{' | '.join(names)}\n{note}", fontsize=6.5)


def _draw_blanks(
    part: figure.SubFigure,
    table: patch_table.Table,
    blanks: dict[int, list[patch_table.Patch]],
) -> None:
    grid = part.subplots(len(blanks), _NUM_BLANKS, squeeze=False)
    for row, (label, patches) in zip(grid, blanks.items(), strict=True):
        for axes in row:
            axes.set(xticks=[], yticks=[])
            axes.spines[:].set_visible(False)
        row[0].set_ylabel(
            f"label {label}", fontsize=8, color=_LABEL_COLORS[label]
        )
        for axes, image in zip(row, table.read_images(patches), strict=False):
            axes.imshow(image)
            axes.spines[:].set(visible=True, linewidth=0.5, color="#bbbbbb")


def _draw_distributions(
    part: figure.SubFigure, table: patch_table.Table
) -> None:
    densities, tissue, classes = part.subplots(1, 3)
    mean_density = table.statistics.density.sum(axis=1) / schema.NUM_CHANNELS
    _draw_curves(densities, mean_density, table)
    densities.set_title("Optical density, mean of a patch", fontsize=9)
    densities.legend(frameon=False, fontsize=7)
    _draw_curves(tissue, table.statistics.tissue, table)
    tissue.set_title("Share of tissue in a patch", fontsize=9)
    shares = {
        split.name: 100 * table.is_positive[patches].mean()
        for split, patches in table.own_splits
        if split.labeled and split.num_records
    }
    bars = classes.bar(
        range(len(shares)), shares.values(), 0.5, color=_LABEL_COLORS[1]
    )
    classes.bar_label(bars, fmt="%.1f%%", fontsize=7)
    classes.set_xticks(range(len(shares)), shares)
    classes.set_title("Share of label 1", fontsize=9)
    classes.margins(y=0.15)
    for axes in (densities, tissue, classes):
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right", "left"]].set_visible(False)


def _draw_curves(
    axes: plots.Axes, values: np.ndarray, table: patch_table.Table
) -> None:
    low, high = np.quantile(values[: len(table.own)], (0.001, 0.999))
    bins: Any = np.linspace(low, high, _NUM_BINS) if high > low else None
    for split, patches in table.own_splits:
        if split.num_records:
            axes.hist(
                values[patches],
                bins,
                density=True,
                histtype="step",
                linewidth=1.2,
                label=split.name,
                linestyle="-" if split.labeled else ":",
            )


def _choose_pairs(report: audit_report.Report) -> list[audit_report.Example]:
    """Returns pairs of the gravest kinds; of each, from its whole range."""
    of_kinds = [
        finding.examples
        for kind in _PAIR_KINDS
        for finding in report.findings
        if finding.kind == kind
    ]
    pairs: list[audit_report.Example] = []
    for number, examples in enumerate(of_kinds):
        room = _PAIR_COLUMNS * _PAIR_ROWS - len(pairs)
        pairs += _spread(examples, -(-room // (len(of_kinds) - number)))
    return pairs


def _choose_blanks(
    report: audit_report.Report,
) -> dict[int, list[patch_table.Patch]]:
    """Returns blank patches of each label, label 1 first."""
    patches = [
        patch
        for finding in report.findings
        if finding.kind == audit_report.Kind.BLANK
        for example in finding.examples
        for patch in example.patches
    ]
    by_label = itertools.groupby(patches, operator.attrgetter("label"))
    return {label: _spread([*some], _NUM_BLANKS) for label, some in by_label}


def _spread(values: list, room: int) -> list:
    """Returns up to `room` of the values, evenly from the first to the last."""
    chosen = np.linspace(0, len(values) - 1, min(len(values), room))
    return [values[index] for index in np.unique(chosen.astype(int))]


def _name(report: audit_report.Report, patch: patch_table.Patch) -> str:
    """Returns where a patch is from, and its label, if it has one."""
    name = patch.split
    if patch.records_dir != report.folders[0].records_dir:
        folder = os.path.basename(os.path.normpath(patch.records_dir))
        name = f"{folder}:{name}"
    if patch.label == schema.UNLABELED:
        return name
    return f"{name}, label {patch.label}"
