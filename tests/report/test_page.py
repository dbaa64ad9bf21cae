"""What a page says, and what of damaged files it does not break on."""

import html
import json
import pathlib
import re
import shutil
import subprocess
import sys

import conftest
import numpy as np
import pandas
import pytest
import reports

from pcam_tfdata.evaluation import calibration, metrics
from pcam_tfdata.records import records_folder
from pcam_tfdata.report import scored_run
from pcam_tfdata.runs import run_folder


def words(text: str) -> str:
    """Returns what a reader sees of a page, in one line."""
    text = re.sub(r"<(script|style|svg).*?</\1>", " ", text, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", text)).split())


@pytest.fixture
def run_dir(tmp_path, records_dir):
    return reports.write_run(tmp_path / "first", records_dir)


def test_page_says_what_was_trained_and_how_good_it_is(
    tmp_path, records_dir, run_dir
):
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir)
    said = words(text)
    assert "first (small_cnn) ranks tumor above normal patches" in said
    assert "[0.800, 1.000] on" in said
    assert "patches of fold0 from" in said
    assert "best of 2 epochs" in said
    assert "Only 2 slides" in said
    assert "model small_cnn" in said
    assert "keras 3.15.1" in said
    assert f"pcam train --flagfile={run_dir}/flags.txt" in said
    assert "What could not be read" not in said


def test_page_needs_nothing_else(tmp_path, records_dir, run_dir):
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir)
    assert "default-src 'none'" in text
    addresses = re.findall(r"""(?:src|href)=["']([^"']*)""", text)
    assert addresses
    assert all(a.startswith(("#", "data:image/jpeg")) for a in addresses)
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids)) > 100
    assert set(re.findall(r"url\(#([^)]*)\)", text)) <= set(ids)
    assert set(re.findall(r'href="#([^"]*)"', text)) <= set(ids)


def test_runs_stand_side_by_side(tmp_path, records_dir, run_dir):
    second = reports.write_run(tmp_path / "second", records_dir, noise=4.0)
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir, second)
    said = words(text)
    assert re.search(r"AUC, difference - -0\.\d{4} \[[-+0-9., ]+\]", said)
    assert "seed 1.0 4.0" in said
    assert said.index("AUC, difference") < said.index("Confusion matrix")


def test_folder_of_a_cross_validation_stands_for_its_folds(
    tmp_path, records_dir
):
    parent = tmp_path / "cv"
    parent.mkdir()
    reports.write_run(parent / "fold0", records_dir)
    (parent / run_folder.CROSS_VALIDATION).write_text("{}")
    records = records_folder.open_folder(records_dir)
    name = records.read_sidecar(["source_name"])["source_name"][3]
    suspects = pandas.DataFrame(
        {"row": [3], "id": [name], "probability": [0.9]}
    )
    suspects.to_csv(parent / run_folder.SUSPECTS, index=False)
    said = words(reports.write_page(tmp_path / "p.html", records_dir, parent))
    assert "fold0 (small_cnn) ranks tumor" in said
    assert said.count("Likely label errors") == 1
    assert "p 0.900" in said


def test_explanations_of_this_network_are_shown(tmp_path, records_dir, run_dir):
    facts = json.loads((run_dir / run_folder.METRICS_JSON).read_text())
    (run_dir / run_folder.EXPLANATIONS).mkdir()
    patch = conftest.make_clouds(1)[0]
    path = f"{run_folder.EXPLANATIONS}/0.png"
    from PIL import Image

    Image.fromarray(patch).save(run_dir / path)
    content = {
        "method": "gradcam", "sanity_correlation": 0.1,
        "center_share": {"positive": 0.3}, "pointing_game": None,
        "model_sha256": facts["model_sha256"],
        "manifest_sha256": facts["manifest_sha256"],
        "overlays": dict.fromkeys(map(str, range(60)), path),
    }  # fmt: skip
    file = run_dir / run_folder.EXPLANATIONS_JSON
    file.write_text(json.dumps(content))
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir)
    said = words(text)
    assert "by gradcam; each" in said
    assert "In the centre lies 30% of that in positive" in said
    assert "looks into the centre more than these" in said
    assert 'class="overlay"' in text
    file.write_text(json.dumps(content | {"model_sha256": "other"}))
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir)
    assert "explanations.json: of another model" in words(text)
    assert 'class="overlay"' not in text


NAMES = (
    run_folder.TIMING, run_folder.HISTORY, run_folder.ENVIRONMENT,
    run_folder.EXPLANATIONS_JSON, run_folder.STRESS, run_folder.FLAGS,
)  # fmt: skip


@pytest.mark.parametrize(
    "content", [b"[1, 2", b"\xff\x00,", b"a,b\n1,2\n", b"{}"]
)
def test_damaged_files_are_notes(tmp_path, records_dir, run_dir, content):
    for name in NAMES:
        (run_dir / name).write_bytes(content)
    (tmp_path / "audit.json").write_bytes(content)
    options = {"audit_dir": str(tmp_path)}
    said = words(
        reports.write_page(tmp_path / "p.html", records_dir, run_dir, **options)
    )
    for name in (*NAMES, f"{tmp_path}/audit.json"):
        owner = "records" if name.endswith("audit.json") else "first"
        assert f"{owner}: {name}: " in said
    assert "Whether patches leak between splits was not checked" in said


def test_missing_or_foreign_audit_is_a_note(tmp_path, records_dir, run_dir):
    options = {"audit_dir": str(tmp_path)}
    output = tmp_path / "p.html"
    said = words(reports.write_page(output, records_dir, run_dir, **options))
    assert "audit.json: not found: run pcam audit" in said
    foreign = {"folders": [{"manifest_sha256": "3" * 64}], "findings": []}
    (tmp_path / "audit.json").write_text(json.dumps(foreign))
    said = words(reports.write_page(output, records_dir, run_dir, **options))
    assert "audit.json: of other records: run pcam audit again" in said


def test_findings_of_the_audit_are_shown(tmp_path, records_dir, run_dir):
    audit_dir = tmp_path / "audit"
    conftest.run_pcam(
        "audit", f"--records_dir={records_dir}", f"--output_dir={audit_dir}"
    )
    audit = json.loads((audit_dir / "audit.json").read_text())
    text = reports.write_page(
        tmp_path / "p.html", records_dir, run_dir, audit_dir=str(audit_dir)
    )
    assert audit["findings"]
    for finding in audit["findings"]:
        assert finding["text"] in html.unescape(text)


def test_run_without_predictions_is_one_line(tmp_path, records_dir, run_dir):
    (run_dir / run_folder.PREDICTIONS).unlink()
    output = tmp_path / "p.html"
    result = conftest.run_pcam(
        "report", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--output={output}",
    )  # fmt: skip
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    call = f"pcam evaluate --records_dir={records_dir} --run_dir={run_dir}"
    assert line.endswith(call)
    assert not output.exists()


def test_predictions_of_other_records_are_refused(
    tmp_path, records_dir, run_dir
):
    facts = json.loads((run_dir / run_folder.METRICS_JSON).read_text())
    facts["manifest_sha256"] = "2" * 64
    (run_dir / run_folder.METRICS_JSON).write_text(json.dumps(facts))
    with pytest.raises(ValueError, match=r"other records.*pcam evaluate"):
        reports.write_page(tmp_path / "p.html", records_dir, run_dir)


def test_command_writes_the_page_without_tensorflow(
    tmp_path, records_dir, run_dir
):
    output = tmp_path / "p.html"
    code = (
        "import sys; from pcam_tfdata.cli import main\n"
        "try:\n    main.run(sys.argv[1:])\n"
        "finally:\n    assert not {'tensorflow', 'keras'} & {*sys.modules}\n"
        "    assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "report", f"--records_dir={records_dir}",
         f"--run_dir={run_dir}", f"--output={output}"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == f"{output}\n"
    assert output.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("name", ["all_positive", "one_logit", "one_epoch"])
def test_odd_runs_have_pages(tmp_path, records_dir, run_dir, name):
    if name == "one_epoch":
        history = run_dir / run_folder.HISTORY
        history.write_text("".join(history.open().readlines()[:2]))
        said = words(
            reports.write_page(tmp_path / "p.html", records_dir, run_dir)
        )
        assert "best of" not in said
        return
    table = pandas.read_csv(run_dir / run_folder.PREDICTIONS)
    if name == "all_positive":
        table["label"] = 1
    else:
        table["logit"] = 0.25
    table.to_csv(run_dir / run_folder.PREDICTIONS, index=False)
    facts = json.loads((run_dir / run_folder.METRICS_JSON).read_text())
    from pcam_tfdata.records import manifest

    path = str(run_dir / run_folder.PREDICTIONS)
    facts["predictions_sha256"] = manifest.hash_file(path)
    (run_dir / run_folder.METRICS_JSON).write_text(json.dumps(facts))
    said = words(reports.write_page(tmp_path / "p.html", records_dir, run_dir))
    expected = {
        "all_positive": "all have the same label",
        "one_logit": "only poorly: AUC 0.500",
    }
    assert expected[name] in said


def test_stale_scores_are_told(tmp_path, records_dir, run_dir):
    (run_dir / run_folder.BEST_MODEL).write_text("a later network")
    said = words(reports.write_page(tmp_path / "p.html", records_dir, run_dir))
    assert "scores are of an earlier network" in said


def test_warnings_of_the_evaluation_stand_first(tmp_path, records_dir):
    warnings = ["the network was trained on fold0.", "found a dead network."]
    run_dir = reports.write_run(tmp_path / "a", records_dir, warnings=warnings)
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir)
    first, second = re.findall('<li class="warning">.*?</li>', text, re.S)[:2]
    assert "! warning: The network was trained on fold0." in words(first)
    assert "Found a dead network." in words(second)
    assert "No scored split was trained on" not in words(text)


def test_ece_is_of_calibration_by_other_patches(tmp_path, records_dir, run_dir):
    records = records_folder.open_folder(records_dir)
    run = scored_run.open_run("first", str(run_dir), records)
    _, _, label, logit, slide = run.predictions
    fair = metrics.to_probability(calibration.cross_fit(label, logit, slide))
    np.testing.assert_array_equal(run.fair, fair)
    ece = metrics.ece(label, fair)
    assert abs(ece - metrics.ece(label, run.probability)) > 1e-3
    said = words(reports.write_page(tmp_path / "p.html", records_dir, run_dir))
    ends = ", on patches that" if ece < 0.0495 else ", even calibrated"
    assert f"robabilities are off by {ece:.3f} in the mean (ECE){ends}" in said


@pytest.mark.parametrize(
    ("interval", "expected"),
    [
        ([0.1, 0.3], "AUC is below chance"),
        ([0.4, 0.9], "no better than chance"),
    ],
)
def test_auc_that_is_not_above_chance_is_told(
    tmp_path, records_dir, interval, expected
):
    intervals = {"auc": interval}
    run_dir = reports.write_run(tmp_path / "a", records_dir)
    path = run_dir / run_folder.METRICS_JSON
    facts = json.loads(path.read_text()) | {"intervals": intervals}
    path.write_text(json.dumps(facts))
    said = words(reports.write_page(tmp_path / "p.html", records_dir, run_dir))
    assert expected in said


@pytest.mark.parametrize(
    "facts", [{"splits": None}, {"intervals": 3}, {"temperature": "a"}], ids=str
)
def test_damaged_scores_are_one_line(tmp_path, records_dir, run_dir, facts):
    path = run_dir / run_folder.METRICS_JSON
    path.write_text(json.dumps(json.loads(path.read_text()) | facts))
    with pytest.raises(ValueError, match=r"metrics\.json: .*Run pcam evaluate"):
        reports.write_page(tmp_path / "p.html", records_dir, run_dir)


def test_records_have_a_page_without_a_run(tmp_path, records_dir):
    output, audit_dir = tmp_path / "p.html", tmp_path / "audit"
    other = shutil.copytree(records_dir, tmp_path / "other")
    where = f"--records_dir={records_dir}"
    result = conftest.run_program(
        "audit", where, f"--other_records_dir={other}",
        f"--output_dir={audit_dir}",
    )  # fmt: skip
    assert f"Next: pcam report {where} --audit_dir={audit_dir}" in result.stderr
    options = {"audit_dir": str(audit_dir)}
    said = words(reports.write_page(output, records_dir, **options))
    name = pathlib.Path(records_dir).name
    assert f"{name} holds" in said
    assert "The audit found leaks: equal pixels" in said
    assert "Patches drawn at random" in said
    assert "Scores" not in said and "Training" not in said
    # Pairs show a patch of either folder, until the other is gone.
    number = output.read_text().count("data:image/jpeg")
    shutil.rmtree(other)
    reports.write_page(output, records_dir, **options)
    assert output.read_text().count("data:image/jpeg") < number


def test_names_of_any_letters(tmp_path, records_dir):
    run_dir = reports.write_run(tmp_path / "a<b>'$x$", records_dir)
    text = reports.write_page(tmp_path / "p.html", records_dir, run_dir)
    assert "a<b>'$x$ (small_cnn) ranks" in words(text)
    assert np.all([name not in text for name in ("<b>'$x$", "a<b>")])
