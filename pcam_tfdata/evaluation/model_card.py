"""The card of a run's best model: its data, scores and limits, as Markdown.

Made of the files of the run folder alone. Figures of an earlier network are left
out; what is not there is "not measured". The head is YAML that Hugging Face reads.
"""

import csv
import os
import pathlib
import zipfile
from typing import Any

import jinja2

import pcam_tfdata
from pcam_tfdata.evaluation import score_page
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import (
    calibration_file,
    environment_file,
    reading,
    run_folder,
)
from pcam_tfdata.system import files


def write(run_dir: str) -> None:
    """Writes the card of a run that has a best model."""
    run = reading.read_run(run_dir, "")
    own = run.evaluations.pop("", {})
    model_path = run_folder.find_model(run_dir)
    sha256 = manifest.hash_file(model_path)
    starts = environment_file.read_starts(run_dir)
    starts += [s for start in starts for s in start.get("member_starts", ())]
    stress = pathlib.Path(run_dir, run_folder.STRESS)
    rows = stress.read_text().splitlines() if own and stress.is_file() else ()
    with zipfile.ZipFile(model_path) as archive:
        config = archive.read("config.json").decode()
    loader = jinja2.PackageLoader(__package__)
    environment = jinja2.Environment(
        trim_blocks=True, loader=loader, undefined=jinja2.ChainableUndefined
    )
    environment.filters["figure"] = _format
    card = environment.get_template("model_card.md.j2").render(
        run=run.columns,
        flags=run.flags,
        own=own,
        others=run.evaluations.values(),
        stress=list(csv.DictReader(rows)),
        starts=starts,
        titles=score_page.TITLES,
        calibration=calibration_file.read(run_dir, "none", sha256)
        or calibration_file.Calibration(),
        has_layers=pcam_tfdata.__name__ in config,
        model_sha256=sha256,
    )
    files.write_text(os.path.join(run_dir, run_folder.MODEL_CARD), f"{card}\n")


def _format(value: Any) -> str:
    """Returns a figure, an interval or a word as the card shows it."""
    if value is None or isinstance(value, jinja2.Undefined):
        return "not measured"
    if isinstance(value, (list, tuple)):
        return " to ".join(map(_format, value))
    kind = {float: ".4f", int: ","}.get(type(value), "")
    return format(value, kind)
