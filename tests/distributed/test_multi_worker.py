"""Several workers, in processes and over sockets of their own, train as one."""

import contextlib
import dataclasses
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import keras
import loaded
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
import yaml

from pcam_tfdata.distribution import lost_workers, replicas, tf_config
from pcam_tfdata.evaluation import metrics
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import run_folder
from pcam_tfdata.training import configuration, steps

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
DEADLINE = 300  # TensorFlow takes long to start on a busy machine.
SAME = 1e-9  # Sums in another order, in float64: see test_steps.py.
NUM_STEPS = 20
BATCH_SIZE = 32
FLAGS = (
    f"--batch_size={BATCH_SIZE}", "--epochs=16", "--optimizer=sgd",
    "--learning_rate=0.01", "--augment=d4", "--steps_per_loop=1",
    "--keep_checkpoints=100",
    "--input=mmap",
)  # fmt: skip
MULTI_WORKER = ("--strategy=multi_worker", "--allow_cpu")


@dataclasses.dataclass
class Worker:
    """A process that trains; what it notes lies at `place`."""

    process: loaded.Process
    place: pathlib.Path

    def output(self) -> str:
        return pathlib.Path(f"{self.place}.log").read_text()

    def wait(self, seconds: float = DEADLINE) -> int:
        """Returns how it ended."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"after {seconds} s it still runs. {self.output()}")

    def last_line(self) -> str:
        assert "Traceback" not in self.output(), self.output()
        return self.output().splitlines()[-1]

    def images(self) -> np.ndarray:
        """Returns the hash of each patch of each step."""
        data = pathlib.Path(f"{self.place}.images").read_bytes()
        return np.frombuffer(data, "S20")

    def losses(self) -> list[float]:
        """Returns the loss of each step."""
        lines = pathlib.Path(f"{self.place}.losses").read_text().split()
        return list(map(float, lines))


@contextlib.contextmanager
def launched(place, environment, *flags) -> Iterator[Worker]:
    """Starts a process, which does not outlive this."""
    given = (str(place), environment, ["train", *map(str, flags)])
    process = loaded.Process(
        f"import tiny_training; tiny_training.run(*{given})"
    )
    try:
        yield Worker(process, place)
    finally:
        process.kill()
        process.wait(DEADLINE)


@contextlib.contextmanager
def launched_job(
    folder,
    *flags,
    each=((), ()),
    environments=({}, {}),
    addresses=None,
    pause=None,
) -> Iterator[list[Worker]]:
    """Starts workers, each with flags and an environment of its own.

    With `pause`, a worker and a step, that one waits before that step, and the
    others for it; this waits until it is so.
    """
    folder.mkdir()
    cluster = {"worker": addresses or free_addresses(len(each))}
    with contextlib.ExitStack() as stack:
        workers = []
        for index, own in enumerate(each):
            task = {"type": "worker", "index": index}
            environment = {
                "TF_CONFIG": json.dumps({"cluster": cluster, "task": task}),
                "http_proxy": "http://127.0.0.1:9",  # Which is not there.
                "no_proxy": "",
                **environments[index],
            }
            if pause and pause[0] == index:
                environment["TINY_PAUSE"] = str(pause[1])
            start = launched(
                folder / f"{index}", environment, *MULTI_WORKER, *flags, *own
            )
            workers.append(stack.enter_context(start))
        if pause:
            wait_for_file(f"{workers[pause[0]].place}.paused", workers)
        yield workers


def free_addresses(count: int) -> list[str]:
    with contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(count)
        ]
        return [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]


def list_checkpoints(run_dir) -> list[pathlib.Path]:
    return sorted((run_dir / run_folder.CHECKPOINTS).glob("*.npz"))


def wait_for_file(path, workers) -> None:
    deadline = time.monotonic() + DEADLINE
    while not os.path.exists(path):
        for worker in workers:
            assert worker.process.poll() is None, worker.output()
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("multi_worker")


@pytest.fixture(scope="module")
def alone(records_dir, folder) -> Worker:
    """A run of one process."""
    flags = (f"--records_dir={records_dir}", f"--run_dir={folder / 'one'}")
    with launched(folder / "alone", {}, *FLAGS, *flags) as worker:
        assert worker.wait() == 0, worker.output()
        return worker


@pytest.fixture(scope="module")
def together(records_dir, folder) -> list[Worker]:
    """The same run by two workers, each with its own copy of the records."""
    copy = folder / "copy"
    copy.symlink_to(records_dir)
    each = (
        (f"--records_dir={records_dir}", f"--run_dir={folder / 'two'}"),
        (f"--records_dir={copy}", f"--run_dir={folder / 'of_worker_1'}"),
    )
    with launched_job(folder / "together", *FLAGS, each=each) as workers:
        for worker in workers:
            assert worker.wait() == 0, worker.output()
        return workers


def test_workers_see_the_patches_of_one_process(alone, together):
    expected = alone.images().reshape(-1, BATCH_SIZE)
    found = [
        worker.images().reshape(-1, BATCH_SIZE // 2) for worker in together
    ]
    assert len(expected) >= NUM_STEPS
    np.testing.assert_array_equal(np.hstack(found), expected)
    assert len(set(expected[0])) == BATCH_SIZE


def test_losses_of_two_workers_are_those_of_one(folder, alone, together):
    expected = alone.losses()[:NUM_STEPS]
    for worker in together:
        found = worker.losses()[:NUM_STEPS]
        np.testing.assert_allclose(found, expected, rtol=SAME)
    # They are those of a network that changes.
    first, *_, last = map(np.load, list_checkpoints(folder / "one"))
    assert np.abs(last["0000"] - first["0000"]).max() > 1e5 * SAME


def test_scores_are_those_of_one_process(records_dir, folder, alone, together):
    one, two = (
        pd.read_csv(folder / name / run_folder.HISTORY)
        for name in ("one", "two")
    )
    # Validation is scored from logits in float32.
    pd.testing.assert_frame_equal(two, one, rtol=1e-6)
    model = keras.models.load_model(folder / "two" / run_folder.BEST_MODEL)
    source = patch_source.Source(
        records_folder.open_folder(records_dir), ["fold0"]
    )
    patches = input_choice.open_patches(source)
    (batch,) = patches.eval_batches(
        batch_size=patches.num_patches
    ).as_numpy_iterator()
    logit = model.predict(batch["image"], verbose=0)[:, 0]
    best = two.loc[two.val_auc.idxmax()]
    assert best.val_auc == metrics.auc(batch["label"], np.float32(logit))
    expected = metrics.nll(batch["label"], logit)
    assert best.val_loss == pytest.approx(expected, rel=1e-6)


def test_only_the_chief_writes(folder, together):
    assert not (folder / "of_worker_1").exists()
    content = json.loads((folder / "two" / run_folder.ENVIRONMENT).read_text())
    (start,) = content["starts"]
    assert start["replicas"] == 2
    rows = (folder / "two" / run_folder.TIMING).read_text().splitlines()
    assert len(rows) == 1 + 16
    chief, other = (worker.output().splitlines() for worker in together)
    assert chief.pop().startswith("Next: pcam evaluate")
    for lines in (chief, other):
        assert "best validation AUC" in lines[-1]


@pytest.mark.long
def test_workers_agree_on_steps_and_on_the_end(records_dir, folder):
    run_dir = folder / "agreed"
    with launched_job(
        folder / "agree",
        *FLAGS,
        "--batch_size=4",
        "--steps_per_loop=0",
        f"--records_dir={records_dir}",
        f"--run_dir={run_dir}",
        # One finds steps slow, and makes few in a call; one wants to stop.
        environments=({"TINY_CLOCK": "1000"}, {"TINY_STOP": "2"}),
    ) as workers:
        for worker in workers:
            assert worker.wait() == 0, worker.output()
    history = pd.read_csv(run_dir / run_folder.HISTORY)
    assert history.epoch.tolist() == [1, 2]
    calls = [len(worker.losses()) for worker in workers]
    assert calls == [history.step.iloc[-1]] * 2  # One step in each.


@dataclasses.dataclass
class Disturbed:
    """What became of a job that was stopped, lost workers, and went on."""

    stopped: list[Worker]
    survivors: list[Worker]


@pytest.fixture(scope="module")
def disturbed(records_dir, folder) -> Disturbed:
    """Ends a run by a signal to a worker, by the death of either, by itself."""
    run_dir = folder / "three"
    flags = (*FLAGS, f"--records_dir={records_dir}", f"--run_dir={run_dir}")
    found = Disturbed([], [])
    with launched_job(folder / "stopped", *flags, pause=(1, 6)) as workers:
        workers[1].process.send_signal(signal.SIGTERM)
        pathlib.Path(f"{workers[1].place}.go").touch()
        found.stopped = workers
        for worker in workers:
            worker.wait()
    assert list_checkpoints(run_dir)[-1].stem == "step-000000007"
    for pause in ((1, 11), (0, 16)):
        place = folder / f"killed_{pause[0]}"
        with launched_job(place, *flags, pause=pause) as workers:
            victim = workers.pop(pause[0])
            victim.process.kill()
            assert workers[0].wait() == 1
            found.survivors += workers
    with launched_job(folder / "finished", *flags) as workers:
        for worker in workers:
            assert worker.wait() == 0, worker.output()
    return found


@pytest.mark.long
def test_signal_to_one_worker_stops_both_after_the_same_step(disturbed):
    for worker in disturbed.stopped:
        assert worker.process.returncode == 128 + signal.SIGTERM
        assert worker.last_line() == "pcam train: terminated."
        assert "SIGTERM: there is a checkpoint after step 7" in worker.output()
        assert len(worker.losses()) == 7


@pytest.mark.long
def test_death_of_a_worker_ends_the_other_with_a_line(disturbed):
    for index, survivor in enumerate(disturbed.survivors):
        line = survivor.last_line()
        assert f"worker {index} (127.0.0.1:" in line
        assert "lost another worker" in line
        assert "(TensorFlow: " in line
        assert "goes on from the last checkpoint" in line


@pytest.mark.long
def test_restarted_workers_end_with_the_weights_of_undisturbed_ones(
    folder, together, disturbed
):
    last = [list_checkpoints(folder / name)[-1] for name in ("two", "three")]
    with np.load(last[0]) as expected, np.load(last[1]) as found:
        assert expected.files == found.files
        for name in expected.files:
            np.testing.assert_array_equal(found[name], expected[name])
    histories = [
        (folder / name / run_folder.HISTORY).read_bytes()
        for name in ("two", "three")
    ]
    assert histories[0] == histories[1]


def test_workers_take_no_service_that_gives_each_all_patches(records_dir):
    options = configuration.TrainOptions(
        str(records_dir),
        "run",
        devices=replicas.DeviceOptions("multi_worker"),
        recipe=steps.Recipe(16),
        data_service="grpc://a:1",
    )
    records = records_folder.open_folder(str(records_dir))
    options = configuration.settle_splits(options, records)
    with pytest.raises(ValueError, match="--data_service: found it with"):
        configuration.check(options, records, 2)


@pytest.mark.long
def test_worker_that_differs_is_told_which_flag(records_dir, folder):
    run_dir = folder / "never"
    flags = (*FLAGS, f"--records_dir={records_dir}", f"--run_dir={run_dir}")
    each = (("--seed=0",), ("--seed=1",))
    with launched_job(folder / "differs", *flags, each=each) as workers:
        for worker in workers:
            assert worker.wait() == 1
            line = worker.last_line()
            told = "found --seed 1 on this worker, expected the chief's 0"
            assert told in line
        assert "reported from worker 1: found" in workers[0].last_line()
    assert not run_dir.exists()


@pytest.mark.long
def test_worker_that_does_not_come_up_is_named(records_dir, folder):
    run_dir = folder / "never"
    flags = (f"--records_dir={records_dir}", f"--run_dir={run_dir}")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        addresses = [f"127.0.0.1:{taken.getsockname()[1]}", *free_addresses(1)]
        with launched_job(
            folder / "alone_in_vain",
            *flags,
            "--worker_wait_seconds=1",
            addresses=addresses,
        ) as (chief, other):
            assert chief.wait() == other.wait() == 1
            for worker, address in (
                (chief, addresses[0]),
                (other, addresses[1]),
            ):
                line = worker.last_line()
                assert f"({address}): found no cluster of all workers" in line
                assert "--worker_wait_seconds" in line
            told = "(TensorFlow: Could not start gRPC server"
            assert told in chief.last_line()
    assert not run_dir.exists()


JOB = {
    "cluster": {"worker": ["a:1", "b:2"]},
    "task": {"type": "worker", "index": 1},
}


def test_job_is_that_of_tf_config():
    job = tf_config.find_job("multi_worker", {"TF_CONFIG": json.dumps(JOB)})
    assert (job.index, job.num_workers, job.is_chief) == (1, 2, False)
    text = json.dumps(
        {
            "cluster": {"worker": ["b:2", "c:3"], "chief": ["a:1"]},
            "task": {"type": "chief", "index": "0"},
        }
    )
    job = tf_config.find_job("multi_worker", {"TF_CONFIG": text})
    assert (job.index, job.num_workers, job.is_chief) == (0, 3, True)
    assert job.addresses == ("a:1", "b:2", "c:3")
    assert job.name == "chief 0 (a:1)"
    assert tf_config.find_job("mirrored", {"TF_CONFIG": text}).num_workers == 1


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (None, "found no TF_CONFIG"),
        (" ", "found no TF_CONFIG"),
        ("{", "Expecting property name"),
        ("[]", "list indices"),
        ("{}", "no 'cluster'"),
        (json.dumps({"cluster": {}}), "no 'task'"),
        (json.dumps(JOB | {"cluster": {"worker": "a:1"}}), "'a' is no HOST"),
        (json.dumps(JOB | {"cluster": {"worker": ["a:1"] * 2}}), "twice"),
        (json.dumps(JOB | {"cluster": {"worker": ["a"]}}), "'a' is no HOST"),
        (json.dumps(JOB | {"cluster": {"worker": ["a:1"]}}), "no worker 1"),
        (json.dumps(JOB | {"cluster": {"ps": ["a:1"]}}), "ps is none"),
        (json.dumps(JOB | {"task": {"type": "worker"}}), "no 'index'"),
    ],
)
def test_wrong_tf_config_is_told(text, told):
    environment = {} if text is None else {"TF_CONFIG": text}
    with pytest.raises(ValueError, match="TF_CONFIG") as error:
        tf_config.find_job("multi_worker", environment)
    assert told in str(error.value)
    assert "expected" in str(error.value)


THREE = tf_config.Job(
    tuple(("worker", number) for number in range(3)),
    ("a:1", "b:2", "c:3"),
    index=1,
)
ABORTED = "Graph execution error:\n\nCollective ops is aborted by: "
REMOTE = (
    "\nAdditional GRPC error information from remote target"
    " /job:worker/replica:0/task:{} while calling /tensorflow.{}\n:UNKNOWN"
)
PREVIOUS = "The error could be from a previous operation."
INCARNATION = (
    "/job:worker/replica:0/task:2 unexpectedly tried to connect with a different"
    " incarnation. It has likely restarted."
)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        (
            f"{ABORTED}Socket closed"
            + REMOTE.format(2, "WorkerService/RecvBuf"),
            "(TensorFlow: Socket closed Additional GRPC error information from"
            " remote target worker 2 while calling",
        ),
        (
            f"{ABORTED}Error reported from /job:worker/task:2: The following"
            " tasks are unhealthy (stopped sending heartbeats):\n"
            "/job:worker/replica:0/task:2\nThe tasks have crashed.\n"
            "The error could be from a previous operation.",
            "(TensorFlow: Error reported from worker 2: The following"
            " tasks are unhealthy (stopped sending heartbeats): worker 2",
        ),
        (
            f"{ABORTED}Error reported from /job:worker/task:0: a disk is full."
            "\nThe error could be from a previous operation.",
            "(TensorFlow: Error reported from worker 0: a disk is full.",
        ),
        (
            f"{ABORTED}Deadline Exceeded RPC:"
            " /tensorflow.CoordinationService/Heartbeat",
            "(TensorFlow: Deadline Exceeded RPC",
        ),
        (
            f"{ABORTED}Error reported from /job:worker/task:2: {INCARNATION}\n"
            f"{PREVIOUS}\n\t [[{{{{node while/Collective}}}}]]",
            "worker 2 unexpectedly tried to connect with a different"
            " incarnation. It has likely restarted.",
        ),
        (f"{ABORTED}CANCELLED", "(TensorFlow: CANCELLED)"),
        ("GetKeyValue() timed out", "(TensorFlow: GetKeyValue() timed out)"),
    ],
    ids=["closed", "silent", "told", "chief", "second", "unknown", "facts"],
)
def test_error_about_another_worker_quotes_tensorflow(message, told):
    error = tf.errors.UnavailableError(None, None, message)
    line = str(lost_workers.explain(THREE, error))
    assert line.startswith("worker 1 (b:2): lost another worker, or it ended")
    assert told in line
    assert "Start the same command again on all workers" in line
    assert "\n" not in line


def test_errors_of_the_worker_itself_name_no_other():
    message = "OOM when allocating tensor with shape[8192,96,96,3]"
    error = tf.errors.ResourceExhaustedError(None, None, message)
    assert lost_workers.explain(THREE, error) is None
    assert lost_workers.explain(THREE, OSError("gone")) is None


def write_program(path, text) -> None:
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)


@pytest.fixture
def programs(tmp_path) -> dict[str, str]:
    """An environment in which `pcam` says what it is called with."""
    write_program(
        tmp_path / "pcam", 'echo "$TF_CONFIG" | tr "\\n" " "; echo "$@"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    return dict(os.environ) | {"PATH": path}


def find_told_job(line) -> tuple[tf_config.Job, str]:
    text, _, arguments = line.rpartition("}")
    environment = {"TF_CONFIG": text + "}"}
    return tf_config.find_job("multi_worker", environment), arguments.strip()


def test_slurm_script_makes_tf_config_of_each_task(programs, tmp_path):
    hosts = (
        "[ $* = 'show hostnames node[7-9]' ]; printf '%s\\n' node7 node8 node9"
    )
    write_program(tmp_path / "scontrol", hosts.replace("$*", '"$*"'))
    tasks = 'for n in 0 1 2; do SLURM_PROCID=$n "${@:2}"; done'
    write_program(tmp_path / "srun", tasks)
    found = subprocess.run(
        ["bash", CONFIGS / "multi_worker.sbatch", "--run_dir=a b", "--seed=1"],
        env=programs
        | {"SLURM_JOB_ID": "40007", "SLURM_JOB_NODELIST": "node[7-9]"},
        capture_output=True,
        text=True,
        check=True,
    )
    for index, line in enumerate(found.stdout.splitlines()):
        job, arguments = find_told_job(line)
        assert job.index == index
        assert job.addresses == ("node7:20007", "node8:20008", "node9:20009")
        assert arguments == (
            "train --strategy=multi_worker --run_dir=a b --seed=1"
        )
    assert index == 2


def test_kubernetes_job_makes_tf_config_of_each_pod(programs):
    text = (CONFIGS / "multi_worker.yaml").read_text()
    service, job = yaml.safe_load_all(text)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (workers,) = container["env"]
    assert int(workers["value"]) == job["spec"]["completions"]
    assert job["spec"]["parallelism"] == job["spec"]["completions"]
    assert pod["subdomain"] == service["metadata"]["name"]
    found = subprocess.run(
        container["command"],
        env=programs
        | {workers["name"]: workers["value"], "JOB_COMPLETION_INDEX": "3"},
        capture_output=True,
        text=True,
        check=True,
    )
    told, arguments = find_told_job(found.stdout)
    assert told.index == 3
    assert told.addresses == tuple(f"pcam-{n}.pcam:2222" for n in range(4))
    assert arguments.startswith("train --strategy=multi_worker --records_dir=")
