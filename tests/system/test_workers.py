"""Processes that share a list of tasks."""

import os
import pathlib
import subprocess
import sys

import pytest
import worker_tasks

from pcam_tfdata.system import progress, workers


def run(num_workers, function, tasks, **options) -> list:
    with workers.Workers(num_workers, **options) as pool:
        return pool.map(
            function, tasks, num_patches=len(tasks), description="test"
        )


def run_alone(code: str) -> subprocess.CompletedProcess:
    """Runs code in a process that has started no other yet, as a command is."""
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=pathlib.Path(__file__).parents[1],
    )


@pytest.fixture
def advances(monkeypatch) -> list[int]:
    """How far the progress bars have come, each time that they are told."""
    numbers: list[int] = []
    advance_to = progress.Progress.advance_to

    def note(bar, done) -> None:
        advance_to(bar, done)
        numbers.append(bar.n)

    monkeypatch.setattr(progress.Progress, "advance_to", note)
    return numbers


def test_one_worker_is_the_process_itself():
    found = run(1, worker_tasks.find_process, [0, 1])
    assert found == [os.getpid()] * 2


def test_more_workers_are_processes_of_their_own():
    found = run(
        2,
        worker_tasks.find_process,
        range(6),
        prepare_for=worker_tasks.find_process,
    )
    assert len(set(found)) == 2
    assert os.getpid() not in found


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_are_in_order_and_progress_is_counted(num_workers, advances):
    tasks = [5, 1, 4, 0, 2]
    found = run(num_workers, worker_tasks.double_and_count, tasks)
    assert found == [10, 2, 8, 0, 4]
    assert advances == sorted(advances)
    assert advances[-1] == len(tasks)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_error_of_a_task_comes_to_the_caller(num_workers):
    with pytest.raises(ValueError, match=r"invalid literal .* 'two'"):
        run(num_workers, int, ["1", "two"])


def test_one_worker_starts_no_process_and_kills_none():
    code = (
        "import multiprocessing, time\n"
        "from pcam_tfdata.system import workers\n"
        "other = multiprocessing.get_context('fork').Process(\n"
        "    target=time.sleep, args=(60,))\n"
        "try:\n"
        "    with workers.Workers(1, prepare_for=int) as pool:\n"
        "        other.start()\n"
        "        pool.map(int, ['one'], num_patches=1, description='test')\n"
        "except ValueError:\n"
        "    print(multiprocessing.active_children() == [other])\n"
        "from multiprocessing import resource_tracker\n"
        "print(resource_tracker._resource_tracker._pid)\n"
        "other.kill()\n"
    )
    found = run_alone(code)
    assert found.stdout.split() == ["True", "None"], found.stderr


def test_no_worker_hears_signals():
    code = (
        "import worker_tasks\n"
        "from pcam_tfdata.system import workers\n"
        "task = worker_tasks.list_blocked\n"
        "with workers.Workers(2, prepare_for=task) as pool:\n"
        "    found = pool.map(task, range(6),\n"
        "                     num_patches=6, description='test')\n"
        "print(len(dict(found)), {tuple(blocked) for _, blocked in found})\n"
    )
    found = run_alone(code)
    assert found.stdout == "2 {(2, 15)}\n", found.stderr


def test_result_of_one_worker_is_never_short():
    with pytest.raises(StopIteration):
        run(1, next, [iter([1]), iter([])])


def test_signal_waits_for_a_task_to_count(advances):
    with pytest.raises(KeyboardInterrupt):
        run(1, worker_tasks.interrupt_and_count, [0, 1])
    assert advances == [1]


def test_counting_outside_of_a_job_does_nothing():
    run(1, worker_tasks.double_and_count, [1])
    workers.count_done(1)
