"""TF_CONFIG: which processes train together, and which of them this one is.

It is TensorFlow's own description of a job: a JSON text in the environment, such
as `EXAMPLE`.
"""

import dataclasses
import json
import os
from collections.abc import Mapping

_VARIABLE = "TF_CONFIG"
# In TensorFlow's order: a chief comes before all workers.
_JOBS = ("chief", "worker")
EXAMPLE = (
    '{"cluster": {"worker": ["host0:2222", "host1:2222"]},'
    ' "task": {"type": "worker", "index": 0}}'
)


@dataclasses.dataclass(frozen=True)
class Job:
    """Workers that train together.

    Attributes:
        workers: Type and number of each, as ("worker", 1), the chief first.
        addresses: HOST:PORT of each.
        index: Which of them this process is.
    """

    workers: tuple[tuple[str, int], ...] = (("worker", 0),)
    addresses: tuple[str, ...] = ("localhost",)
    index: int = 0

    @property
    def is_chief(self) -> bool:
        """Whether this process is the one that writes what is kept."""
        return self.index == 0

    @property
    def num_workers(self) -> int:
        """How many there are."""
        return len(self.workers)

    @property
    def name(self) -> str:
        """What messages call this process."""
        kind, number = self.workers[self.index]
        return f"{kind} {number} ({self.addresses[self.index]})"


ALONE = Job()


def find_job(strategy: str, environment: Mapping[str, str] = os.environ) -> Job:
    """Returns the job of this process: of it alone but for `multi_worker`.

    Raises:
        ValueError: TF_CONFIG is missing, or not what TensorFlow needs.
    """
    if strategy != "multi_worker":
        return ALONE
    text = environment.get(_VARIABLE, "")
    if not text.strip():
        raise ValueError(
            f"--strategy=multi_worker: found no {_VARIABLE} in the environment,"
            f" expected one on each worker, as {EXAMPLE}."
        )
    try:
        return _parse(json.loads(text))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else error
        raise ValueError(
            f"{_VARIABLE}: found {text[:300]!r} ({what}), expected as in"
            f" {EXAMPLE}, the same cluster on each worker."
        ) from error


def _parse(content: dict) -> Job:
    cluster, task = content["cluster"], content["task"]
    if others := set(cluster) - set(_JOBS):
        raise ValueError(
            f"{min(others)} is none of {' and '.join(_JOBS)}, which train"
        )
    addresses = {
        (job, number): str(address)
        for job in _JOBS
        for number, address in enumerate(cluster.get(job, []))
    }
    for address in addresses.values():
        host, _, port = address.rpartition(":")
        if not (host and port.isdigit()):
            raise ValueError(f"{address!r} is no HOST:PORT")
    if len(set(addresses.values())) < len(addresses):
        raise ValueError("an address is there twice")
    this = (task["type"], int(task["index"]))
    if this not in addresses:
        raise ValueError(f"the cluster has no {this[0]} {this[1]}")
    workers = tuple(addresses)
    return Job(workers, tuple(addresses.values()), workers.index(this))
