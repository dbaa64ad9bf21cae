"""Runs a server of a tf.data service, which reads records for pcam train.

One dispatcher, and workers on any number of hosts; each host must have the
records at the same path. Train with --data_service=grpc://HOST:PORT of the
dispatcher. Ctrl-C or SIGTERM ends a server.
"""

from absl import app, flags

from pcam_tfdata import service_address
from pcam_tfdata.cli import options, quiet

REQUIRED_FLAGS = ("role",)

flags.DEFINE_enum(
    "role",
    None,
    ("dispatcher", "worker"),
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
    lower_bound=0,
)
_OF_A_ROLE = {
    "dispatcher": ("work_dir",),
    "worker": ("dispatcher", "worker_address"),
}


def run() -> None:
    """Serves until a signal comes."""
    role = options.value("role")
    _check_role(role)
    if role == "worker":
        dispatcher = service_address.parse(
            options.value("dispatcher"), "--dispatcher"
        )
    with quiet.imports():
        from pcam_tfdata import data_service
    shared = {
        "port": options.value("port"),
        "seconds": options.value("timeout_seconds"),
    }
    if role == "dispatcher":
        data_service.serve_dispatcher(
            work_dir=options.value("work_dir"), **shared
        )
    data_service.serve_worker(
        dispatcher=dispatcher,
        worker_address=options.value("worker_address"),
        **shared,
    )


def _check_role(role: str) -> None:
    """Refuses flags of the other role, and the lack of its own."""
    for other, names in _OF_A_ROLE.items():
        for name in names:
            if other != role and options.value(name) is not None:
                raise app.UsageError(
                    f"--{name}: found it with --role={role}, expected"
                    f" --role={other}."
                )
    needed = _OF_A_ROLE[role][0]
    if options.value(needed) is None:
        raise app.UsageError(f"--role={role} needs --{needed}.")
