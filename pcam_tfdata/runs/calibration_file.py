"""The calibrations of a run's best model, in its `calibration.json`.

One for each way to view a patch (`choices.TTA`), since the mean logit of several
views is less sure than that of one.
"""

import contextlib
import json
import math
import os
from typing import NamedTuple

import numpy as np

from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import files


class Calibration(NamedTuple):
    """What makes the logits of a network those of probabilities.

    Attributes:
        temperature: Divides them; above 0.
        intercept: Is added then.
    """

    temperature: float = 1.0
    intercept: float = 0.0

    def apply(self, logit: np.ndarray) -> np.ndarray:
        """Returns calibrated logits, float64, in the same order."""
        logit = np.asarray(logit, np.float64)
        return logit / self.temperature + self.intercept


def write(
    run_dir: str, tta: str, model_sha256: str, calibration: Calibration
) -> None:
    """Writes the calibration of a network and a way to view patches.

    Those of other ways stay where they are of the same network.
    """
    kept = {}
    with contextlib.suppress(ValueError):  # A damaged file is replaced.
        kept = _read(run_dir, model_sha256)
    kept[tta] = calibration
    content = {
        "model_sha256": model_sha256,
        "calibrations": {name: kept[name]._asdict() for name in kept},
    }
    files.write_json(os.path.join(run_dir, run_folder.CALIBRATION), content)


def read(run_dir: str, tta: str, model_sha256: str) -> Calibration | None:
    """Returns the calibration of a network and a way to view patches, if any.

    Raises:
        ValueError: the file is damaged.
    """
    return _read(run_dir, model_sha256).get(tta)


def _read(run_dir: str, model_sha256: str) -> dict[str, Calibration]:
    """Returns a network's calibrations by the way to view patches."""
    path = os.path.join(run_dir, run_folder.CALIBRATION)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        found = {
            name: Calibration(values["temperature"], values["intercept"])
            for name, values in content["calibrations"].items()
        }
        for temperature, intercept in found.values():
            if not (0 < temperature < math.inf and math.isfinite(intercept)):
                raise ValueError("numbers that calibrate nothing")
        return found if content["model_sha256"] == model_sha256 else {}
    except FileNotFoundError:
        return {}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: found no calibration ({type(error).__name__}: {error}),"
            " expected the JSON that `pcam train` and `pcam evaluate` write."
            " Run pcam evaluate on the run's validation splits."
        ) from error
