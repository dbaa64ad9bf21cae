"""Pictures of runs and records: curves, grids, matrices."""

from collections.abc import Sequence

import numpy as np
import pandas
from matplotlib import figure, patches, ticker
from sklearn import metrics as sklearn_metrics

from pcam_tfdata import schema
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.records import manifest
from pcam_tfdata.system import files

_TRAIN_COLOR = "#7a7a7a"
_VALIDATION_COLOR = "#b1307f"
_CLASS_COLORS = ("#4c72b0", "#b1307f")
_COLUMNS = 6  # Of patches.
_CURVES = (
    ("loss", "val_loss", "Loss (nats)"),
    ("accuracy", "val_accuracy", "Accuracy"),
    (None, "val_auc", "AUC"),
)
_CURVE_STYLES = (
    {"label": "train", "color": _TRAIN_COLOR, "marker": ".", "linewidth": 1.5},
    {"label": "validation", "color": _VALIDATION_COLOR, "marker": ".",
     "linewidth": 1.5},
)  # fmt: skip


def plot_history(history_csv: str, path: str) -> None:
    """Draws loss, accuracy and AUC by epoch from a run's history, as PNG."""
    history = pandas.read_csv(history_csv)
    drawing = figure.Figure(figsize=(12, 3.6), layout="constrained")
    for axes, (*columns, title) in zip(
        drawing.subplots(1, len(_CURVES)), _CURVES, strict=True
    ):
        for column, style in zip(columns, _CURVE_STYLES, strict=True):
            if column:
                axes.plot(history["epoch"], history[column], **style)
        axes.set(title=title, xlabel="Epoch")
        axes.xaxis.set_major_locator(ticker.MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
    _save(drawing, path)


def plot_label_histogram(content: manifest.Manifest, path: str) -> None:
    """Draws the patches per label and split of a records folder, as PNG."""
    splits = [split for split in content.splits if split.labeled]
    size = (3 + len(splits), 3.6)
    drawing = figure.Figure(figsize=size, layout="constrained")
    axes = drawing.subplots()
    positions, width = np.arange(len(splits)), 0.38
    for label, name in enumerate(schema.CLASS_NAMES):
        counts = [split.class_counts[str(label)] for split in splits]
        bars = axes.bar(
            positions + (label - 0.5) * width, counts, width,
            color=_CLASS_COLORS[label], label=f"{name} ({sum(counts):,})",
        )  # fmt: skip
        axes.bar_label(bars, fmt="{:,.0f}", fontsize=8)
    axes.set(title="Patches by label", xticks=positions)
    axes.set_xticklabels([split.name for split in splits])
    axes.margins(y=0.15)
    axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    axes.spines[["top", "right"]].set_visible(False)
    _save(drawing, path)


def plot_patches(images: np.ndarray, labels: np.ndarray, path: str) -> None:
    """Draws a grid of patches, each with its label and its centre, as PNG.

    Args:
        images: uint8 [num_patches, 96, 96, 3].
        labels: int [num_patches], 0 or 1.
        path: Where to.
    """
    rows = max(1, -(-len(images) // _COLUMNS))
    size = (_COLUMNS * 1.7, rows * 1.9)
    drawing = figure.Figure(figsize=size, layout="constrained")
    grid = drawing.subplots(rows, _COLUMNS, squeeze=False).ravel()
    corner, side = (schema.CENTER_START - 0.5,) * 2, schema.CENTER_SIZE
    for axes in grid:
        axes.axis("off")
    for axes, image, label in zip(grid, images, labels, strict=False):
        axes.imshow(image)
        color = _CLASS_COLORS[label]
        axes.set_title(schema.CLASS_NAMES[label], fontsize=9, color=color)
        centre = patches.Rectangle(
            corner, side, side, fill=False, edgecolor="#ffe600", linewidth=1.2
        )
        axes.add_patch(centre)
    _save(drawing, path)


def plot_roc(label: np.ndarray, logit: np.ndarray, path: str) -> None:
    """Draws the ROC curve of predictions with both labels, as PNG."""
    false_rate, true_rate, _ = sklearn_metrics.roc_curve(label, logit)
    area = sklearn_metrics.auc(false_rate, true_rate)
    drawing = figure.Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = drawing.subplots()
    axes.plot(
        false_rate, true_rate, color=_VALIDATION_COLOR, label=f"AUC {area:.4f}"
    )
    axes.plot([0, 1], [0, 1], color=_TRAIN_COLOR, linestyle=":", label="chance")
    axes.set(title="ROC", aspect="equal")
    axes.set(xlabel="False positive rate", ylabel="True positive rate")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="lower right")
    _save(drawing, path)


def plot_stress(
    rows: Sequence[tuple[str, float, float | None, float]], path: str
) -> None:
    """Draws the AUC by the strength of each shift, as PNG.

    Args:
        rows: Shift, strength, AUC and NLL; first those of unchanged patches.
        path: Where to.
    """
    table = pandas.DataFrame(rows, columns=["shift", "strength", "auc", "nll"])
    unchanged, shifted = table["auc"][0], table[1:]
    names = shifted["shift"].unique()
    size = (1 + 2.6 * len(names), 3.2)
    drawing = figure.Figure(figsize=size, layout="constrained")
    grid = drawing.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, names, strict=True):
        part = shifted[shifted["shift"] == name]
        axes.plot(
            part["strength"], part["auc"], color=_VALIDATION_COLOR, marker="."
        )
        axes.axhline(unchanged, color=_TRAIN_COLOR, linestyle=":")
        axes.set(title=name, xlabel="Strength")
        axes.grid(alpha=0.3)
    grid[0].set(ylabel="AUC (dotted: unchanged)")
    _save(drawing, path)


def plot_confusion(scores: metrics.Scores, path: str) -> None:
    """Draws the confusion matrix of scores, as PNG."""
    matrix = np.array(scores["confusion_matrix"])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    drawing = figure.Figure(figsize=(4.2, 3.8), layout="constrained")
    axes = drawing.subplots()
    axes.imshow(share, cmap="Purples", vmin=0, vmax=1)
    for (true, predicted), count in np.ndenumerate(matrix):
        part = share[true, predicted]
        color = "white" if part > 0.5 else "black"
        text = f"{count:,}\n{part:.1%}"
        axes.text(predicted, true, text, ha="center", va="center", color=color)
    axes.set(title=f"Confusion at threshold {scores['threshold']:.6g}")
    axes.set(xlabel="Predicted", ylabel="True", xticks=[0, 1], yticks=[0, 1])
    axes.set_xticklabels(schema.CLASS_NAMES)
    axes.set_yticklabels(schema.CLASS_NAMES, rotation=90, va="center")
    _save(drawing, path)


def _save(drawing: figure.Figure, path: str) -> None:
    """Writes a PNG whole or not at all."""
    with files.open_whole(path, "wb") as file:
        drawing.savefig(file, format="png", dpi=110)
