"""Conversion from and to a bucket: moto's server answers as S3, on a socket."""

import hashlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import h5py
import numpy as np
import pytest
from conftest import make_clouds, run_pcam, write_kaggle_tree

from pcam_tfdata.conversion import publish
from pcam_tfdata.records import manifest
from pcam_tfdata.sources import csv_rows
from pcam_tfdata.system import files, remote

pytestmark = pytest.mark.beam

fsspec = pytest.importorskip("fsspec")

ON_BEAM = [
    "--runner=beam",
    "--beam_options=--direct_running_mode=multi_processing"
    " --direct_num_workers=2",
]
DEADLINE = 120


def wait_until(condition, seconds: float = DEADLINE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server():
    """A store without anything in it; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", f"-p{port}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            urllib.request.urlopen(f"{address}/moto-api/").close()
        except urllib.error.URLError:
            assert process.poll() is None
            return False
        return True

    wait_until(answers)
    yield address
    process.kill()
    process.wait()


@pytest.fixture(scope="module", autouse=True)
def environment(server):
    """Where S3 is, for this process and those that it starts."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (
            ("AWS_ENDPOINT_URL", server),
            ("AWS_ACCESS_KEY_ID", "testing"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
            ("AWS_DEFAULT_REGION", "us-east-1"),
        ):
            patch.setenv(name, value)
        # A file system of fsspec keeps the address that it was made with.
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        yield


@pytest.fixture(scope="module")
def store(environment):
    system = fsspec.filesystem("s3", use_listings_cache=False)
    system.mkdir("data")
    return system


@pytest.fixture
def bucket(store, request):
    """The path of a bucket that is empty."""
    name = hashlib.sha1(request.node.nodeid.encode()).hexdigest()
    store.mkdir(name)
    return f"s3://{name}"


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> pathlib.Path:
    return write_kaggle_tree(tmp_path_factory.mktemp("source") / "kaggle")


@pytest.fixture(scope="module")
def source(tree, store) -> str:
    """The same in a bucket."""
    store.put(str(tree), "data/kaggle", recursive=True)
    return "s3://data/kaggle"


def convert(source, output_dir, *more: str):
    return run_pcam(
        "convert_to_tfrecords", f"--input_dir={source}",
        f"--output_dir={output_dir}", "--shard_megabytes=0.2",
        f"--slide_csv={source}/slides.csv", *more,
    )  # fmt: skip


@pytest.fixture(scope="module")
def local(tree, tmp_path_factory) -> dict[str, str]:
    """SHA-256 of each file of the records on a disk."""
    output_dir = tmp_path_factory.mktemp("local") / "records"
    result = convert(tree, output_dir)
    assert result.returncode == 0, result.stderr
    return {p.name: manifest.hash_file(str(p)) for p in output_dir.iterdir()}


def hash_all(output_dir: str) -> dict[str, str]:
    return {
        name: manifest.hash_file(f"{output_dir}/{name}")
        for name in files.list_names(output_dir)
    }


@pytest.mark.parametrize("runner", [[], ON_BEAM], ids=["local", "beam"])
def test_bucket_to_bucket_writes_the_bytes_of_a_disk(
    source, bucket, local, runner
):
    output_dir = f"{bucket}/deep/records"
    result = convert(source, output_dir, *runner)
    assert result.returncode == 0, result.stderr
    assert "cannot be locked; take care" in result.stderr
    assert hash_all(output_dir) == local
    assert files.list_names(f"{bucket}/deep") == ["records"]


@pytest.mark.parametrize("runner", [[], ON_BEAM], ids=["local", "beam"])
def test_bucket_to_disk_writes_the_same_bytes(source, tmp_path, local, runner):
    result = convert(source, tmp_path / "records", *runner)
    assert result.returncode == 0, result.stderr
    found = {
        path.name: manifest.hash_file(str(path))
        for path in (tmp_path / "records").iterdir()
    }
    assert found == local


def test_records_in_a_bucket_are_verified_and_looked_at(
    source, bucket, store, tmp_path
):
    output_dir = f"{bucket}/records"
    assert convert(source, output_dir).returncode == 0
    result = run_pcam("verify", f"--records_dir={output_dir}")
    assert result.stdout == f"{output_dir}: sound.\n", result.stderr
    result = run_pcam(
        "inspect", f"--records_dir={output_dir}", f"--output_dir={tmp_path}/o"
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "o" / "patches.png").exists()
    result = run_pcam("audit", f"--records_dir={output_dir}")
    assert result.returncode == 1
    assert "Copy the folder to a disk first" in result.stderr
    shard = next(n for n in files.list_names(output_dir) if "fold1" in n)
    content = bytearray(store.cat_file(f"{output_dir}/{shard}"))
    content[1000] ^= 1
    store.pipe_file(f"{output_dir}/{shard}", bytes(content))
    store.pipe_file(f"{output_dir}/other", b"")
    result = run_pcam("verify", f"--records_dir={output_dir}")
    assert result.returncode == 1
    assert f"{output_dir}/{shard}: record 0" in result.stderr
    assert f"{output_dir}/other: found a file" in result.stderr


def test_bad_files_in_a_bucket_are_told_as_on_a_disk(
    tree, store, bucket, tmp_path
):
    copy = tmp_path / "kaggle"
    shutil.copytree(tree, copy)
    cut, large, missing, empty = sorted((copy / "train").iterdir())[:4]
    cut.write_bytes(cut.read_bytes()[:1000])
    large.write_bytes(bytes(1 << 20) + b"1")
    missing.unlink()
    empty.write_bytes(b"")
    (copy / "train" / "surplus.tif").write_bytes(cut.read_bytes())
    (copy / "train" / "folder").mkdir()
    (copy / "train" / "folder" / "file").write_bytes(b"1")
    source = f"{bucket}/kaggle"
    store.put(str(copy), source, recursive=True)
    told = [
        convert(path, tmp_path / "records").stderr.replace(str(path), "SOURCE")
        for path in (copy, source)
    ]
    assert "6 faults" in told[0]
    assert told[0] == told[1]


def test_folder_source_in_a_bucket(store, bucket, tmp_path):
    for label in (0, 1):
        folder = tmp_path / "classes" / "train" / str(label)
        folder.mkdir(parents=True)
        for place, image in enumerate(make_clouds(6, seed=label)):
            from PIL import Image

            Image.fromarray(image).save(folder / f"{place}.png")
    store.put(str(tmp_path / "classes"), f"{bucket}/classes", recursive=True)
    made = []
    for source in (tmp_path / "classes", f"{bucket}/classes"):
        output_dir = tmp_path / f"records{len(made)}"
        result = run_pcam(
            "convert_to_tfrecords", "--source=folder",
            f"--input_dir={source}", f"--output_dir={output_dir}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        made.append(hash_all(str(output_dir)))
    assert made[0] == made[1]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzipped"])
@pytest.mark.parametrize("runner", [[], ON_BEAM], ids=["local", "beam"])
def test_hdf5_source_in_a_bucket(store, bucket, tmp_path, packed, runner):
    folder = tmp_path / "official"
    folder.mkdir()
    label = np.random.default_rng(0).integers(0, 2, (20, 1, 1, 1), np.uint8)
    prefix = folder / "camelyonpatch_level_2_split_train"
    for name, key, values in (
        ("x", "x", make_clouds(20)),
        ("y", "y", label),
        ("mask", "mask", label * np.ones((20, 96, 96, 1), np.uint8)),
    ):
        with h5py.File(f"{prefix}_{name}.h5", "w") as file:
            file[key] = values
    if packed:
        subprocess.run(["gzip", *folder.glob("*_x.h5")], check=True)
    store.put(str(folder), f"{bucket}/official", recursive=True)
    made = []
    for source, output_dir, more in (
        (folder, str(tmp_path / "records"), []),
        (f"{bucket}/official", f"{bucket}/records", runner),
    ):
        result = run_pcam(
            "convert_to_tfrecords", "--source=hdf5", f"--input_dir={source}",
            f"--output_dir={output_dir}", "--shard_megabytes=0.2", *more,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        made.append(hash_all(output_dir))
    assert made[0] == made[1]
    assert sorted(files.list_names(bucket)) == ["official", "records"]


def test_finished_records_are_kept_or_replaced_as_asked(source, bucket, local):
    output_dir = f"{bucket}/records"
    assert convert(source, output_dir, "--num_folds=2").returncode == 0
    before = hash_all(output_dir)
    result = convert(source, output_dir)
    assert result.returncode == 1
    assert "found finished records. Pass --overwrite" in result.stderr
    assert hash_all(output_dir) == before
    result = convert(source, output_dir, "--overwrite")
    assert result.returncode == 0, result.stderr
    assert hash_all(output_dir) == local
    assert files.list_names(bucket) == ["records"]


@pytest.mark.parametrize("place", ["records", "records.incomplete"])
def test_other_files_are_left_alone(source, bucket, store, place):
    store.pipe_file(f"{bucket}/{place}/mine", b"1")
    result = convert(source, f"{bucket}/records", "--overwrite")
    assert result.returncode == 1
    assert f"{bucket}/{place}: found " in result.stderr
    assert store.cat_file(f"{bucket}/{place}/mine") == b"1"
    assert files.list_names(bucket) == [place]


@pytest.mark.parametrize("name", ["rec[1]", "rec*", "rec?", "[!x]ec1"])
def test_name_that_looks_like_a_pattern_is_a_name(bucket, store, name):
    others = [f"{bucket}/{other}/a" for other in ("rec1", "rec1.x", "rec1/b")]
    own = [f"{bucket}/{name}/a", f"{bucket}/{name}/b/c", f"{bucket}/{name}/d/"]
    for path in (*others, *own):
        store.pipe_file(path, b"1")
    assert files.is_folder(f"{bucket}/{name}")
    assert sorted(files.list_names(f"{bucket}/{name}")) == ["a", "b", "d"]
    remote.copy_all([(own[0], f"{bucket}/{name}/e")])
    files.remove(own[0])
    assert files.read_bytes(f"{bucket}/{name}/e", 0, 9) == b"1"
    files.remove_folder(f"{bucket}/{name}")
    files.remove_folder(f"{bucket}/{name}")
    assert sorted(f"s3://{path}" for path in store.find(bucket)) == (
        sorted(others)
    )


def test_unfinished_job_beside_a_pattern_is_left_alone(source, bucket, store):
    others = f"{bucket}/rec1.incomplete/records/shard"
    store.pipe_file(others, b"1")
    result = convert(source, f"{bucket}/rec[1]", "--overwrite")
    assert result.returncode == 0, result.stderr
    assert store.cat_file(others) == b"1"
    assert sorted(files.list_names(bucket)) == ["rec1.incomplete", "rec[1]"]


def test_job_killed_while_it_copies_is_run_again(
    source, bucket, local, monkeypatch
):
    output_dir = f"{bucket}/records"
    assert convert(source, output_dir, "--num_folds=2").returncode == 0
    folder = f"{bucket}/made"
    assert convert(source, folder).returncode == 0
    copy_all = remote.copy_all

    def copy_some(pairs) -> None:
        copy_all(pairs[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "copy_all", copy_some)
    with pytest.raises(KeyboardInterrupt):
        publish._copy_into_place(folder, output_dir, set(local))
    assert manifest.MANIFEST_FILE not in files.list_names(output_dir)
    result = convert(source, output_dir)
    assert result.returncode == 0, result.stderr
    assert hash_all(output_dir) == local
    assert files.list_names(f"{output_dir}.incomplete") == []


def start(source, output_dir, *more: str) -> subprocess.Popen:
    """Starts a conversion with its own workers, which signals reach too."""
    return subprocess.Popen(
        [
            sys.executable, "-m", "pcam_tfdata", "convert_to_tfrecords",
            f"--input_dir={source}", f"--output_dir={output_dir}",
            "--shard_megabytes=0.2", f"--slide_csv={source}/slides.csv",
            *more,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )  # fmt: skip


def start_and_stop(source, output_dir) -> subprocess.Popen:
    """Starts a conversion on Beam and stops it when its tasks are there."""
    folder = f"{output_dir}.incomplete/beam"
    before = set(files.list_names(folder))
    process = start(source, output_dir, *ON_BEAM)

    def has_tasks() -> bool:
        assert process.poll() is None, process.communicate()
        jobs = set(files.list_names(folder)) - before
        return any(files.is_file(f"{folder}/{job}/task-0") for job in jobs)

    wait_until(has_tasks)
    os.killpg(process.pid, signal.SIGSTOP)
    return process


@pytest.mark.parametrize("number", [None, signal.SIGTERM])
def test_later_of_two_jobs_on_beam_stops_the_earlier(
    source, bucket, local, number
):
    output_dir = f"{bucket}/records"
    earlier, later = (start_and_stop(source, output_dir) for _ in range(2))
    if number:
        os.killpg(earlier.pid, number)
    os.killpg(earlier.pid, signal.SIGCONT)
    output, _ = earlier.communicate(timeout=DEADLINE)
    assert earlier.returncode == (128 + number if number else 1), output
    assert number or "took them away. Run one at a time.\n" in output
    os.killpg(later.pid, signal.SIGCONT)
    output, _ = later.communicate(timeout=DEADLINE)
    assert later.returncode == 0, output
    assert hash_all(output_dir) == local
    assert files.list_names(bucket) == ["records"]


@pytest.mark.parametrize("runner", [[], ON_BEAM], ids=["local", "beam"])
def test_killed_upload_leaves_no_records_and_goes_on(
    source, bucket, local, runner
):
    output_dir = f"{bucket}/records"
    process = start(source, output_dir, *runner)

    def has_finished() -> bool:
        assert process.poll() is None, process.communicate()
        places = files.list_names(f"{output_dir}.incomplete")
        return any(
            name.endswith(".journal")
            for place in places
            if place.startswith("records")
            for name in files.list_names(f"{output_dir}.incomplete/{place}")
        )

    wait_until(has_finished)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert files.list_names(output_dir) == []
    result = convert(source, output_dir, *runner)
    assert result.returncode == 0, result.stderr
    assert "going on from what is finished there" in result.stderr
    assert hash_all(output_dir) == local


@pytest.mark.parametrize(
    ("source_path", "output_path", "told"),
    [
        ("s3://data/nothing", "BUCKET/records", "s3://data/nothing/train_lab"),
        ("s3://no-such-bucket/x", "BUCKET/records", "no-such-bucket"),
        ("s3://data/kaggle", "s3://no-such-bucket/x", "no-such-bucket"),
        ("s3://data/kaggle", "s3://data", "expected a folder in a bucket"),
        (
            "s3://data/kaggle",
            "BUCKET/r?versionId=1",
            "expected a folder in a bucket",
        ),
        ("xyz://data/kaggle", "BUCKET/records", "found no package for xyz://"),
    ],
    ids=[
        "folder",
        "source bucket",
        "output bucket",
        "bucket itself",
        "version",
        "scheme",
    ],
)
def test_wrong_paths_cost_one_line(
    source, bucket, source_path, output_path, told
):
    result = run_pcam(
        "convert_to_tfrecords", f"--input_dir={source_path}",
        f"--output_dir={output_path.replace('BUCKET', bucket)}",
    )  # fmt: skip
    assert result.returncode == 1
    lines = [
        line
        for line in result.stderr.splitlines()
        if "cannot be locked" not in line
    ]
    assert len(lines) == 1, result.stderr
    assert told in lines[0]


def test_wrong_credentials_cost_one_line(source, bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    result = convert(source, f"{bucket}/records")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert "your credentials and the network" in result.stderr


def test_table_in_a_bucket_is_read_as_on_a_disk(tree, source):
    there, here = (
        csv_rows.read(
            f"{folder}/train_labels.csv", id=("id",), label=("label",)
        )
        for folder in (source, tree)
    )
    assert there.equals(here)
