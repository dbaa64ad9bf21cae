"""One style for all pictures, and how they are written: as PNG and as SVG.

Figures are Matplotlib's objects, drawn without pyplot and its backend: those of a
notebook stay as they are.
"""

import html
import io
import os
import re
from typing import Any

import matplotlib
from matplotlib import figure, rcsetup

from pcam_tfdata.system import files

# Okabe & Ito 2008: colours that readers of any colour vision tell apart.
BLUE, VERMILLION, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#808080"
INK = "#1c1c1e"  # Of text, axes and grid; no other colour is the same.
_STYLE: dict[str, Any] = {
    "font.size": 9,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "axes.prop_cycle": rcsetup.cycler(color=[BLUE, VERMILLION, GREEN]),
    "grid.alpha": 0.15,
    "image.interpolation": "none",  # Pixels as they are.
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "pcam_tfdata",  # The same picture has the same bytes.
    "text.parse_math": False,  # Names may hold dollars, which are no formulas.
    **{f"{name}.color": INK for name in ("text", "grid", "xtick", "ytick")},
    **{f"axes.{name}color": INK for name in ("edge", "label")},
}
_FORMATS = ("png", "svg")
# What would be rules for the whole page, or needs no place there.
_OF_A_FILE = re.compile(r"^.*?(?=<svg)|<(style|metadata).*?</\1>", re.S)
_REFERENCE = re.compile(r'(?<= id=")|(?<=href="#)|(?<=url\(#)')
_SIZE = re.compile(r'width="[^"]*pt" height="[^"]*pt"')

# Decorates functions that draw.
in_style = matplotlib.rc_context(_STYLE)  # type: ignore[arg-type]


def new_figure(width: float, height: float) -> figure.Figure:
    """Returns an empty figure of a size in inches, which fits its parts in."""
    return figure.Figure(figsize=(width, height), layout="constrained")


def list_paths(path: str) -> list[str]:
    """Returns the paths of a picture as PNG, which is `path`, and as SVG."""
    return [f"{os.path.splitext(path)[0]}.{name}" for name in _FORMATS]


@in_style
def save(drawing: figure.Figure, path: str) -> None:
    """Writes a PNG and an SVG beside it, each whole or not at all."""
    for own, name in zip(list_paths(path), _FORMATS, strict=True):
        metadata = {"Date": None} if name == "svg" else None
        options: Any = {"dpi": 110, "facecolor": "w", "metadata": metadata}
        with files.open_whole(own, "wb") as file:
            drawing.savefig(file, format=name, **options)


@in_style
def to_svg(drawing: figure.Figure, name: str, description: str) -> str:
    """Returns a figure as an SVG element for an HTML page.

    Its text and axes have the colour of the text around it, also on a dark page.

    Args:
        drawing: The figure.
        name: Begins the ids in it; no other figure of the page has the same.
        description: What it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    drawing.savefig(buffer, format="svg", facecolor="none")
    text = _OF_A_FILE.sub("", buffer.getvalue()).replace(INK, "currentColor")
    label = f'role="img" aria-label="{html.escape(description)}"'
    return _SIZE.sub(lambda _: label, _REFERENCE.sub(f"{name}-", text), count=1)
