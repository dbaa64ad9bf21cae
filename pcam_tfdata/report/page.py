"""The page: all sections put into its template, and written whole."""

import base64
import hashlib
import itertools
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from pcam_tfdata import schema
from pcam_tfdata.records import records_folder
from pcam_tfdata.report import checks, patches, scored_run, sections
from pcam_tfdata.runs import leaderboard, reading, run_folder
from pcam_tfdata.system import files, pictures


def write(
    output: str,
    *,
    records_dir: str,
    run_dirs: Sequence[str] = (),
    splits: Sequence[str] = (),
    audit_dir: str = "",
) -> None:
    """Writes a page about records and runs on them, whole or not at all.

    Args:
        output: Its file.
        records_dir: The records.
        run_dirs: Folders of runs, or of cross-validations, that `pcam evaluate`
            scored on them.
        splits: Which scores; none for those of the validation of each run.
        audit_dir: Where `pcam audit` wrote what it found; "" for nowhere.

    Raises:
        FileNotFoundError, ValueError: records, runs or predictions are not there
            or damaged. What else is damaged is a note on the page.
    """
    records = records_folder.open_folder(records_dir)
    runs = [
        scored_run.open_run(name, folder, records, splits)
        for name, folder in scored_run.name_folders(run_dirs).items()
    ]
    trainings = [run.training for run in runs]
    noted = [reading.Run({"run": "records"}), *trainings]
    cards = patches.Cards(records)
    audit = _read_audit(audit_dir, records, cards, noted[0])
    audited = checks.judge_audit(audit)
    checks_csv = _read_template("checks.csv")
    frame, shown = leaderboard.make_table(trainings)
    content = {
        "checks": checks.list_checks(audited, checks_csv),
        "runs": [
            _describe_run(run)
            | {
                "checks": checks.list_checks(
                    checks.judge_scores(run) | audited, checks_csv
                ),
                "explained": (explained := _read_explanations(run)),
                "cards": cards.choose(run, explained, len(runs)),
            }
            for run in runs
        ],
        "data": sections.describe_data(records, cards, audit),
        "suspects": cards.find_suspects(runs[0]) if runs else [],
        "differences": checks.compare(runs) if len(runs) > 1 else [],
        "differing": [[name, *frame[name]] for name in shown[1:]],
        "notes": dict.fromkeys(
            (t.columns["run"], note) for t in noted for note in t.notes
        ),
    }
    text = _render(content)
    # Names of files need not be UTF-8.
    with files.open_whole(output, errors="backslashreplace") as file:
        file.write(text)


def _describe_run(run: scored_run.ScoredRun) -> dict[str, Any]:
    """Returns the sections of a run that are of itself alone."""
    return {
        "name": run.training.columns["run"],
        "verdict": checks.describe_scores(run),
        "scores": sections.describe_scores(run),
        "training": sections.describe_training(run),
    }


def _render(content: dict[str, Any]) -> str:
    """Returns the page of what its sections hold."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    numbers = itertools.count()
    environment.filters["number"] = _format
    environment.filters["percent"] = lambda share: (
        f"{share:.0%}" if isinstance(share, float) else "-"
    )
    environment.filters["svg"] = lambda picture: markupsafe.Markup(
        pictures.to_svg(picture[0], f"f{next(numbers)}", picture[1])
    )
    script = _read_template("script.js")
    digest = hashlib.sha256(script.encode()).digest()
    names = map(str.lower, schema.CLASS_NAMES)
    return environment.get_template("page.html.j2").render(
        style=markupsafe.Markup(_read_template("style.css")),
        script=markupsafe.Markup(script),
        script_sha256=base64.b64encode(digest).decode(),
        share=lambda part, whole: f"{part / whole:.4f}" if whole else "-",
        class_names={str(label): name for label, name in enumerate(names)},
        **content,
    )


def _read_template(name: str) -> str:
    path = pathlib.Path(__file__).with_name("templates") / name
    return path.read_text(encoding="utf-8")


def _format(value: Any) -> Any:
    """Returns a number with separators of thousands, "-" for none, or a text."""
    if value is None or value != value:
        return "-"
    if isinstance(value, float):
        digits = ",.1f" if abs(value) >= 10 else ".4f"
        return f"{value:{digits if abs(value) >= 0.001 else '.3g'}}"
    return f"{value:,}" if type(value) is int else value


def _read_explanations(run: scored_run.ScoredRun) -> dict[str, Any]:
    """Returns `explanations.json`, where it is of these predictions; or nothing."""
    name, facts = run_folder.EXPLANATIONS_JSON, run.predictions.facts
    with reading.noted(run.training, run.folder, name) as path:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        for key in ("model_sha256", "manifest_sha256"):
            if content[key] != facts[key]:
                raise ValueError(f"of another {key.removesuffix('_sha256')}")
        for key in ("overlays", "center_share", "pointing_game"):
            content[key] = dict(content[key] or {})
        ", ".join(content["overlays"].values())  # All are text.
        return content
    return {}


def _read_audit(
    audit_dir: str,
    records: records_folder.RecordsFolder,
    cards: patches.Cards,
    notes: reading.Run,
) -> dict[str, Any] | None:
    """Returns what an audit of these records found, with cards, or notes why not."""
    if not audit_dir:
        return None
    with reading.noted(
        notes, "", os.path.join(audit_dir, "audit.json")
    ) as path:
        if not os.path.isfile(path):
            raise ValueError("not found: run pcam audit")
        with open(path, encoding="utf-8") as file:
            audit = json.load(file)
        if audit["folders"][0]["manifest_sha256"] != records.manifest_sha256:
            raise ValueError("of other records: run pcam audit again")
        for finding in audit["findings"]:
            # All are text, or there is a note.
            ", ".join((finding["title"], finding["gravity"], finding["text"]))
        sections.add_cards(audit, cards, notes)
        return audit
    return None
