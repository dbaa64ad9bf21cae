"""Pictures of runs and records: curves, grids, matrices. No I/O.

`label` is int [num_patches], 0 or 1, both there; `logit` float [num_patches].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas
from matplotlib import figure, patches, ticker
from sklearn import metrics as sklearn_metrics

from pcam_tfdata import schema
from pcam_tfdata.evaluation import curves, metrics
from pcam_tfdata.records import manifest
from pcam_tfdata.system import pictures

CLASS_COLORS = (pictures.BLUE, pictures.VERMILLION)
_COLUMNS = 6  # Of patches.
_CHANNELS = {
    "red": pictures.VERMILLION, "green": pictures.GREEN, "blue": pictures.BLUE,
}  # fmt: skip
# Columns of a history, training's before validation's, and their title.
HISTORY_CURVES = (
    ("loss", "val_loss", "Loss (nats)"),
    ("accuracy", "val_accuracy", "Accuracy"),
    (None, "val_auc", "AUC"),
    ("learning_rate", None, "Learning rate"),
)
_CURVE_STYLES = (
    {"label": "train", "color": pictures.GREY, "marker": "."},
    {"label": "validation", "color": pictures.VERMILLION, "marker": "."},
)


@pictures.in_style
def draw_history(
    history: pandas.DataFrame,
    panels: Sequence[tuple[str | None, str | None, str]] = HISTORY_CURVES,
) -> figure.Figure:
    """Draws curves of a run's history by epoch; what it lacks is left out."""
    drawing = pictures.new_figure(4 * len(panels), 2.8)
    grid = drawing.subplots(1, len(panels), squeeze=False)[0]
    for axes, (*columns, title) in zip(grid, panels, strict=True):
        for column, style in zip(columns, _CURVE_STYLES, strict=True):
            if column in history:
                axes.plot(history["epoch"], history[column], **style)
        axes.set(title=title, xlabel="Epoch")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.ticklabel_format(axis="y", useOffset=False)
        if axes.lines:
            axes.legend()
    return drawing


@pictures.in_style
def draw_label_histogram(content: manifest.Manifest) -> figure.Figure:
    """Draws the patches per label and split of a records folder."""
    splits = [split for split in content.splits if split.labeled]
    drawing = pictures.new_figure(max(4, 0.7 * len(splits)), 2.8)
    axes = drawing.subplots()
    positions, width = np.arange(len(splits)), 0.38
    for label, name in enumerate(schema.CLASS_NAMES):
        counts = [split.class_counts[str(label)] for split in splits]
        bars = axes.bar(
            positions + (label - 0.5) * width, counts, width,
            color=CLASS_COLORS[label], label=f"{name} ({sum(counts):,})",
        )  # fmt: skip
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=6)
    axes.set(title="Patches by label", xticks=positions)
    axes.set_xticklabels([split.name for split in splits])
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(y=0.15)
    drawing.legend(loc="outside lower left", ncols=2)
    return drawing


@pictures.in_style
def draw_patches(images: np.ndarray, labels: np.ndarray) -> figure.Figure:
    """Draws a grid of patches, each with its label and its centre.

    Args:
        images: uint8 [num_patches, 96, 96, 3].
        labels: int [num_patches], 0 or 1.
    """
    rows = max(1, -(-len(images) // _COLUMNS))
    drawing = pictures.new_figure(_COLUMNS * 1.7, rows * 1.9)
    grid = drawing.subplots(rows, _COLUMNS, squeeze=False).ravel()
    corner, side = (schema.CENTER_START - 0.5,) * 2, schema.CENTER_SIZE
    for axes in grid:
        axes.axis("off")
    for axes, image, label in zip(grid, images, labels, strict=False):
        axes.imshow(image)
        axes.set_title(schema.CLASS_NAMES[label], color=CLASS_COLORS[label])
        centre = patches.Rectangle(
            corner, side, side, fill=False, edgecolor="#ffe600", linewidth=1.2
        )
        axes.add_patch(centre)
    return drawing


@pictures.in_style
def draw_roc(
    label: np.ndarray, logit: np.ndarray, band: Sequence[np.ndarray] = ()
) -> figure.Figure:
    """Draws the ROC curve; a band is its grid, and what it goes from and to."""
    x, y, _ = sklearn_metrics.roc_curve(label, logit)
    drawing, axes = _draw_square("False positive rate", "True positive rate")
    name = f"AUC {metrics.auc(label, logit):.4f}"
    axes.plot(*curves.thin(x, y), label=name)
    if len(band):
        axes.fill_between(*band, alpha=0.2, linewidth=0)
    axes.plot([0, 1], [0, 1], ":", color=pictures.GREY, label="chance")
    axes.legend(loc="lower right")
    return drawing


@pictures.in_style
def draw_precision_recall(
    label: np.ndarray, logit: np.ndarray, band: Sequence[np.ndarray]
) -> figure.Figure:
    """Draws precision by recall; a band is as that of `draw_roc`."""
    y, x, _ = sklearn_metrics.precision_recall_curve(label, logit)
    drawing, axes = _draw_square("Recall", "Precision")
    axes.plot(*curves.thin(x[::-1], y[::-1]), label="precision")
    axes.fill_between(*band, alpha=0.2, linewidth=0)
    axes.axhline(np.mean(label), ls=":", color=pictures.GREY, label="chance")
    axes.legend(loc="lower left")
    return drawing


@pictures.in_style
def draw_reliability(
    label: np.ndarray, probabilities: Mapping[str, np.ndarray]
) -> figure.Figure:
    """Draws the share of label 1 by probability, for probabilities by name."""
    drawing, axes = _draw_square("Probability of tumor", "Share of tumor")
    axes.plot([0, 1], [0, 1], ":", color=pictures.GREY)
    for name, probability in probabilities.items():
        ece = f"{name}: ECE {metrics.ece(label, probability):.3f}"
        points = curves.compute_reliability(label, probability)
        axes.plot(*points, marker="o", markersize=4, label=ece)
    axes.legend(loc="upper left")
    return drawing


@pictures.in_style
def draw_score_histogram(
    label: np.ndarray, probability: np.ndarray
) -> figure.Figure:
    """Draws how many patches of either label have which probability."""
    drawing, axes = _draw_square("Probability of tumor", "Patches")
    axes.set_ylim(auto=True)
    style = {"alpha": 0.5, "histtype": "stepfilled", "range": (0, 1)}
    for one, name in enumerate(schema.CLASS_NAMES):
        own = probability[label == one]
        axes.hist(own, 40, label=name, color=CLASS_COLORS[one], **style)
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    return drawing


@pictures.in_style
def draw_stain(
    density: np.ndarray, group: np.ndarray, unit: str
) -> figure.Figure:
    """Draws median optical density by group, and from 10% to 90% of patches.

    Args:
        density: float [num_patches, 3], of red, green and blue.
        group: str [num_patches], such as the split of each.
        unit: What a group is.
    """
    names = np.unique(group)
    drawing = pictures.new_figure(4, 1.4 + 0.25 * len(names))
    axes = drawing.subplots()
    parts = [
        np.quantile(density[group == n], (0.1, 0.5, 0.9), 0) for n in names
    ]
    low, middle, high = np.stack(parts, 1)
    for channel, (name, color) in enumerate(_CHANNELS.items()):
        place = np.arange(len(names)) + 0.2 * (channel - 1)
        axes.hlines(place, low[:, channel], high[:, channel], colors=color)
        axes.plot(middle[:, channel], place, "o", ms=3, c=color, label=name)
    axes.set(title=f"Stain by {unit}", xlabel="Optical density of a patch")
    axes.set_yticks(np.arange(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    drawing.legend(loc="outside lower left", ncols=3)
    return drawing


@pictures.in_style
def draw_stress(table: pandas.DataFrame) -> figure.Figure:
    """Draws the AUC by the strength of each shift.

    Args:
        table: `shift`, `strength` and `auc`; the first row of unchanged patches.
    """
    unchanged, shifted = table["auc"][0], table[1:]
    names = shifted["shift"].unique()
    drawing = pictures.new_figure(1 + 3 * len(names), 2.8)
    grid = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        part = shifted[shifted["shift"] == name]
        axes.plot(part["strength"], part["auc"], marker=".")
        axes.axhline(unchanged, color=pictures.GREY, ls=":")
        axes.set(title=name, xlabel="Strength")
    grid[0].set(ylabel="AUC (dotted: unchanged)")
    return drawing


@pictures.in_style
def draw_confusion(scores: metrics.Scores) -> figure.Figure:
    """Draws the confusion matrix of scores."""
    matrix = np.array(scores["confusion_matrix"])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    drawing = pictures.new_figure(4.2, 3.8)
    axes = drawing.subplots()
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.grid(False)
    for (true, predicted), count in np.ndenumerate(matrix):
        part = share[true, predicted]
        color = "white" if part > 0.5 else "black"
        text = f"{count:,}\n{part:.1%}"
        axes.text(predicted, true, text, ha="center", va="center", color=color)
    axes.set(title=f"Confusion at threshold {scores['threshold']:.6g}")
    axes.set(xlabel="Predicted", ylabel="True", xticks=[0, 1], yticks=[0, 1])
    axes.set_xticklabels(schema.CLASS_NAMES)
    axes.set_yticklabels(schema.CLASS_NAMES, rotation=90, va="center")
    return drawing


def _draw_square(xlabel: str, ylabel: str) -> tuple[figure.Figure, Any]:
    drawing = pictures.new_figure(4, 3.6)
    axes = drawing.subplots()
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return drawing, axes
