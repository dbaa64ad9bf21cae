"""CSV files as tests look at them."""

import csv
from collections.abc import Sequence


def read_csv(path: str, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Returns some columns of a file, a tuple for each row."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        return [tuple(row[c] for c in columns) for row in csv.DictReader(file)]
