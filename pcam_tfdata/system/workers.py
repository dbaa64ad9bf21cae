"""Processes that share a list of tasks, and count the patches they have done.

Processes start by spawning, so that they inherit no thread and no TensorFlow, and
without the program's `__main__`, so that a script needs no guard around it.
They end when their parent does, however it ends.
"""

import concurrent.futures
import contextlib
import contextvars
import functools
import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import process
from multiprocessing import resource_tracker
from typing import Any

from pcam_tfdata.system import interruption, progress

_POLL_SECONDS = 0.2
_TASKS_AHEAD = 2  # For each worker: none waits for its next task.
_ORIGINS = ("__spec__", "__file__")  # By which Python finds a script again.
_SPAWN = multiprocessing.get_context("spawn")
_main_lock = threading.Lock()
# What a task adds its patches to; None outside of a job.
_counter = contextvars.ContextVar[Callable[[int], None] | None](
    "_counter", default=None
)


def count_cores() -> int:
    """Returns how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def count_done(num_patches: int) -> None:
    """Adds to the progress of the job; without effect outside of `Workers.map`."""
    if count := _counter.get():
        count(num_patches)


def map_in_threads(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    num_patches: int,
    description: str,
) -> list[Any]:
    """Returns what `Workers.map` does; for reading files: threads start at once."""
    waiting, results = list(tasks), []
    with (
        progress.Progress(num_patches, description) as bar,
        concurrent.futures.ThreadPoolExecutor(count_cores()) as pool,
    ):
        for result in pool.map(function, waiting):
            results.append(result)
            bar.advance_to(num_patches * len(results) // len(waiting))
    return results


class Workers:
    """A pool of processes. A context manager.

    A single worker is this process itself: none is started, and a debugger stops
    in what it runs. What kills it kills the job.

    Args:
        num_workers: How many; 0 for one a core, 1 for this process alone.
        prepare_for: What they will run, to be imported while this process does
            something else; if not given, they start with the first task.
    """

    def __init__(
        self,
        num_workers: int = 0,
        *,
        prepare_for: Callable[[Any], Any] | None = None,
    ) -> None:
        self._others = multiprocessing.active_children()
        self._num_workers = num_workers or count_cores()
        self._works_here = self._num_workers == 1
        if prepare_for and not self._works_here:
            for _ in range(self._num_workers):
                # What it unpickles, a worker imports.
                self._submit(callable, prepare_for)

    @functools.cached_property
    def _pool(self) -> concurrent.futures.ProcessPoolExecutor:
        return concurrent.futures.ProcessPoolExecutor(
            self._num_workers,
            mp_context=_SPAWN,
            initializer=_start_worker,
            initargs=(self._num_done,),
        )

    @functools.cached_property
    def _num_done(self) -> Any:
        return _SPAWN.Value("q", 0)

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._works_here:
            return
        if kind is not None:
            # A worker may be anywhere, starting included; waiting for it to
            # take its leave hung now and then.
            for child in multiprocessing.active_children():
                if child not in self._others:
                    child.kill()
                    child.join()
        self._pool.shutdown(wait=kind is None, cancel_futures=True)

    def map(
        self,
        function: Callable[[Any], Any],
        tasks: Iterable[Any],
        *,
        num_patches: int,
        description: str,
    ) -> list[Any]:
        """Returns `function(task)` for each task, in order.

        Args:
            function: Of a module, and so are its results: more workers than
                one pickle them.
            tasks: Its arguments; taken one by one, a few ahead.
            num_patches: What `count_done` adds up to.
            description: Of the progress bar.

        Raises:
            RuntimeError: a worker was killed.
            Exception: whatever `function` raised first.
        """
        if self._works_here:
            return _map_here(function, tasks, num_patches, description)
        self._num_done.value = 0
        numbered = enumerate(tasks)
        running: dict[concurrent.futures.Future, int] = {}
        results: dict[int, Any] = {}
        try:
            with progress.Progress(num_patches, description) as bar:
                while True:
                    room = _TASKS_AHEAD * self._num_workers - len(running)
                    for index, task in itertools.islice(numbered, room):
                        running[self._submit(function, task)] = index
                    if not running:
                        return [results[index] for index in range(len(results))]
                    done, _ = concurrent.futures.wait(
                        running,
                        timeout=_POLL_SECONDS,
                        return_when=concurrent.futures.FIRST_COMPLETED,
                    )
                    results |= {running.pop(f): f.result() for f in done}
                    bar.advance_to(self._num_done.value)
        except process.BrokenProcessPool as error:
            raise RuntimeError(
                "A worker process was killed (out of memory?). Run again, with"
                " fewer --num_workers if memory is short."
            ) from error

    def _submit(
        self, function: Callable[[Any], Any], task: Any
    ) -> concurrent.futures.Future:
        with start_of_processes():  # Submitting is what starts workers.
            return self._pool.submit(function, task)


def _map_here(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    num_patches: int,
    description: str,
) -> list[Any]:
    """Does what `Workers.map` does, in this process.

    A signal waits until a task counts: what it raises in the midst of a library
    may be lost there.
    """
    with (
        interruption.SignalsDeferred() as signals,
        progress.Progress(num_patches, description) as bar,
    ):

        def count(done: int) -> None:
            bar.advance_to(int(bar.n) + done)
            signals.check()

        token = _counter.set(count)
        try:
            return [function(task) for task in tasks]
        finally:
            _counter.reset(token)


@contextlib.contextmanager
def start_of_processes() -> Iterator[None]:
    """Has processes that start meanwhile ignore signals, and run no script again.

    Python runs the program's script in each, for functions that it may define. A
    script without a guard would start its job once more there, and a program that
    came from stdin is no file.
    """
    main = vars(sys.modules["__main__"])
    # Python unblocks signals when this begins: not after they were blocked.
    resource_tracker.ensure_running()
    with interruption.signals_blocked(), _main_lock:
        hidden = {name: main[name] for name in _ORIGINS if name in main}
        main.update(dict.fromkeys(hidden))
        try:
            yield
        finally:
            main.update(hidden)


def end_with_writer_of_stdin() -> None:
    """Has this process end when its parent does, however that ends.

    Stdin is the end of a pipe whose other end the parent holds; nothing is
    written into it.
    """

    def wait_and_end() -> None:
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


def _start_worker(num_done: Any) -> None:
    _counter.set(functools.partial(_add_to, num_done))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _add_to(num_done: Any, num_patches: int) -> None:
    with num_done.get_lock():
        num_done.value += num_patches


def _end_with_parent() -> None:
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)
