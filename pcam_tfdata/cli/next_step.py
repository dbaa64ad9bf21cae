"""The last line of a command: the one that naturally follows, to be pasted."""

import logging
import os
import shlex

from pcam_tfdata.cli import standard_streams
from pcam_tfdata.records import manifest
from pcam_tfdata.system import files

_logger = logging.getLogger(__name__)


def tell(command: str, *arguments: str) -> None:
    """Says a command of `pcam`, as a shell takes it, below the result."""
    standard_streams.flush()
    _logger.info("Next: %s", shlex.join(["pcam", command, *arguments]))


def tell_training(records_dir: str, content: manifest.Manifest) -> None:
    """Says how to train where splits tell what validates; 8 steps an epoch."""
    sizes = {s.name: s.num_records for s in content.splits if s.labeled}
    validation = [n for n in sizes if n == "fold0" or n.startswith("val")][:1]
    train = [n for n in sizes if n.startswith(("fold", "train"))]
    if train := [name for name in train if validation and name != "fold0"]:
        batch_size = min(1024, -(-sum(sizes[name] for name in train) // 8))
        tell(
            "train",
            f"--records_dir={records_dir}",
            f"--run_dir={beside(records_dir, 'runs/run')}",
            f"--train_splits={','.join(train)}",
            f"--validation_splits={validation[0]}",
            f"--batch_size={batch_size}",
        )


def beside(folder: str, name: str) -> str:
    """Returns a path that is free, beside a folder or, of a remote one, here."""
    parent = "" if files.is_remote(folder) else os.path.normpath(folder)
    path = os.path.join(os.path.dirname(parent), name)
    while os.path.exists(path):
        path += "_new"
    return path
