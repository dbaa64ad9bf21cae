"""Processes that crash, hang, print and fail, and what becomes of them."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from pcam_tfdata.doctor import check_packages, finding, process, trials


def write_program(folder: pathlib.Path, text: str) -> None:
    """Puts a shell script called nvidia-smi into a folder."""
    path = folder / "nvidia-smi"
    path.write_text(text)
    path.chmod(0o755)


def write_package(folder: pathlib.Path, name: str, code: str) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(code)


def run_doctor(*arguments, path="", python_path="", **variables):
    """Runs the command as a user does; returns its findings by name."""
    environment = os.environ | {
        "PATH": f"{path}:{os.environ['PATH']}",
        "PYTHONPATH": f"{python_path}:{ROOT}",
        **variables,
    }
    result = subprocess.run(
        [sys.executable, "-m", "pcam_tfdata", "doctor", "--json", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
    )
    found = [finding.Finding(**one) for one in json.loads(result.stdout)]
    is_bad = any(one.state == finding.FAILURE for one in found)
    assert (result.returncode, result.stderr) == (int(is_bad), "")
    return {one.name: one for one in found}


def ask(*command: str, seconds: float = 30.0) -> process.Answer:
    with process.start(*command) as wait:
        return wait(seconds)


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("echo well", ""),
        ("exit 3", "exit status 3"),
        ("kill -SEGV $$", "crashed with SIGSEGV"),
        ("exec nowhere", "exit status 127"),
    ],
    ids=["well", "fails", "crashes", "missing"],
)
def test_end_of_a_process_is_told(script, end):
    assert ask("sh", "-c", script).end == end


def test_process_that_hangs_is_killed_with_its_children(tmp_path):
    start = time.monotonic()
    script = f"sleep 1000 & echo $! > {tmp_path}/child; wait"
    answer = ask("sh", "-c", script, seconds=1.0)
    assert answer.end == "no end within 1 s"
    assert time.monotonic() - start < 100
    child = int((tmp_path / "child").read_text())
    state = pathlib.Path(f"/proc/{child}/stat")
    for _ in range(100):  # It is the kernel's to do.
        if not state.exists() or ") Z" in state.read_text():
            break
        time.sleep(0.1)
    assert not state.exists() or ") Z" in state.read_text()


def test_rubbish_is_read_as_text():
    answer = ask("sh", "-c", "printf '\\377\\000{\"a\\n[1]\\nnull\\n'")
    assert answer.end == ""
    assert answer.trials == {}


def ask_trials(seconds: float) -> process.Answer:
    with process.start(*process.TRIALS) as wait:
        return wait(seconds)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise ImportError('no _libs')", "ImportError: no _libs"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
        ("import os; os._exit(0)", "ended early"),
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import time; print(5, flush=True); time.sleep(999)", "no end within"),
    ],
    ids=["raises", "exits", "ends", "aborts", "hangs"],
)
def test_broken_package_is_named(tmp_path, monkeypatch, code, error):
    monkeypatch.syspath_prepend(tmp_path)
    write_package(tmp_path, "absl", code)  # The first that is imported.
    write_package(tmp_path, "tensorflow", "raise ImportError('not now')")
    answer = ask_trials(10.0 if "sleep" in code else 200.0)
    found = {one.name: one for one in check_packages.check_imports(answer)}
    broken = found["import of absl-py"]
    assert broken.state == finding.FAILURE
    assert broken.found.startswith(error)
    tensorflow = answer.judge(trials.TENSORFLOW, "import")
    is_alone = "Error" in error or "Exit" in error
    assert tensorflow.state == (
        finding.FAILURE if is_alone else finding.NOT_CHECKED
    )


@pytest.mark.parametrize("seconds", [0.1, 200.0])
def test_trials_that_do_not_begin_are_a_failure(tmp_path, monkeypatch, seconds):
    monkeypatch.syspath_prepend(tmp_path)
    code = "import time; time.sleep(5)" if seconds < 1 else "raise OSError('x')"
    write_package(tmp_path, "packaging", code)
    (found,) = check_packages.check_imports(ask_trials(seconds))
    assert found.state == finding.FAILURE
    assert ("no end" if seconds < 1 else "OSError: x") in found.found
    assert found.remedy


SMI = {
    "hangs": ("#!/bin/sh\nsleep 1000\n", finding.FAILURE, "no end within 5 s"),
    "fails": (
        "#!/bin/sh\necho NVIDIA-SMI has failed because it couldn\\'t communicate"
        " with the NVIDIA driver.\nexit 9\n",
        finding.FAILURE,
        "exit status 9",
    ),
    "rubbish": ("#!/bin/sh\nhead -c 99 /dev/zero\n", finding.NOT_CHECKED, "no"),
    "no program": ("\x7fELF\x00\n", finding.FAILURE, "exit status 12"),
}


@pytest.mark.parametrize("kind", SMI)
def test_driver_that_does_not_answer_is_no_all_clear(tmp_path, kind):
    script, state, text = SMI[kind]
    write_program(tmp_path, script)
    code = "import time; time.sleep(1)\nraise ImportError('not now')"
    write_package(tmp_path / "python", "tensorflow", code)
    found = run_doctor(
        "--timeout_seconds=5", path=tmp_path, python_path=tmp_path / "python"
    )
    assert found["driver"].state == state
    assert text in found["driver"].found
    assert found["driver"].remedy
    assert found["GPUs"].state == finding.NOT_CHECKED


@pytest.mark.tensorflow
def test_gpu_that_tensorflow_does_not_see_is_a_failure(tmp_path):
    line = "NVIDIA A100-SXM4-40GB, 550.90.07, 8.0"
    write_program(tmp_path, f"#!/bin/sh\necho '{line}'\n")
    found = run_doctor(path=tmp_path)
    assert found["driver"].state == finding.OK
    assert found["GPUs"].state == finding.FAILURE
    assert "TensorFlow sees 0 of 1" in found["GPUs"].found
    assert found["code for GPUs"].state == finding.OK
    assert found[trials.TENSORFLOW].state == finding.OK
    assert found[f"CPU:0 {trials.FLOAT32}"].state == finding.OK


@pytest.mark.tensorflow
def test_hidden_gpu_is_told(tmp_path):
    write_program(tmp_path, "#!/bin/sh\necho 'NVIDIA A100, 550.90.07, 8.0'\n")
    found = run_doctor(path=tmp_path, CUDA_VISIBLE_DEVICES="-1")
    assert found["GPUs"].state == finding.WARNING
    assert found["GPUs"].remedy == "unset CUDA_VISIBLE_DEVICES"


def test_signal_ends_doctor_and_what_it_asks(tmp_path):
    script = f"#!/bin/sh\necho $$ > {tmp_path}/smi\nexec sleep 1000\n"
    write_program(tmp_path, script)
    environment = os.environ | {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    doctor = subprocess.Popen(
        [sys.executable, "-m", "pcam_tfdata", "doctor"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    smi = tmp_path / "smi"
    while not smi.exists() or not smi.read_text():
        assert doctor.poll() is None
        time.sleep(0.1)
    doctor.send_signal(signal.SIGINT)
    _, errors = doctor.communicate(timeout=60)
    assert (doctor.returncode, errors) == (130, "pcam doctor: interrupted.\n")
    state = pathlib.Path(f"/proc/{smi.read_text().strip()}")
    assert not state.exists()
