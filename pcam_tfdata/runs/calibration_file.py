"""The temperatures of a run's best model, in its `calibration.json`.

One for each way to view a patch (`choices.TTA`), since the mean logit of several
views is less sure than that of one. A logit divided by it is calibrated.
"""

import contextlib
import json
import os

from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import files


def write(
    run_dir: str, tta: str, model_sha256: str, temperature: float
) -> None:
    """Writes the temperature of a network and a way to view patches.

    Those of other ways stay where they are of the same network.
    """
    kept = {}
    with contextlib.suppress(ValueError):  # A damaged file is replaced.
        kept = _read(run_dir, model_sha256)
    content = {
        "model_sha256": model_sha256,
        "temperatures": kept | {tta: temperature},
    }
    files.write_json(os.path.join(run_dir, run_folder.CALIBRATION), content)


def read(run_dir: str, tta: str, model_sha256: str) -> float | None:
    """Returns the temperature of a network and a way to view patches, if any.

    Raises:
        ValueError: the file is damaged.
    """
    return _read(run_dir, model_sha256).get(tta)


def _read(run_dir: str, model_sha256: str) -> dict[str, float]:
    """Returns a network's temperatures by the way to view patches."""
    path = os.path.join(run_dir, run_folder.CALIBRATION)
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        found = content["temperatures"]
        if not all(0 < value < float("inf") for value in found.values()):
            raise ValueError("one that is not above 0")
        return found if content["model_sha256"] == model_sha256 else {}
    except FileNotFoundError:
        return {}
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: found no temperatures ({type(error).__name__}: {error}),"
            " expected the JSON that `pcam train` and `pcam evaluate` write."
            " Run pcam evaluate on the run's validation splits."
        ) from error
