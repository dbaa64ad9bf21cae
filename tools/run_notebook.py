"""Runs notebooks/walkthrough.ipynb and stores what it shows.

    python tools/run_notebook.py

What it makes goes to notebooks/walkthrough/.
"""

import pathlib

import nbclient
import nbformat

NOTEBOOK = pathlib.Path(__file__).parents[1] / "notebooks" / "walkthrough.ipynb"
_CELL_SECONDS = 1800


def run(notebook: nbformat.NotebookNode, folder: pathlib.Path) -> None:
    """Runs all cells in a folder, and replaces their outputs.

    stderr is left out: it is what TensorFlow says of the machine.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell fails.
    """
    nbclient.NotebookClient(
        notebook,
        timeout=_CELL_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [
                output
                for output in cell.outputs
                if output.get("name") != "stderr"
            ]


if __name__ == "__main__":
    read = nbformat.read(NOTEBOOK, as_version=4)
    run(read, NOTEBOOK.parent)
    nbformat.write(read, NOTEBOOK)
