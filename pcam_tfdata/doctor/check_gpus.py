"""The driver, the GPUs, and what TensorFlow computes on."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

from pcam_tfdata.doctor import check_packages, finding, process, trials

QUERY = ("--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
# The least driver of a CUDA: NVIDIA's release notes, minor version compatibility.
_LEAST_DRIVER = {"12": (525, 60, 13), "13": (580, 65, 6)}
_BLACKWELL = (10, 0)
_NO_LIBCUDA = "Could not find cuda drivers on your machine"
_LIBRARY = r"load dynamic library '(lib(?:cu(?!da\.)|nccl|nvrtc|nvJit)\S+)'"


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What `nvidia-smi` with `QUERY` and `trials` said, and CUDA_VISIBLE_DEVICES."""

    driver: process.Answer | None  # None where there is no such program.
    training: process.Answer
    has_card: bool = False
    visible: str | None = None

    def __getitem__(self, fact: str) -> Any:
        """Returns what TensorFlow says of its `build` or its `gpus`, or None."""
        return self.training.trials.get(trials.TENSORFLOW, {}).get(fact)

    @property
    def cards(self) -> list[list[str]] | None:
        """Name, driver and capability of what the driver sees; None: not known."""
        if self.driver is None:
            return None if self.has_card else []
        lines = self.driver.output.strip().splitlines()
        rows = [line.rsplit(", ", 2) for line in lines]
        is_read = all(len(row) == 3 and _numbers(row[1]) for row in rows)
        return rows if rows and is_read and not self.driver.end else None


def check_driver(evidence: Evidence) -> Iterator[finding.Finding]:
    """Tells whether the driver answers, and is new enough."""
    cards, answer, state = evidence.cards, evidence.driver, finding.FAILURE
    cuda = (evidence["build"] or {}).get("cuda_version", "?")
    least = _LEAST_DRIVER.get(cuda.split(".")[0], ())
    if cards:
        text = f"{cards[0][1]}; CUDA {cuda} needs {'.'.join(map(str, least))}"
        key = "" if _numbers(cards[0][1]) >= least else "driver_old"
        if not least:
            key, state = "no_answer", finding.NOT_CHECKED
    elif answer is None:
        card = "an" if evidence.has_card else "no"
        text, state = f"no nvidia-smi, {card} NVIDIA card", finding.WARNING
        key = "no_driver" if evidence.has_card else ""
    else:
        said = " ".join((answer.output + answer.errors).split())[:200]
        text = f"nvidia-smi: {answer.end or 'no list of GPUs'}; {said!r}"
        key, line = finding.recognize(said, "no_answer")
        state = state if line or answer.end else finding.NOT_CHECKED
    yield finding.judge("driver", text, key, state)


def check_devices(evidence: Evidence) -> Iterator[finding.Finding]:
    """Tells whether TensorFlow sees the GPUs that the driver sees."""
    cards, gpus, visible = evidence.cards, evidence["gpus"], evidence.visible
    num_gpus, num_cards = len(gpus or ()), len(cards or gpus or ())
    text, key, state = f"TensorFlow sees {num_gpus}", "", finding.FAILURE
    text += f" of {num_cards}, CUDA_VISIBLE_DEVICES={visible}"
    if gpus is None or not num_cards:
        state = finding.NOT_CHECKED
        text = "there is none" if cards == [] else "not known which there are"
    elif visible is not None and not re.match(r"\d|GPU|MIG", visible):
        key, state = "hidden", finding.WARNING
    elif not gpus and not evidence["build"].get("is_cuda_build"):
        key = "cpu_build"
    elif not gpus or (num_gpus < num_cards and visible is None):
        errors = evidence.training.errors
        asked = check_packages.list_requirements("tensorflow", "and-cuda")
        closed = ", ".join(sorted(set(re.findall(_LIBRARY, errors))))
        lacking = ", ".join(check_packages.find_misfits(asked))
        text += f"; opens no {closed or '?'}; lacks {lacking or 'no package'}"
        key = "no_libcuda" if _NO_LIBCUDA in errors else "unseen"
        key = "no_library" if closed else finding.recognize(errors, key)[0]
    yield finding.judge("GPUs", text, key, state)


def check_architecture(evidence: Evidence) -> Iterator[finding.Finding]:
    """Tells whether TensorFlow holds code for the GPUs."""
    built = (evidence["build"] or {}).get("cuda_compute_capabilities", ())
    codes = re.findall(r"(sm|compute)_(\d+)(\d)", " ".join(built))
    step = evidence.training.trials.get(f"GPU:0 {trials.FLOAT32}", {})
    works = step.get("error") == ""
    for card, _, capability in evidence.cards or [["no GPU is known", "", ""]]:
        has, state = _numbers(capability), finding.FAILURE
        older = [(k, int(a)) for k, a, b in codes if (int(a), int(b)) <= has]
        key = "" if ("sm", *has[:1]) in older else "architecture"
        if has < _BLACKWELL and any(kind == "compute" for kind, _ in older):
            key = ""  # It is compiled at first use.
        if not has or not codes:
            key, state = "", finding.NOT_CHECKED
        named = f"{card} {capability}".strip()
        text = f"{named}; TensorFlow has {' '.join(built) or '?'}"
        state = finding.WARNING if key and works else state
        yield finding.judge("code for GPUs", text, key, state)


def check_steps(evidence: Evidence) -> Iterator[finding.Finding]:
    """Tells whether TensorFlow imports, trains on each device, sums over GPUs."""
    answer, gpus = evidence.training, evidence["gpus"] or ()
    yield answer.judge(trials.TENSORFLOW, "import")
    for name in trials.list_steps(gpus):
        # Training does without XLA where that does not work.
        is_left_out = name.endswith(trials.XLA)
        state = finding.WARNING if is_left_out else finding.FAILURE
        yield answer.judge(name, "step", state)
    yield answer.judge(trials.NCCL, "step")


def _numbers(version: str) -> tuple[int, ...]:
    is_version = re.fullmatch(r"\d+(\.\d+)*", version)
    return tuple(map(int, version.split("."))) if is_version else ()
