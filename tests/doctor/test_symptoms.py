"""Recorded symptoms of real failures, and what the doctor makes of each."""

import json
import pathlib

import pytest

from pcam_tfdata.doctor import (
    check_gpus,
    check_packages,
    examine,
    finding,
    process,
    trials,
)

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "troubleshooting.md"
BUILD = {
    "cuda_version": "12.5.1",
    "cudnn_version": "9",
    "is_cuda_build": True,
    "cuda_compute_capabilities": [
        "sm_60", "sm_70", "sm_80", "sm_89", "compute_90",
    ],
}  # fmt: skip
A100 = "NVIDIA A100-SXM4-40GB, 550.90.07, 8.0\n"
PREFIX = "2026-01-05 16:06:44.996140: W tensorflow/core/common_runtime/gpu/"
ON_CPU, ON_GPU = f"CPU:0 {trials.FLOAT32}", f"GPU:0 {trials.FLOAT32}"


def answer_of(tried: dict, errors: str = "", end: str = "") -> process.Answer:
    """What a process says that tried these; None where a trial never ended."""
    lines = [
        json.dumps({"trial": name} | ({} if facts is None else facts))
        for name, facts in tried.items()
    ]
    return process.Answer(end, "\n".join(lines), errors)


def imported(gpus: int, **build) -> dict:
    names = [f"GPU:{number}" for number in range(gpus)]
    facts = {"text": "2.21.0", "build": BUILD | build, "gpus": names}
    return {trials.TENSORFLOW: {"error": ""} | facts}


def done(*names: str) -> dict:
    return {name: {"error": "", "text": "done in 5 ms"} for name in names}


def gather(smi=None, training=None, **facts) -> check_gpus.Evidence:
    if isinstance(smi, str):
        smi = process.Answer("", smi)
    return check_gpus.Evidence(
        smi, training or answer_of(imported(0) | done(ON_CPU)), **facts
    )


def judge_gpus(evidence: check_gpus.Evidence) -> dict[str, finding.Finding]:
    """What all checks of GPUs find, by name."""
    checks = (
        check_gpus.check_driver,
        check_gpus.check_devices,
        check_gpus.check_architecture,
        check_gpus.check_steps,
    )
    return {one.name: one for check in checks for one in check(evidence)}


def failed_step(error: str, errors: str = "", name: str = ON_GPU):
    step = {name: {"error": error}}
    training = answer_of(imported(1) | done(ON_CPU) | step, errors)
    return gather(A100, training), name


def of_driver(text: str, end: str = "exit status 9"):
    return gather(process.Answer(end, text)), "driver"


def unseen(errors: str, **facts):
    training = answer_of(imported(0) | done(ON_CPU), errors)
    return gather(A100, training, **facts), "GPUs"


SYMPTOMS = {
    "driver not loaded": (
        of_driver(
            "NVIDIA-SMI has failed because it couldn't communicate with the"
            " NVIDIA driver. Make sure that the latest NVIDIA driver is"
            " installed and running."
        ),
        finding.FAILURE,
        "sudo modprobe nvidia",
    ),
    "driver updated": (
        of_driver(
            "Failed to initialize NVML: Driver/library version mismatch\n"
            "NVML library version: 570.195",
            "exit status 18",
        ),
        finding.FAILURE,
        "sudo reboot",
    ),
    "container lost its GPUs": (
        of_driver("Failed to initialize NVML: Unknown Error"),
        finding.FAILURE,
        "docker restart CONTAINER",
    ),
    "container without GPUs": (
        of_driver("No devices were found", ""),
        finding.FAILURE,
        "docker run --gpus all ...",
    ),
    "driver without its library": (
        of_driver(
            "nvidia-smi: error while loading shared libraries: libnvidia-ml.so:"
            " cannot open shared object file",
            "exit status 127",
        ),
        finding.FAILURE,
        "sudo dmesg | grep NVRM",
    ),
    "driver hangs": (
        of_driver("", "no end within 10 s"),
        finding.FAILURE,
        "sudo dmesg | grep NVRM",
    ),
    "driver too old": (
        (gather("Tesla T4, 470.57.02, 7.5\n"), "driver"),
        finding.FAILURE,
        "sudo apt-get install nvidia-driver-580 && sudo reboot",
    ),
    "driver too old, says CUDA": (
        failed_step(
            "InternalError: cudaGetDevice() failed. Status: CUDA driver version"
            " is insufficient for CUDA runtime version"
        ),
        finding.FAILURE,
        "sudo apt-get install nvidia-driver-580 && sudo reboot",
    ),
    "no driver": (
        (gather(has_card=True), "driver"),
        finding.WARNING,
        "sudo apt-get install nvidia-driver-580 && sudo reboot",
    ),
    "libraries missing": (
        unseen(
            "I0000 00:00:1796077842.802119    7229 dso_loader.cc:144] Could not"
            " load dynamic library 'libcudnn.so.9'; dlerror: libcudnn.so.9:"
            " cannot open shared object file: No such file or directory\n"
            f"{PREFIX}gpu_device.cc:2343] Cannot dlopen some GPU libraries."
            " Please make sure the missing libraries mentioned above are"
            " installed properly if you would like to use GPU.\n"
            "Skipping registering GPU devices..."
        ),
        finding.FAILURE,
        "unset LD_LIBRARY_PATH && pip install -e '.[gpu]'",
    ),
    "libraries missing, not named": (
        unseen(
            f"{PREFIX}gpu_device.cc:2343] Cannot dlopen some GPU libraries.\n"
        ),
        finding.FAILURE,
        "unset LD_LIBRARY_PATH && pip install -e '.[gpu]'",
    ),
    "no device, says CUDA": (
        unseen(
            "E0000 00:00:1796077827.479945    7166 cuda_platform.cc:52] failed"
            " call to cuInit: INTERNAL: CUDA error: Failed call to cuInit:"
            " CUDA_ERROR_NO_DEVICE: no CUDA-capable device is detected"
        ),
        finding.FAILURE,
        "docker run --gpus all ...",
    ),
    "driver unready": (
        unseen(
            "E0000 00:00:1796077827.479945    7166 cuda_platform.cc:52] failed"
            " call to cuInit: INTERNAL: CUDA error: Failed call to cuInit:"
            " CUDA_ERROR_UNKNOWN: unknown error"
        ),
        finding.FAILURE,
        "sudo modprobe nvidia-uvm",
    ),
    "no libcuda": (
        unseen(
            "I0000 00:00:1796093854.197676   23436 cudart_stub.cc:31] Could not"
            " find cuda drivers on your machine, GPU will not be used."
        ),
        finding.FAILURE,
        "docker run --gpus all ...",
    ),
    "GPUs hidden": (
        unseen("", visible="-1"),
        finding.WARNING,
        "unset CUDA_VISIBLE_DEVICES",
    ),
    "not hidden, libraries missing": (
        unseen(f"{PREFIX}Cannot dlopen some GPU libraries.", visible="0"),
        finding.FAILURE,
        "unset LD_LIBRARY_PATH && pip install -e '.[gpu]'",
    ),
    "built for the CPU": (
        (
            gather(A100, answer_of(imported(0, is_cuda_build=False))),
            "GPUs",
        ),
        finding.FAILURE,
        "pip install --force-reinstall -e '.[gpu]'",
    ),
    "cuDNN too old": (
        failed_step(
            "FailedPreconditionError: DNN library initialization failed. Look at"
            " the errors above for more details. [Op:Conv2D]",
            "E0000 00:00:1738697930.202924    7665 cuda_dnn.cc:522] Loaded"
            " runtime CuDNN library: 9.1.0 but source was compiled with: 9.3.0."
            "  CuDNN library needs to have matching major version and equal or"
            " higher minor version.",
        ),
        finding.FAILURE,
        "unset LD_LIBRARY_PATH && pip install -e '.[gpu]'",
    ),
    "cuDNN incomplete": (
        failed_step(
            "crashed with SIGABRT",
            "Could not load library libcudnn_ops_infer.so.8. Error:"
            " libcudnn_ops_infer.so.8: cannot open shared object file: No such"
            " file or directory",
        ),
        finding.FAILURE,
        "unset LD_LIBRARY_PATH && pip install --force-reinstall"
        " nvidia-cudnn-cu12",
    ),
    "Blackwell": (
        failed_step(
            "InternalError: {{function_node __wrapped__Mul_device_/job:localhost"
            "/replica:0/task:0/device:GPU:0}} 'cuLaunchKernel(function, gridX,"
            " gridY, gridZ)' failed with 'CUDA_ERROR_INVALID_HANDLE' [Op:Mul]",
            "tf_gpu_runtime_wrappers.cc:40] 'cuModuleLoadData(&module, data)'"
            " failed with 'CUDA_ERROR_INVALID_PTX'",
        ),
        finding.FAILURE,
        "export CUDA_VISIBLE_DEVICES=-1",
    ),
    "no kernel": (
        failed_step(
            "InternalError: cudaGetErrorString: no kernel image is available for"
            " execution on the device"
        ),
        finding.FAILURE,
        "export CUDA_VISIBLE_DEVICES=-1",
    ),
    "no ptxas": (
        failed_step(
            "InternalError: libdevice not found at ./libdevice.10.bc"
            " [Op:__inference_step_68]",
            "Can't find libdevice directory ${CUDA_DIR}/nvvm/libdevice.\n"
            "Couldn't invoke ptxas --version",
            f"GPU:0 {trials.XLA}",
        ),
        finding.WARNING,
        "pip install --force-reinstall nvidia-cuda-nvcc-cu12",
    ),
    "GPU memory taken": (
        failed_step(
            "ResourceExhaustedError: OOM when allocating tensor with shape"
            "[64,96,96,3] and type float on /job:localhost/device:GPU:0"
        ),
        finding.FAILURE,
        "nvidia-smi --query-compute-apps=pid,used_memory --format=csv",
    ),
    "step on the GPU crashes": (
        failed_step("crashed with SIGSEGV"),
        finding.FAILURE,
        "export CUDA_VISIBLE_DEVICES=-1",
    ),
    "NCCL without shared memory": (
        (
            gather(
                2 * A100,
                answer_of(
                    imported(2)
                    | {
                        trials.NCCL: {
                            "error": "InternalError: NCCL: unhandled system"
                            " error. Set NCCL_DEBUG=WARN for detail."
                        }
                    },
                    "misc/shmutils.cc:132 NCCL WARN Error while creating shared"
                    " memory segment /dev/shm/nccl-WU88OE (size 9637888), error:"
                    " No space left on device (28)",
                ),
            ),
            trials.NCCL,
        ),
        finding.FAILURE,
        "docker run --shm-size=1g ...",
    ),
    "protobuf": (
        (
            gather(
                training=answer_of(
                    {
                        trials.TENSORFLOW: {
                            "error": "TypeError: Descriptors cannot be created"
                            " directly. If this call came from a _pb2.py file,"
                            " your generated code is out of date"
                        }
                    }
                )
            ),
            trials.TENSORFLOW,
        ),
        finding.FAILURE,
        "pip install -e .",
    ),
    "no AVX": (
        (
            gather(
                training=answer_of(
                    {trials.TENSORFLOW: None},
                    "The TensorFlow library was compiled to use AVX"
                    " instructions, but these aren't available on your machine.",
                    "crashed with SIGABRT",
                )
            ),
            trials.TENSORFLOW,
        ),
        finding.FAILURE,
        "grep -c avx /proc/cpuinfo",
    ),
    "illegal instruction": (
        (
            gather(
                training=answer_of(
                    {trials.TENSORFLOW: None}, end="crashed with SIGILL"
                )
            ),
            trials.TENSORFLOW,
        ),
        finding.FAILURE,
        "grep -c avx /proc/cpuinfo",
    ),
}


@pytest.mark.parametrize("symptom", SYMPTOMS)
def test_symptom_is_known_and_has_a_remedy(symptom):
    (evidence, name), state, remedy = SYMPTOMS[symptom]
    found = judge_gpus(evidence)[name]
    assert (found.state, found.remedy) == (state, remedy), found
    assert found.meaning


@pytest.mark.parametrize(
    ("error", "errors", "remedy"),
    [
        (
            "",
            "A module that was compiled using NumPy 1.x cannot be run in\n"
            "NumPy 2.4.6 as it may crash.",
            "pip install --force-reinstall -e .",
        ),
        (
            "ValueError: numpy.dtype size changed, may indicate binary"
            " incompatibility. Expected 96 from C header, got 88 from PyObject",
            "",
            "pip install --force-reinstall -e .",
        ),
        (
            "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.34'"
            " not found (required by pandas.so)",
            "",
            "ldd --version",
        ),
        ("crashed with SIGSEGV", "", "pip install --force-reinstall -e ."),
    ],
    ids=["old_numpy", "size_changed", "glibc", "crash"],
)
def test_broken_import_is_told(error, errors, remedy):
    tried = answer_of({"import of pandas": {"error": error}}, errors)
    (found,) = check_packages.check_imports(tried)
    assert found.state == (finding.FAILURE if error else finding.WARNING)
    assert found.remedy == remedy


@pytest.mark.parametrize(
    ("capability", "state"),
    [
        ("5.2", finding.FAILURE),
        ("7.5", finding.OK),
        ("9.0", finding.OK),
        ("10.0", finding.FAILURE),
        ("12.0", finding.FAILURE),
        ("[N/A]", finding.NOT_CHECKED),
    ],
)
def test_architecture_is_held_against_what_tensorflow_has(capability, state):
    smi = f"NVIDIA X, 570.1, {capability}\n"
    (found,) = check_gpus.check_architecture(gather(smi))
    assert found.state == state


def test_new_architecture_that_trains_is_only_warned_of():
    training = answer_of(imported(1) | done(ON_CPU, ON_GPU))
    evidence = gather("NVIDIA X, 570.1, 12.0\n", training)
    (found,) = check_gpus.check_architecture(evidence)
    assert found.state == finding.WARNING


def test_sound_gpu_is_ok():
    steps = trials.list_steps(["GPU:0"])
    found = judge_gpus(gather(A100, answer_of(imported(1) | done(*steps))))
    assert found.pop(trials.NCCL).state == finding.NOT_CHECKED
    assert {one.state for one in found.values()} == {finding.OK}


def test_machine_without_gpus_has_no_failure():
    found = judge_gpus(gather())
    assert found["driver"].state == finding.OK
    assert found["GPUs"].state == finding.NOT_CHECKED
    assert found["code for GPUs"].state == finding.NOT_CHECKED


@pytest.mark.parametrize("end", ["no end within 60 s", "exit status 1"])
def test_nothing_is_well_where_tensorflow_says_nothing(end):
    found = judge_gpus(gather(A100, process.Answer(end)))
    assert {one.state for one in found.values()} == {finding.NOT_CHECKED}


def test_words_of_a_driver_that_nobody_knows_are_not_all_clear():
    found = judge_gpus(gather("\x00\x7f hello\n"))
    assert found["driver"].state == finding.NOT_CHECKED
    assert found["GPUs"].state == finding.NOT_CHECKED


def test_devices_behind_a_crash_are_not_checked():
    tried = imported(2) | done(ON_CPU) | {ON_GPU: None}
    training = answer_of(tried, end="crashed with SIGSEGV")
    found = judge_gpus(gather(2 * A100, training))
    assert found[ON_GPU].state == finding.FAILURE
    assert found[f"GPU:1 {trials.FLOAT16}"].state == finding.NOT_CHECKED
    assert found[trials.NCCL].state == finding.NOT_CHECKED


def test_page_has_each_symptom_and_remedy():
    page = PAGE.read_text(encoding="utf-8")
    for key, row in finding.read_problems().items():
        assert row["meaning"] in page, key
        assert f"`{row['remedy']}`" in page.replace("\\|", "|"), key


def test_check_that_breaks_is_a_line():
    def check_nothing():
        yield finding.judge("first", "well")
        raise LookupError("no more")

    first, second = examine._guard(check_nothing)
    assert first.state == finding.OK
    assert second.state == finding.NOT_CHECKED
    assert "LookupError: no more" in second.found
