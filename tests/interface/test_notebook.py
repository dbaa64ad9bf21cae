"""notebooks/walkthrough.ipynb runs, and is stored with what it showed."""

import importlib.util
import os
import re
import time

import nbformat
import pandas
import pytest
from conftest import ROOT
from jupyter_client import manager

import pcam_tfdata as pcam
from pcam_tfdata.runs import run_folder

_SPEC = importlib.util.spec_from_file_location(
    "run_notebook", ROOT / "tools" / "run_notebook.py"
)
run_notebook = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(run_notebook)
NOTEBOOK = run_notebook.NOTEBOOK
MOST_BYTES = 1_000_000
# Where machines differ.
PLACES = re.compile(r"(?<![\w.:/])/(home|root|tmp|work|usr|opt|mnt|Users)/")


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def list_code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def list_outputs(
    notebook: nbformat.NotebookNode,
) -> list[nbformat.NotebookNode]:
    return [output for cell in list_code(notebook) for output in cell.outputs]


def test_it_is_stored_as_it_ran():
    assert NOTEBOOK.stat().st_size < MOST_BYTES
    notebook = read()
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in list_code(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    silent = [c.source for c in list_code(notebook)[1:] if not c.outputs]
    assert silent == []
    kinds = [kind for o in list_outputs(notebook) for kind in o.get("data", ())]
    assert kinds.count("image/jpeg") >= 5


def test_it_shows_no_errors_and_no_places_of_a_machine():
    notebook = read()
    for output in list_outputs(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr", output.text
    assert PLACES.search(NOTEBOOK.read_text()) is None
    assert PLACES.search("in /tmp/x") and not PLACES.search("walkthrough/tmp/")


MADE_UP = 'pathlib.Path("walkthrough/kaggle")'


@pytest.mark.long
@pytest.mark.parametrize("data", ["made up", "Kaggle's"])
def test_it_runs(tmp_path, monkeypatch, request, data):
    path = tmp_path / "walkthrough" / "kaggle"
    notebook = read()
    first = list_code(notebook)[0]
    if data != "made up":  # By changing one path.
        path = request.getfixturevalue("kaggle_sample")
        assert first.source.count(MADE_UP) == 1
        first.source = first.source.replace(
            MADE_UP, f"pathlib.Path({str(path)!r})"
        )
    before = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{before}")
    run_notebook.run(notebook, tmp_path)
    assert all(o.output_type != "error" for o in list_outputs(notebook))
    submission = pandas.read_csv(tmp_path / "walkthrough" / "submission.csv")
    sample = pandas.read_csv(path / "sample_submission.csv")
    assert submission["id"].tolist() == sample["id"].tolist()
    if data == "made up":
        truth = pandas.read_csv(path / "truth.csv")
        table = submission.merge(truth, on="id", suffixes=("", "_true"))
        means = table.groupby("label_true")["label"].mean()
        assert means[1] > means[0] + 0.3


CELL = """
import signal
import pcam_tfdata as pcam
before = signal.getsignal(signal.SIGTERM)
pcam.train({records!r}, run_dir={run!r}, model="small_cnn", batch_size=16,
           epochs=100_000)
"""


@pytest.mark.long
def test_interrupted_cell_goes_on(records_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    run_dir = tmp_path / "run"
    history = run_dir / run_folder.HISTORY
    kernel, client = manager.start_new_kernel(cwd=str(tmp_path))
    try:
        num_epochs = [0]
        for _ in range(2):
            client.execute(CELL.format(records=records_dir, run=str(run_dir)))
            while (
                not history.exists()
                or len(history.read_text().splitlines()) <= num_epochs[-1] + 1
            ):
                assert kernel.is_alive()
                time.sleep(0.05)
            kernel.interrupt_kernel()
            reply = client.get_shell_msg(timeout=120)["content"]
            assert reply["ename"] == "KeyboardInterrupt"
            num_epochs.append(len(pcam.load_run(run_dir).history))
        assert 0 < num_epochs[1] < num_epochs[2]
        after = "assert signal.getsignal(signal.SIGTERM) == before"
        reply = client.execute(after, reply=True, timeout=120)["content"]
        assert reply["status"] == "ok"
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
