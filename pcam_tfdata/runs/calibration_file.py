"""The temperatures of a run's best model, in its `calibration.json`.

One for each way to view a patch (`choices.TTA`), since the mean logit of several
views is less sure than that of one.
"""

import contextlib
import dataclasses
import json
import os

from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import files


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A temperature, and what it was fitted on.

    Attributes:
        temperature: A logit divided by it is calibrated; above 0.
        splits: Splits of the patches.
        model_sha256: Of the network's file.
    """

    temperature: float
    splits: list[str]
    model_sha256: str


def write(run_dir: str, tta: str, calibration: Calibration) -> None:
    """Writes the temperature of a way to view patches.

    Those of other ways stay where they are of the same network.
    """
    path = os.path.join(run_dir, run_folder.CALIBRATION)
    kept: dict[str, Calibration] = {}
    with contextlib.suppress(ValueError):  # A damaged file is replaced.
        kept = _read(path)
    content = {
        name: dataclasses.asdict(other)
        for name, other in (kept | {tta: calibration}).items()
        if other.model_sha256 == calibration.model_sha256
    }
    files.write_json(path, content)


def read(run_dir: str, tta: str, model_sha256: str) -> Calibration | None:
    """Returns the temperature of a network and a way to view patches, if any.

    Raises:
        ValueError: the file is damaged.
    """
    path = os.path.join(run_dir, run_folder.CALIBRATION)
    calibration = _read(path).get(tta)
    if calibration and calibration.model_sha256 == model_sha256:
        return calibration
    return None


def _read(path: str) -> dict[str, Calibration]:
    """Returns temperatures by the way to view patches; none without a file."""
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        found = {name: Calibration(**row) for name, row in content.items()}
        if not all(
            0 < row.temperature < float("inf") for row in found.values()
        ):
            raise ValueError("a temperature that is not above 0")
        return found
    except FileNotFoundError:
        return {}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: found no temperatures ({type(error).__name__}: {error}),"
            " expected the JSON that `pcam train` and `pcam evaluate` write."
            " Run pcam evaluate on the run's validation splits."
        ) from error
