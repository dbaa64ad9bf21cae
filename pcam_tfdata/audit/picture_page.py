"""One page of pictures: pairs that look alike, blanks, distributions."""

import itertools
import operator
import os
import textwrap
from typing import Any

import numpy as np
from matplotlib import figure

from pcam_tfdata.audit import audit_report, patch_table
from pcam_tfdata.system import pictures

_PAIR_KINDS = (
    audit_report.Kind.EXACT_ACROSS,
    audit_report.Kind.NEAR_ACROSS,
    audit_report.Kind.NEAR_OVERLAP,
    audit_report.Kind.LABEL_CONFLICT,
    audit_report.Kind.NEAR_WITHIN,
)
_PAIR_COLUMNS = 4
_NOTE_LETTERS = 50  # In a line above a pair; more reach into the next one's.
_NUM_BLANKS = 12  # Of each label.
_BORDER_PIXELS = 3
_BORDER_LEVEL = 190  # Grey, since glass is white.
_WIDTH_INCHES = 12.0
_NUM_BINS = 40

_Strips = list[tuple[str, np.ndarray]]  # Captions, and uint8 [n, 96, 96, 3].


@pictures.in_style
def draw(
    output_dir: str, table: patch_table.Table, report: audit_report.Report
) -> None:
    """Draws what an audit found: audit.png and audit.svg."""
    pairs = _choose_pairs(table, report)
    blanks = _choose_blanks(table, report)
    heights = [
        0.5 + 1.9 * -(-len(pairs) // _PAIR_COLUMNS),
        0.5 + 1.2 * len(blanks),
        3.2,
    ]
    page = pictures.new_figure(_WIDTH_INCHES, sum(heights))
    parts: Any = page.subfigures(3, 1, height_ratios=heights)
    _draw_strips(parts[0], "pairs that look alike", pairs, _PAIR_COLUMNS)
    _draw_strips(parts[1], "nearly blank patches, by label", blanks, 1)
    _draw_distributions(parts[2], table)
    pictures.save(page, os.path.join(output_dir, "audit.png"))


def _draw_strips(
    part: figure.SubFigure, title: str, strips: _Strips, num_columns: int
) -> None:
    """Draws a grid of plots, in each of them some patches side by side."""
    title = title.capitalize() if strips else f"No {title}"
    part.suptitle(title, fontsize=10, x=0.01, ha="left")
    if not strips:
        return
    num_rows = -(-len(strips) // num_columns)
    grid = part.subplots(num_rows, num_columns, squeeze=False).ravel()
    border = [(_BORDER_PIXELS,), (_BORDER_PIXELS,), (0,)]  # Not of channels.
    for axes in grid:
        axes.axis("off")
    for axes, (caption, images) in zip(grid, strips, strict=False):
        framed = [
            np.pad(image, border, constant_values=_BORDER_LEVEL)
            for image in images
        ]
        axes.imshow(np.hstack(framed))
        axes.set_title(caption, fontsize=6.5)


def _draw_distributions(
    part: figure.SubFigure, table: patch_table.Table
) -> None:
    measures = {
        "Optical density, mean of a patch": table.measured["density"].mean(1),
        "Share of tissue in a patch": table.measured["tissue"],
    }
    grid = part.subplots(1, len(measures))
    for axes, (title, values) in zip(grid, measures.items(), strict=True):
        ends = np.quantile(values[: len(table.own)], (0.001, 0.999))
        for split, patches in table.own_splits:
            axes.hist(
                values[patches],
                bins=_NUM_BINS,
                range=ends,
                density=True,
                histtype="step",
                linewidth=1.2,
                label=split.name,
                linestyle="-" if split.labeled else ":",
            )
        axes.set_title(title, fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        axes.spines["left"].set_visible(False)
    grid[0].legend(frameon=False, fontsize=7)


def _choose_pairs(
    table: patch_table.Table, report: audit_report.Report
) -> _Strips:
    """Returns a row of pairs for each finding, from its whole range."""
    pairs = [
        pair
        for finding in report.findings
        if finding.kind in _PAIR_KINDS
        for pair in _spread(finding.examples, _PAIR_COLUMNS)
    ]
    strips = []
    for pair in pairs:
        names = [_name(report, patch) for patch in pair.patches[:2]]
        note = textwrap.fill(pair.note or "equal pixels", _NOTE_LETTERS)
        images = table.read_images(pair.patches[:2])
        strips.append((f"{' | '.join(names)}\n{note}", images))
    return strips


def _choose_blanks(
    table: patch_table.Table, report: audit_report.Report
) -> _Strips:
    """Returns blank patches of each label, label 1 first."""
    blanks = [
        patch
        for finding in report.findings
        if finding.kind == audit_report.Kind.BLANK
        for example in finding.examples
        for patch in example.patches
    ]
    by_label = itertools.groupby(blanks, operator.attrgetter("label"))
    return [
        (f"label {label}", table.read_images(_spread([*patches], _NUM_BLANKS)))
        for label, patches in by_label
    ]


def _spread(values: list, room: int) -> list:
    """Returns up to `room` of the values, evenly from the first to the last."""
    chosen = np.linspace(0, len(values) - 1, min(len(values), room))
    return [values[index] for index in np.unique(chosen.astype(int))]


def _name(report: audit_report.Report, patch: patch_table.Patch) -> str:
    """Returns where a patch is from, and its label."""
    name = f"{patch.split}, label {patch.label}"
    if patch.records_dir == report.folders[0].records_dir:
        return name
    return f"{os.path.basename(os.path.normpath(patch.records_dir))}: {name}"
