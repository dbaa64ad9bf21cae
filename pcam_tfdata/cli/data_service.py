"""Runs a server of a tf.data service, which reads records for pcam train.

One dispatcher, and workers on any number of hosts; each host must have the
records at the same path. Train with --data_service=grpc://HOST:PORT of the
dispatcher. Ctrl-C or SIGTERM ends a server.
"""

import os
import socket

from absl import app, flags

from pcam_tfdata.cli import quiet
from pcam_tfdata.data_service import service_address
from pcam_tfdata.runs import outputs
from pcam_tfdata.system import files, locks

REQUIRED_FLAGS = ("role",)
# The first of each role is required.
_FLAGS_OF_ROLE = {
    "dispatcher": ("work_dir",),
    "worker": ("dispatcher", "worker_address"),
}

flags.DEFINE_enum(
    "role",
    None,
    tuple(_FLAGS_OF_ROLE),
    "The dispatcher says who reads what; workers read.",
)
flags.DEFINE_integer(
    "port",
    0,
    "To listen on; 0 for any. A server that is started again must have the port"
    " that it had.",
    lower_bound=0,
    upper_bound=(1 << 16) - 1,
)
flags.DEFINE_string(
    "work_dir",
    None,
    "Of the dispatcher: folder for its state. Killed and started again with the"
    " same port and folder, it goes on.",
)
flags.DEFINE_string(
    "dispatcher", None, "Of a worker: the dispatcher, as grpc://HOST:PORT."
)
flags.DEFINE_string(
    "worker_address",
    None,
    "Of a worker: HOST or HOST:PORT by which trainers reach it. Default: this"
    " host's address on the way to the dispatcher.",
)
flags.DEFINE_float(
    "timeout_seconds",
    60.0,
    "How long a worker waits for a dispatcher that does not answer, before it"
    " ends.",
    lower_bound=1,
)


def run() -> None:
    """Serves until a signal comes."""
    # What is wrong is said before TensorFlow is imported, which takes longer.
    role, port = flags.FLAGS.role, flags.FLAGS.port
    _check_role(role)
    _check_port(port)
    if role == "dispatcher":
        _serve_dispatcher(port, flags.FLAGS.work_dir)
    else:
        _serve_worker(port, flags.FLAGS.worker_address)


def _check_role(role: str) -> None:
    """Refuses flags of the other role, and the lack of its own."""
    for other, names in _FLAGS_OF_ROLE.items():
        for name in names:
            if other != role and flags.FLAGS[name].present:
                raise app.UsageError(
                    f"--{name}: found it with --role={role}, expected"
                    f" --role={other}."
                )
    required = _FLAGS_OF_ROLE[role][0]
    if flags.FLAGS[required].value is None:
        raise app.UsageError(f"--role={role} needs --{required}.")


def _check_port(port: int) -> None:
    """Refuses a port on which somebody listens: gRPC would share it."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise OSError(
            f"--port={port}: cannot listen there ({reason}). Choose another"
            " port, or 0 for any."
        ) from error


def _serve_dispatcher(port: int, work_dir: str) -> None:
    if files.is_remote(work_dir):
        raise ValueError(
            f"--work_dir={work_dir}: found a URL, expected a folder on a disk."
        )
    outputs.check_new(work_dir, "--work_dir")
    lock = os.path.join(work_dir, locks.LOCK)
    advice = "Choose another --work_dir."
    with locks.hold(lock, "runs a dispatcher there", advice):
        with quiet.imports():
            from pcam_tfdata.data_service import servers
        servers.serve_dispatcher(port, work_dir)


def _serve_worker(port: int, worker_address: str | None) -> None:
    def parse(text: str) -> str:
        flag = "--worker_address"
        return service_address.parse(text, flag, service_address.ANY_PORT)

    seconds = flags.FLAGS.timeout_seconds
    dispatcher = service_address.parse(flags.FLAGS.dispatcher, "--dispatcher")
    address = worker_address and parse(worker_address)
    own_host = service_address.wait_for(dispatcher, seconds)
    address = address or parse(own_host)
    with quiet.imports():
        from pcam_tfdata.data_service import servers
    servers.serve_worker(port, dispatcher, address, seconds)
