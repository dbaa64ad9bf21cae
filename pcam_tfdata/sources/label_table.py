"""Tables of (id, label), (id, slide) or ids alone, ten million rows of them.

Rows become columns of NumPy. An id is a plain file name; one of 40 hex digits
is the same in capitals, and comes back in lower case. What is wrong with a row
is a fault that names its line, and the rows of a name are left out altogether
where one of them has no usable value or two of them contradict each other.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from pcam_tfdata import faults, name_columns, schema
from pcam_tfdata.sources import keyed_rows, plain_names

_LABEL = re.compile(r"([01])(\.0*)?")


@dataclasses.dataclass(frozen=True)
class LabelTable:
    """Patches that can be used, in the order of their table, and the others.

    Attributes:
        names: S [num_patches], ids as UTF-8, each once.
        labels: int8 [num_patches], 0 or 1; -1 if only ids were read.
        bad_names: S, sorted, each once: names of which a row cannot be used;
            none is in `names`. Their files are not files without a row.
        faults: What is wrong with rows, by line: at most 1,000 of a kind, and a
            fault without a name for each kind that has more.
        num_faults: How many there are, listed or not.
    """

    names: np.ndarray
    labels: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]
    num_faults: int


@dataclasses.dataclass(frozen=True)
class SlideTable:
    """The slide of each patch, in the order of their table.

    Attributes:
        names: S [num_patches], ids as UTF-8, each once.
        slides: int32 [num_patches], the place of each patch's slide in
            `slide_names`.
        slide_names: S [num_slides], sorted; no slide is without a row.
        bad_names: As in `LabelTable`.
        faults: As in `LabelTable`.
        num_faults: As in `LabelTable`.
    """

    names: np.ndarray
    slides: np.ndarray
    slide_names: np.ndarray
    bad_names: np.ndarray
    faults: list[faults.Fault]
    num_faults: int


def read_labels(path: str) -> LabelTable:
    """Reads the columns `id` and `label` of a CSV file.

    A label is 0 or 1, with a point and zeros behind it or without. A row that
    says the same again is a fault, and the first of them is used.

    Args:
        path: See `csv_blocks.read_table`. Columns may have any order and case,
            fields any spaces around them; other columns are passed over.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no table, or a column is missing.
    """
    column = keyed_rows.Column(
        "label", ("label",), "0 or 1", _parse_labels, str
    )
    rows, bad_names, log = keyed_rows.read(path, column)
    return LabelTable(
        names=rows.names,
        labels=rows.values.astype(np.int8),
        bad_names=bad_names,
        faults=log.list_all(),
        num_faults=log.num_faults,
    )


def read_names(path: str) -> LabelTable:
    """Reads the column `id` of a CSV file; otherwise as `read_labels`."""
    column = keyed_rows.Column("", (), "", _parse_nothing, str)
    rows, bad_names, log = keyed_rows.read(path, column)
    return LabelTable(
        names=rows.names,
        labels=np.full(len(rows.names), schema.UNLABELED, np.int8),
        bad_names=bad_names,
        faults=log.list_all(),
        num_faults=log.num_faults,
    )


def read_slides(path: str) -> SlideTable:
    """Reads the columns `id` and `wsi`, else `slide`, of a CSV file.

    A row that says the same again is no fault here: what matters is that a
    patch has one slide. Otherwise as `read_labels`.
    """
    numbers = _SlideNumbers()
    column = keyed_rows.Column(
        "slide",
        ("wsi", "slide"),  # The community's patch_id_wsi.csv says `wsi`.
        "a plain name",
        numbers.parse,
        numbers.show,
        may_repeat=True,
    )
    rows, bad_names, log = keyed_rows.read(path, column)
    used, slides = np.unique(rows.values, return_inverse=True)
    slide_names = numbers.select(used)
    order = np.argsort(slide_names)
    return SlideTable(
        names=rows.names,
        slides=np.argsort(order).astype(np.int32)[slides],
        slide_names=slide_names[order],
        bad_names=bad_names,
        faults=log.list_all(),
        num_faults=log.num_faults,
    )


def _parse_labels(texts: Sequence[str]) -> np.ndarray:
    values = {text: _parse_label(text) for text in set(texts)}
    return np.array([values[text] for text in texts], np.int8)


def _parse_label(text: str) -> int:
    match = _LABEL.fullmatch(text)
    return int(match[1]) if match else keyed_rows.INVALID


def _parse_nothing(texts: Sequence[str]) -> np.ndarray:
    return np.zeros(len(texts), np.int8)


class _SlideNumbers:
    """Slides, numbered as they come."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def parse(self, texts: Sequence[str]) -> np.ndarray:
        known = self._numbers
        new = [text for text in dict.fromkeys(texts) if text not in known]
        unfit = set(plain_names.find_unfit(new))
        for place, text in enumerate(new):
            if place not in unfit:
                known[text] = len(known)
        return np.array(
            [known.get(text, keyed_rows.INVALID) for text in texts], np.int32
        )

    def show(self, number: int) -> str:
        return list(self._numbers)[number]

    def select(self, numbers: np.ndarray) -> np.ndarray:
        return name_columns.to_array(list(self._numbers))[numbers]
