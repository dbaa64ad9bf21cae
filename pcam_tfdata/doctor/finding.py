"""What a check comes to, and the problems that are known (`problems.csv`)."""

import csv
import dataclasses
import functools
import pathlib
import re

OK, WARNING, FAILURE, NOT_CHECKED = "ok", "warning", "failure", "not checked"


@dataclasses.dataclass(frozen=True)
class Finding:
    """What is there, what it means, and the command that mends it."""

    name: str
    state: str
    found: str
    meaning: str = ""
    remedy: str = ""

    def format(self) -> str:
        """Returns it as a line, and one more with what mends it."""
        found = self.found.rstrip(" .")
        line = f"{self.state:<13}{self.name}: {found}. {self.meaning}"
        remedy = f"\n{'':13}mend: {self.remedy}" if self.remedy else ""
        return line.strip() + remedy


def judge(
    name: str, found: str, key: str = "", state: str = FAILURE
) -> Finding:
    """Returns the problem of a key; without one, that all is well, or not known."""
    if not key:
        return Finding(name, state if state == NOT_CHECKED else OK, found)
    row = read_problems()[key]
    return Finding(name, state, found, row["meaning"], row["remedy"])


@functools.cache
def read_problems() -> dict[str, dict[str, str]]:
    """Returns pattern, meaning and remedy of each problem, by its key."""
    path = pathlib.Path(__file__).with_name("problems.csv")
    rows = csv.DictReader(path.read_text(encoding="utf-8").splitlines())
    return {row["key"]: row for row in rows}


def recognize(text: str, default: str = "") -> tuple[str, str]:
    """Returns the key of the first problem that a text tells of, and its line."""
    for key, row in read_problems().items():
        line = row["pattern"] and re.search(f".*({row['pattern']}).*", text)
        if line:
            return key, line[0].strip()
    return default, ""
