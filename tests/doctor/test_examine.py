"""Limits of the machine, and records folders as users have them."""

import os
import pathlib
import resource
import shutil

import pytest

from pcam_tfdata.doctor import check_packages, examine, finding, process
from pcam_tfdata.system import memory

GB = 10**9


def look_at(records_dir: object) -> dict[str, finding.Finding]:
    with process.start(*process.TRIALS, str(records_dir)) as wait:
        answer = wait(100.0)
    return {one.name: one for one in examine.check_records(answer)}


def test_sound_records_are_ok(records_dir):
    found = look_at(records_dir)
    assert found["records"].state == finding.OK
    assert found["page cache"].state == finding.OK
    disk = found["disk of records"]  # A folder in memory has none.
    assert disk.state != finding.FAILURE


@pytest.fixture
def copied(records_dir, tmp_path) -> pathlib.Path:
    return pathlib.Path(shutil.copytree(records_dir, tmp_path / "records"))


def remove_shard(folder):
    next(folder.glob("*.tfrecord-00000*")).unlink()


def cut_shard(folder):
    shard = next(folder.glob("*.tfrecord-00000*"))
    os.truncate(shard, shard.stat().st_size - 1)


def flip_label(folder):
    shard = next(folder.glob("*.tfrecord-00000*"))
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (remove_shard, "not found, expected a shard of"),
        (cut_shard, "bytes, expected"),
        (flip_label, "record 0"),
        (lambda f: (f / "patches.csv").unlink(), "patches.csv"),
        (lambda f: (f / "manifest.json").write_text("{"), "found a manifest"),
    ],
    ids=["missing", "short", "damaged", "sidecar", "manifest"],
)
def test_damaged_records_are_a_failure(copied, spoil, text):
    spoil(copied)
    found = look_at(copied)
    assert found["records"].state == finding.FAILURE
    assert text in found["records"].found
    assert found["records"].remedy == "pcam verify --records_dir=RECORDS"
    assert found["disk of records"].state == finding.NOT_CHECKED
    assert "page cache" not in found


def test_folder_without_records_is_a_failure(tmp_path):
    found = look_at(tmp_path)
    assert found["records"].state == finding.FAILURE
    assert "pcam convert_to_tfrecords" in found["records"].remedy


@pytest.mark.parametrize(
    ("speed", "size", "slow", "large"),
    [(50.0, GB, True, False), (900.0, 10**15, False, True)],
)
def test_slow_disks_and_large_records_are_warned_of(speed, size, slow, large):
    output = (
        f'{{"trial": "records", "error": "", "num_bytes": {size}}}\n'
        f'{{"trial": "disk of records", "error": "", "text": "", "speed": {speed}}}'
    )
    checked = examine.check_records(process.Answer("", output))
    found = {one.name: one.state == finding.WARNING for one in checked}
    assert found == {
        "records": False,
        "disk of records": slow,
        "page cache": large,
    }


def test_disk_that_cannot_be_timed_is_not_checked():
    output = (
        '{"trial": "records", "error": "", "num_bytes": 5}\n'
        '{"trial": "disk of records", "error": "OSError: [Errno 22] Invalid argument"}'
    )
    checked = examine.check_records(process.Answer("", output))
    found = {one.name: one.state for one in checked}
    assert found["disk of records"] == finding.NOT_CHECKED


def test_little_memory_and_few_files_are_warned_of(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: GB)
    monkeypatch.setattr(memory, "find_cpu_quota", lambda: 0.5)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    monkeypatch.setattr(examine, "_free_gb", lambda _: 0.01)
    found = list(examine.check_limits(0))
    assert {one.state for one in found} == {finding.WARNING}
    assert [one.remedy for one in found] == [
        "docker run --memory=8g ...",
        "docker run --cpus=N ...",
        "ulimit -n 4096",
        "du -xhd1 . | sort -h | tail",
        "docker run --shm-size=1g ...",
    ]


def test_unlimited_files_are_ok(monkeypatch):
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: unlimited)
    found = {one.name: one.state for one in examine.check_limits(0)}
    assert found["open files"] == finding.OK


@pytest.mark.parametrize(
    ("num_gpus", "state"), [(1, finding.OK), (2, finding.WARNING)]
)
def test_several_gpus_want_more_shared_memory(monkeypatch, num_gpus, state):
    docker = {examine.SHM: 0.064}  # What a container has unless told.
    monkeypatch.setattr(examine, "_free_gb", lambda name: docker.get(name, 9))
    found = {one.name: one for one in examine.check_limits(num_gpus)}
    assert found["shm"].state == state
    assert found["disk"].state == finding.OK


def test_folder_that_is_not_there_has_no_room(tmp_path):
    assert examine._free_gb(str(tmp_path)) > 0
    assert examine._free_gb(str(tmp_path / "no")) == 0


def test_memory_that_is_not_known_is_not_checked(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: None)
    (found,) = examine._guard(examine.check_limits, 0)
    assert found.state == finding.NOT_CHECKED


CGROUPS = {
    "2": (
        "0::/job\n",
        {"job/memory.max": "500", "job/memory.current": "200",
         "cpu.max": "max 100000", "job/cpu.max": "150000 100000"},
    ),
    "1": (
        "4:memory:/job\n1:cpu,cpuacct:/job\n0::/\n",
        {"memory/job/memory.limit_in_bytes": "500",
         "memory/job/memory.usage_in_bytes": "200",
         "cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000",
         "cpu/job/cpu.cfs_quota_us": "150000",
         "cpu/job/cpu.cfs_period_us": "100000"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("version", CGROUPS)
def test_limits_of_control_groups(tmp_path, monkeypatch, version):
    own, files = CGROUPS[version]
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    monkeypatch.setattr(memory, "_CGROUP_DIR", tmp_path)
    read = memory._read
    monkeypatch.setattr(
        memory,
        "_read",
        lambda path: own if path == "/proc/self/cgroup" else read(path),
    )
    assert memory.free_memory() == 300
    assert memory.find_cpu_quota() == 1.5


def test_versions_of_this_environment_are_within_bounds():
    (found,) = check_packages.check_versions()
    assert (found.name, found.state) == ("versions", finding.OK)


def test_versions_without_a_package_are_told(monkeypatch):
    find = check_packages.metadata.version

    def version(name):
        if name == "pandas":
            raise check_packages.metadata.PackageNotFoundError(name)
        return "3.20.1" if name == "protobuf" else find(name)

    monkeypatch.setattr(check_packages.metadata, "version", version)
    found = {one.found: one.state for one in check_packages.check_versions()}
    assert found["not installed, expected pandas"] == finding.FAILURE
    (protobuf,) = (text for text in found if "protobuf" in text)
    assert protobuf.startswith("3.20.1, expected protobuf")
    assert found[protobuf] == finding.WARNING


def test_extras_that_are_absent_are_explained(monkeypatch):
    def version(name):
        raise check_packages.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(check_packages.metadata, "version", version)
    found = list(check_packages.check_extras())
    assert {one.state for one in found} == {finding.OK}
    assert all("pip install -e '.[" in one.found for one in found)


def test_cards_on_the_bus_are_seen(tmp_path):
    assert not examine._has_card(tmp_path)
    for number, vendor in enumerate(("0x8086", "0x10de")):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "vendor").write_text(f"{vendor}\n")
    assert examine._has_card(tmp_path)
