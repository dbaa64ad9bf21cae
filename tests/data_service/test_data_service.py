"""The tf.data service: real servers, real sockets, and what happens as they die."""

import collections
import contextlib
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import loaded
import numpy as np
import pytest
from conftest import FOLDS, NUM_TRAIN, open_patches, run_pcam

from pcam_tfdata.data_service import served, service_address
from pcam_tfdata.pipeline import patch_source, stream_mode
from pcam_tfdata.records import manifest, records_folder, tfrecord
from pcam_tfdata.runs import environment_file, resumption, run_folder

DEADLINE = 180
NOBODY = "grpc://127.0.0.1:1"
READY = r"^(Dispatcher|Worker) ready on port ([1-9]\d*),"


SERVER = """
import os
from pcam_tfdata.cli import main

os.dup2(os.open({pipe!r}, os.O_WRONLY), 2)
os.chdir({folder!r})
main.run({arguments!r})
"""


class Server:
    """A process of `pcam data_service`, and the lines that it writes.

    Its working folder is one of its own: what lies below /proc/self/cwd is there
    what it would be on another host. Its lines come through a named pipe.
    """

    def __init__(self, *flags: str, folder: pathlib.Path | None = None) -> None:
        self._flags = flags
        self.folder = folder
        own = pathlib.Path(tempfile.mkdtemp())
        os.mkfifo(own / "lines")
        program = SERVER.format(
            folder=str(folder or "."),
            pipe=str(own / "lines"),
            arguments=["data_service", *flags],
        )
        self.process = loaded.Process(program)
        self._lines = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(own,), daemon=True).start()

    def _read(self, own: pathlib.Path) -> None:
        with open(own / "lines") as lines:  # Once the server has opened it.
            shutil.rmtree(own)
            for line in lines:
                self._lines.put(line.strip())
        self._lines.put(None)

    def line(self) -> str | None:
        """Returns the next line; None after the last one."""
        return self._lines.get(timeout=DEADLINE)

    def wait_until_ready(self) -> str:
        """Returns its port."""
        while not (found := re.search(READY, told := self.line() or "")):
            assert "waiting for the dispatcher" in told
        return found.group(2)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def again(self) -> "Server":
        """Returns a new process of the same flags, once it is ready."""
        server = Server(*self._flags, folder=self.folder)
        server.wait_until_ready()
        return server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A dispatcher and two workers, started at once."""
    port = free_port()
    found = {
        "dispatcher": Server(
            "--role=dispatcher", f"--port={port}",
            f"--work_dir={tmp_path_factory.mktemp('dispatcher') / 'state'}",
        ),
        "address": f"127.0.0.1:{port}",
    }  # fmt: skip
    for name in ("a", "b"):  # They wait for the dispatcher.
        found[name] = Server(
            "--role=worker", f"--port={free_port()}",
            f"--dispatcher=grpc://127.0.0.1:{port}",
            f"--timeout_seconds={DEADLINE}",
            folder=tmp_path_factory.mktemp(name),
        )  # fmt: skip
    with contextlib.ExitStack() as stack:
        for name in ("dispatcher", "a", "b"):
            stack.callback(lambda name=name: found[name].kill())
        for name in ("dispatcher", "a", "b"):
            found[name].wait_until_ready()
        yield found


@pytest.fixture
def servers(cluster):
    """The same, those started again that a test ended."""
    for name in ("dispatcher", "a", "b"):
        if cluster[name].process.poll() is not None:
            cluster[name] = cluster[name].again()
    return cluster


@pytest.fixture
def small_steps(monkeypatch):
    """A record at a time, and few on their way: most of an epoch is to come."""
    monkeypatch.setattr(stream_mode, "BLOCK", 1)
    monkeypatch.setattr(stream_mode, "NUM_OPEN_FILES", 1)
    monkeypatch.setattr(stream_mode, "count_shuffled", lambda *_: 1)
    # A thread for each worker: one that is dead keeps its own busy.
    monkeypatch.setattr(served, "_NUM_WAITING", 2)


def open_served(
    records_dir, servers, timeout_seconds=DEADLINE
) -> patch_source.Patches:
    source = patch_source.Source(records_folder.open_folder(records_dir), FOLDS)
    address = f"grpc://{servers['address']}"
    return served.ServedPatches(source, address, timeout_seconds)


def batches_of(patches, num_epochs: int, first_step: int = 0):
    return patches.train_batches(
        batch_size=12, seed=0, first_step=first_step,
        num_steps=first_step + num_epochs * NUM_TRAIN // 12,
    ).as_numpy_iterator()  # fmt: skip


def check_epochs(rows: list[int], num_epochs: int) -> None:
    """Holds that each patch is there once an epoch."""
    assert len(rows) == num_epochs * NUM_TRAIN
    for epoch in np.reshape(rows, (num_epochs, NUM_TRAIN)):
        assert sorted(epoch) == list(range(NUM_TRAIN))


def test_every_patch_comes_once_an_epoch(records_dir, servers):
    patches = {
        row: (image.tobytes(), label)
        for batch in open_patches(records_dir, "mmap")
        .eval_batches(batch_size=NUM_TRAIN)
        .as_numpy_iterator()
        for image, label, row in zip(
            batch["image"], batch["label"], batch["row"], strict=True
        )
    }
    rows = []
    for batch in batches_of(open_served(records_dir, servers), 3):
        assert batch["image"].shape == (12, 96, 96, 3)
        rows += batch["row"].tolist()
        for image, label, row in zip(
            batch["image"], batch["label"], batch["row"], strict=True
        ):
            assert (image.tobytes(), label) == patches[row]
    check_epochs(rows, 3)
    assert rows[:NUM_TRAIN] != rows[NUM_TRAIN : 2 * NUM_TRAIN]


@pytest.mark.long
def test_resumed_run_begins_a_new_pass(records_dir, servers):
    batches = batches_of(open_served(records_dir, servers), 1, first_step=1003)
    check_epochs([row for batch in batches for row in batch["row"]], 1)


@pytest.mark.long
def test_silent_workers_end_the_reader_with_a_line(
    records_dir, servers, small_steps, caplog
):
    patches = open_served(records_dir, servers, timeout_seconds=4)
    batches = batches_of(patches, 2)
    next(batches)
    for name in ("a", "b"):
        servers[name].process.send_signal(signal.SIGSTOP)
    try:
        with (
            pytest.raises(ConnectionError) as error,
            patch_source.damage_named(patches),
        ):
            collections.deque(batches, maxlen=0)
    finally:
        for name in ("a", "b"):
            servers[name].process.send_signal(signal.SIGCONT)
    message = "60 of 60 patches did not come: a worker gave none for 4 s"
    assert message in str(error.value)
    assert "(pcam data_service --worker_address)" in str(error.value)
    assert "\n" not in str(error.value)
    # What came of the epoch before was an epoch.
    told = "patches did not come: a worker gave none for 4 s. The epoch ends"
    assert told in caplog.text


@pytest.mark.long
def test_damaged_record_is_named(records_dir, servers, tmp_path):
    copy = tmp_path / "records"
    shutil.copytree(records_dir, copy)
    spoiled = copy / "pcam-fold1.tfrecord-00000-of-00003"
    content = bytearray(spoiled.read_bytes())
    content[2 * tfrecord.layout(labeled=True).record_bytes + 1000] ^= 1
    spoiled.write_bytes(content)
    patches = open_served(str(copy), servers)
    with (
        pytest.raises(
            tfrecord.DamagedRecordError, match=rf"{spoiled.name}: record 2 "
        ),
        patch_source.damage_named(patches),
    ):
        list(batches_of(patches, 1))


def test_training_is_fed_by_a_service(records_dir, servers, tmp_path):
    run_dir = tmp_path / "run"
    result = run_pcam(
        "train", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        "--model=small_cnn", "--batch_size=8", "--epochs=2",
        f"--data_service={servers['address']}",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    told = f"Input: stream, by the tf.data service at {servers['address']}; its"
    assert told in result.stderr
    history = (run_dir / run_folder.HISTORY).read_text().splitlines()
    assert [line.split(",")[1] for line in history[1:]] == ["6", "12"]


@pytest.mark.long
def test_order_of_a_service_is_not_that_of_a_stream(tmp_path):
    first = {"manifest_sha256": "1", "precision": "float32", "input": "stream"}
    by_service = first | {"order": served.ServedPatches.order}
    alone = first | {"order": stream_mode.StreamedPatches.order}
    flags = {"model": "a", "train_splits": "b", "validation_splits": "c"}
    (tmp_path / run_folder.BEST_MODEL).touch()
    resumption.open_run(str(tmp_path), flags, by_service, restart=True)
    environment_file.add_start(str(tmp_path), by_service)
    (tmp_path / run_folder.BEST_MODEL).touch()
    resumption.open_run(str(tmp_path), flags, by_service, restart=False)
    with pytest.raises(ValueError, match="=stream and --data_service, or"):
        resumption.open_run(str(tmp_path), flags, alone, restart=False)
    resumption.open_run(str(tmp_path), flags, alone, restart=True)
    environment_file.add_start(str(tmp_path), alone)
    (tmp_path / run_folder.BEST_MODEL).touch()
    with pytest.raises(ValueError, match="=stream without --data_service, or"):
        resumption.open_run(str(tmp_path), flags, by_service, restart=False)


@pytest.mark.parametrize(
    ("options", "address", "message"),
    [
        (
            {"input": "mmap"},
            NOBODY,
            "--data_service: found it with --input=mmap",
        ),
        (
            {"input": "device"},
            NOBODY,
            "--data_service: found it with --input=dev",
        ),
        (
            {"cache": "memory"},
            NOBODY,
            "=auto and --cache=memory, expected stream",
        ),
        ({}, "host", "--data_service: found 'host'"),
        ({}, "http://host:1", "--data_service: found 'http://"),
        ({}, "grpc://host:99999", "--data_service: found 'grpc"),
    ],
)
def test_what_no_service_has_is_refused(records_dir, options, address, message):
    records = records_folder.open_folder(records_dir)
    with pytest.raises(ValueError, match=re.escape(message)):
        served.ServedPatches(
            patch_source.Source(
                records, FOLDS, patch_source.InputOptions(**options)
            ),
            address,
            1,
        )


def test_address_has_a_host_and_a_port():
    for text in ("grpc://10.0.0.7:5050", "10.0.0.7:5050"):
        assert service_address.parse(text, "--flag") == "10.0.0.7:5050"


@pytest.mark.parametrize(
    "text",
    ["a b", "x:y:z", "host:99999", "http://x", "host:", ":1", "", "[::1]"],
)
def test_address_of_a_worker_that_is_none_is_refused(text):
    told = f"--worker_address: found {text!r}, expected"
    with pytest.raises(ValueError, match=re.escape(told)):
        service_address.parse(text, "--worker_address", "%port%")


def test_address_of_a_worker_may_have_no_port():
    for text, expected in (
        ("host", "host:%port%"),
        ("10.0.0.7:5051", "10.0.0.7:5051"),
        ("grpc://host:1", "host:1"),
    ):
        found = service_address.parse(text, "--flag", "%port%")
        assert found == expected


def end_in_a_line(cases) -> None:
    """Runs commands at once; each ends with its exit code and what it tells."""
    started = [loaded.start(*arguments) for _, _, *arguments in cases]
    for process, (code, told, *_) in zip(started, cases, strict=True):
        output, errors = process.communicate(timeout=DEADLINE)
        assert process.returncode == code, errors
        assert told in errors
        assert len(errors.strip().splitlines()) == 1, errors
        assert output == ""


@pytest.mark.long
def test_wrong_input_ends_in_a_line(records_dir, servers, tmp_path):
    taken = servers["address"].rpartition(":")[-1]
    work_dir = next(
        flag for flag in servers["dispatcher"]._flags if "work_dir" in flag
    )
    file = tmp_path / "file"
    file.touch()
    torn = tmp_path / "torn"
    shutil.copytree(work_dir.removeprefix("--work_dir="), torn)
    journal = torn / "tf_data_dispatcher_journal" / "journal_0"
    os.truncate(journal, journal.stat().st_size - 7)
    nobody = f"127.0.0.1:{free_port()}"
    other = socket.create_server(("127.0.0.1", 0))  # Says nothing.
    serve = ("data_service", "--timeout_seconds=1")
    train = (
        "train", f"--records_dir={records_dir}", f"--run_dir={tmp_path / 'r'}",
        "--batch_size=8", "--data_service_timeout_seconds=0.5",
    )  # fmt: skip
    cases = [
        (2, "--role is missing", *serve),
        (2, "needs --work_dir", *serve, "--role=dispatcher"),
        (2, "needs --dispatcher", *serve, "--role=worker"),
        (2, "--work_dir: found it with", *serve, "--role=worker",
         "--dispatcher=a:1", "--work_dir=x"),
        (1, "--dispatcher: found 'a'", *serve, "--role=worker",
         "--dispatcher=a"),
        (1, "--worker_address: found 'http://x'", *serve, "--role=worker",
         f"--dispatcher={nobody}", "--worker_address=http://x"),
        (1, ".host:5050: found no dispatcher in 1 s (encoding with 'idna'",
         *serve, "--role=worker", "--dispatcher=.host:5050"),
        (1, f"{nobody}: found no dispatcher", *serve, "--role=worker",
         f"--dispatcher={nobody}"),
        (1, "in 1 s (timed out), expected one", *serve, "--role=worker",
         f"--dispatcher=127.0.0.1:{other.getsockname()[1]}"),
        (1, f"--port={taken}: cannot listen there (Address already in use)",
         *serve, "--role=dispatcher", f"--port={taken}",
         f"--work_dir={tmp_path / 'new'}"),
        (1, f"{file}/x: Not a directory. Check the path", *serve,
         "--role=dispatcher", f"--work_dir={file}/x"),
        (1, "--work_dir=s3://b/state: found a URL, expected a folder on a disk",
         *serve, "--role=dispatcher", "--work_dir=s3://b/state"),
        (1, f"--work_dir={torn}: no dispatcher starts from what is there",
         *serve, "--role=dispatcher", f"--work_dir={torn}"),
        (1, "runs a dispatcher there", *serve, "--role=dispatcher", work_dir),
        (1, f"{nobody}: found no dispatcher", *train,
         f"--data_service={nobody}"),
        (1, "--data_service: found it with --input=mmap", *train,
         f"--data_service={nobody}", "--input=mmap"),
    ]  # fmt: skip
    with other:
        end_in_a_line(cases)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "torn"]


@pytest.mark.long
def test_epoch_goes_on_when_the_dispatcher_comes_back(
    records_dir, servers, small_steps
):
    rows = []
    patient = batches_of(open_served(records_dir, servers), 2)
    rows += next(patient)["row"].tolist()
    hasty = open_served(records_dir, servers, timeout_seconds=2)
    servers["dispatcher"].kill()
    with (
        pytest.raises(ConnectionError, match="does not answer, for 2 s"),
        patch_source.damage_named(hasty),
    ):
        next(batches_of(hasty, 1))
    servers["dispatcher"] = servers["dispatcher"].again()
    for batch in patient:
        rows += batch["row"].tolist()
    check_epochs(rows, 2)


def wait_until_it_reads(server: Server, folder: pathlib.Path) -> None:
    """Waits until a worker has a file of a folder open, and will keep the rest.

    On a busy machine that takes a while.
    """
    files = pathlib.Path(f"/proc/{server.process.pid}/fd")
    end = time.monotonic() + DEADLINE
    while not any(str(folder) in opened(file) for file in files.iterdir()):
        assert time.monotonic() < end
        time.sleep(0.01)


def opened(file: pathlib.Path) -> str:
    try:
        return os.readlink(file)
    except FileNotFoundError:  # Closed since it was listed.
        return ""


@pytest.mark.long
def test_training_goes_on_though_a_worker_is_killed(
    records_dir, servers, small_steps, caplog, tmp_path
):
    copy = tmp_path / "records"  # Of others a job before may have files open.
    shutil.copytree(records_dir, copy)
    patches = open_served(str(copy), servers, timeout_seconds=15)
    batches = batches_of(patches, 2)
    rows = next(batches)["row"].tolist()
    wait_until_it_reads(servers["b"], copy)
    servers["b"].kill()
    for batch in batches:
        rows += batch["row"].tolist()
    assert len(rows) == 2 * NUM_TRAIN
    lost = re.search(r": ([1-9]\d*) of 60 patches did not come", caplog.text)
    first = rows[: NUM_TRAIN - int(lost.group(1))]
    assert len(set(first)) == len(first)
    second = rows[len(first) : len(first) + NUM_TRAIN]
    assert len(set(second)) == NUM_TRAIN


@pytest.mark.long
def test_process_ends_though_its_worker_has_died(records_dir, servers):
    program = (
        "import os, signal, sys\n"
        "from pcam_tfdata.data_service import served\n"
        "from pcam_tfdata.pipeline import patch_source\n"
        "from pcam_tfdata.records import records_folder\n"
        f"records = records_folder.open_folder({records_dir!r})\n"
        f"source = patch_source.Source(records, {FOLDS})\n"
        f"patches = served.ServedPatches(source, {servers['address']!r}, 99)\n"
        "batches = iter(patches.train_batches(batch_size=7, seed=0,"
        " first_step=0, num_steps=10**6))\n"
        "next(batches)\n"
        f"for number in {[servers[n].process.pid for n in ('a', 'b')]}:\n"
        "    os.kill(number, signal.SIGKILL)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=DEADLINE
    )
    assert result.returncode == 0, result.stderr


@pytest.fixture
def elsewhere(records_dir, servers, tmp_path, monkeypatch):
    """Returns a path of records, and where they are on each host."""
    monkeypatch.chdir(tmp_path)
    places = [tmp_path, servers["a"].folder, servers["b"].folder]
    places = [place / tmp_path.name for place in places]
    for place in places:
        shutil.copytree(records_dir, place)
    yield f"/proc/self/cwd/{tmp_path.name}", places
    for place in places:
        shutil.rmtree(place)


def shorten(shard: pathlib.Path) -> None:
    size = tfrecord.layout(labeled=True).record_bytes
    shard.write_bytes(shard.read_bytes()[:-size])


@pytest.mark.long
def test_worker_that_finds_other_records_ends_training(servers, elsewhere):
    path, (_, *places) = elsewhere
    for place in places:
        with open(place / manifest.MANIFEST_FILE, "a") as file:
            file.write("\n")
    patches = open_served(path, servers)
    message = f"found another {path}/{manifest.MANIFEST_FILE}"
    with (
        pytest.raises(ConnectionError, match=message) as error,
        patch_source.damage_named(patches),
    ):
        list(batches_of(patches, 1))
    assert "\n" not in str(error.value)


@pytest.mark.long
def test_worker_that_has_fewer_records_is_noticed(servers, elsewhere, caplog):
    path, (_, *places) = elsewhere
    for place in places:
        shorten(place / "pcam-fold1.tfrecord-00001-of-00003")
    rows = [
        row
        for batch in batches_of(open_served(path, servers), 1)
        for row in batch["row"].tolist()
    ]
    assert len(set(rows[: NUM_TRAIN - 1])) == NUM_TRAIN - 1
    assert "1 of 60 patches did not come: a worker has fewer" in caplog.text


@pytest.mark.long
def test_records_beyond_the_manifest_are_not_read(servers, elsewhere, caplog):
    path, (_, *places) = elsewhere
    for place in places:
        shard = place / "pcam-fold1.tfrecord-00001-of-00003"
        shard.write_bytes(2 * shard.read_bytes())
    rows = [
        row
        for batch in batches_of(open_served(path, servers), 1)
        for row in batch["row"].tolist()
    ]
    assert len(set(rows[:NUM_TRAIN])) == NUM_TRAIN
    assert "did not come" not in caplog.text


@pytest.mark.long
def test_reader_that_stops_within_an_epoch_ends(real_records_dir, servers):
    before = set(threading.enumerate())
    patches = open_served(real_records_dir, servers)
    assert len(list(batches_of(patches, 1))) == NUM_TRAIN // 12
    assert patches.num_patches > 10 * NUM_TRAIN
    deadline = time.monotonic() + DEADLINE
    while set(threading.enumerate()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.long
def test_servers_end_with_a_line(cluster):
    waiting = Server(
        "--role=worker", f"--dispatcher={cluster['address']}",
        "--timeout_seconds=3",
    )  # fmt: skip
    waiting.wait_until_ready()
    start = time.monotonic()
    for name, number, code, told in (
        ("a", signal.SIGTERM, 143, "terminated."),
        ("dispatcher", signal.SIGINT, 130, "interrupted."),
    ):
        server = cluster[name]
        server.process.send_signal(number)
        assert server.process.wait(timeout=DEADLINE) == code
        lines = list(iter(server.line, None))
        assert lines[-1] == f"pcam data_service: {told}"
        # A worker whose dispatcher was away before has said so.
        assert all("waiting for the dispatcher" in line for line in lines[:-1])
    assert waiting.process.wait(timeout=DEADLINE) == 1
    assert time.monotonic() - start >= 3
    (told,) = iter(waiting.line, None)
    assert "found no dispatcher in 3 s" in told


@pytest.mark.long
def test_benchmark_times_the_service_beside_a_stream(records_dir):
    result = run_pcam(
        "benchmark", "--what=data_service", f"--records_dir={records_dir}",
        "--batch_size=16", "--num_repeats=1", "--min_patches=16",
        "--min_seconds=0",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name in ("no service", "with 1 worker(s)", "with 2 worker(s)"):
        assert re.search(rf"{re.escape(name)} +[\d,]+ ", result.stdout)
