"""The demo fails where its network did not learn, and says so."""

import importlib.util
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
DEMO = ROOT / "tools" / "demo.py"


def load_demo():
    spec = importlib.util.spec_from_file_location("demo", DEMO)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("auc", [0.5, 0.1, 0.8999])
def test_a_network_that_fails_on_the_demos_patches_fails_it(auc):
    with pytest.raises(SystemExit) as ended:
        load_demo()._check_auc(auc)
    assert f"found AUC {auc:.4f} on fold0" in ended.value.code
    assert "expected at least 0.9" in ended.value.code


def test_a_network_that_learned_passes(capsys):
    load_demo()._check_auc(0.9)
    assert capsys.readouterr() == ("", "")


@pytest.mark.long
def test_the_demo_without_training_ends_with_a_line(kaggle_tree, tmp_path):
    for name, text in (
        ("tools/demo.py", DEMO.read_text()),
        ("configs/demo.flags", "--model=small_cnn\n--batch_size=32\n"
         "--epochs=1\n--learning_rate=0\n"),
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir()
        path.write_text(text)
    for data, code in (("", 1), (str(kaggle_tree), 0)):
        result = subprocess.run(
            [sys.executable, "tools/demo.py", f"--data={data}"],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip
        assert result.returncode == code, result.stderr
        line = result.stderr.splitlines()[-1]
        assert ("make demo: found AUC 0." in line) == bool(code)
        assert (tmp_path / "demo" / "submission.csv").is_file()
