"""Runs a server of a tf.data service, which reads records for pcam train.

One dispatcher, and workers on any number of hosts; each host must have the
records at the same path. Train with --data_service=grpc://HOST:PORT of the
dispatcher. Ctrl-C or SIGTERM ends a server.
"""

import socket

from absl import app, flags

from pcam_tfdata.cli import quiet
from pcam_tfdata.data_service import service_address
from pcam_tfdata.runs import outputs

REQUIRED_FLAGS = ("role",)
_REQUIRED_FLAG_OF_ROLE = {"dispatcher": "work_dir", "worker": "dispatcher"}

flags.DEFINE_enum(
    "role",
    None,
    tuple(_REQUIRED_FLAG_OF_ROLE),
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
    required = _REQUIRED_FLAG_OF_ROLE[role]
    if flags.FLAGS[required].value is None:
        raise app.UsageError(f"--role={role} needs --{required}.")
    # gRPC would share a port on which somebody listens.
    socket.create_server(("", port)).close()
    seconds = flags.FLAGS.timeout_seconds
    if role == "dispatcher":
        outputs.check_new(flags.FLAGS.work_dir, "--work_dir")
    else:
        dispatcher = service_address.parse(
            flags.FLAGS.dispatcher, "--dispatcher"
        )
        own_host = service_address.wait_for(dispatcher, seconds)
        own_address = service_address.parse(
            flags.FLAGS.worker_address or own_host,
            "--worker_address",
            service_address.ANY_PORT,
        )
    with quiet.imports():
        from pcam_tfdata.data_service import servers
    if role == "dispatcher":
        servers.serve_dispatcher(port, flags.FLAGS.work_dir)
    else:
        servers.serve_worker(port, dispatcher, own_address, seconds)
