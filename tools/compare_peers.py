"""Times other ways to feed the same patches, in one run with the project's own.

    make peers
    .venv-peers/bin/python tools/compare_peers.py \
        --input_dir=kaggle --records_dir=records

A peer reads Kaggle's TIFFs, the records, or a format of its own, which is written
first and untimed. Each gives shuffled batches of uint8 patches with labels
unless its setting says otherwise, and is checked before it is timed. Take a
folder of which ten copies fit in memory: disks are not what is compared.
"""

import argparse
import dataclasses
import functools
import inspect
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

from pcam_tfdata.cli import quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # As the commands do.
with quiet.imports():
    from peers import (
        consumer,
        other_peers,
        patch_set,
        tensorflow_peers,
        torch_peers,
    )

    from pcam_tfdata.benchmark import (
        configuration,
        harness,
        jobs,
        limits,
        reporting,
        timed_process,
    )

_NUM_COPIES = 10
_OWN = "pcam_tfdata mmap"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A way to feed patches; see `consumer.consume`.

    Attributes:
        read: Gives batches; its docstring is its setting.
        packages: Those whose versions are told.
        write: Writes the format that it reads, if it is one of its own.
        whole_epoch: Whether an epoch must pass before it is timed.
    """

    read: Callable[[patch_set.PatchSet], patch_set.Batches]
    packages: tuple[str, ...] = ("tensorflow",)
    write: Callable[[patch_set.PatchSet], None] | None = None
    whole_epoch: bool = False


_PEERS = {
    _OWN: Peer(tensorflow_peers.mmap),
    "pcam_tfdata stream": Peer(tensorflow_peers.stream),
    "limit: .npy memmap gather": Peer(torch_peers.gather_npy, ("numpy",)),
    "Keras ImageDataGenerator": Peer(
        tensorflow_peers.keras_generator, ("keras",)
    ),
    "TFDS, PNG Examples": Peer(
        tensorflow_peers.read_tfds,
        ("tensorflow-datasets",),
        tensorflow_peers.write_tfds,
    ),
    "TFRecordDataset.map(parse_single_example)": Peer(
        tensorflow_peers.parse_single
    ),
    "the same, cache()": Peer(tensorflow_peers.cache, whole_epoch=True),
    "torch DataLoader, TIFF": Peer(torch_peers.read_tiffs, ("torch", "pillow")),
    "torch DataLoader, HDF5": Peer(
        torch_peers.read_hdf5, ("torch", "h5py"), torch_peers.write_hdf5
    ),
    "torch DataLoader, HDF5 kept open": Peer(
        torch_peers.read_open_hdf5, ("torch", "h5py"), torch_peers.write_hdf5
    ),
    "torch DataLoader, .npy memmap": Peer(
        torch_peers.read_npy, ("torch", "numpy")
    ),
    "Grain, ArrayRecord": Peer(
        other_peers.read_array_record,
        ("grain", "array-record"),
        other_peers.write_array_record,
    ),
    "DALI on the CPU": Peer(
        other_peers.read_dali,
        ("nvidia-dali-cuda120",),
        other_peers.write_dali_index,
    ),
    "FFCV": Peer(other_peers.read_ffcv, ("ffcv",), other_peers.write_ffcv),
}


def main() -> None:
    """Measures, prints the table, and writes the figures."""
    # Both end what runs and remove what was written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    signal.signal(signal.SIGINT, lambda *_: sys.exit("interrupted"))
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    flags = vars(_parse())
    parts = flags.pop("only").lower().split(",")
    contenders: dict[str, harness.Contender] = {limits.GATHER: limits.gather}
    contenders |= {
        name: functools.partial(
            consumer.consume,
            read=peer.read,
            write=peer.write,
            whole_epoch=peer.whole_epoch,
        )
        for name, peer in _PEERS.items()
        if name == _OWN or any(part in name.lower() for part in parts)
    }
    benchmark = jobs.Benchmark(
        contenders, timed_process.Plan(), check_data, finish=tell_peers
    )
    options = configuration.Options("peers", **flags)
    print(jobs.run_benchmark(options, benchmark).to_text())


def check_data(options: configuration.Options) -> dict[str, object]:
    """Writes the array from which peers write their formats.

    Raises:
        FileNotFoundError, ValueError: folder and records do not hold the same
            patches, or are too large.
    """
    parameters = jobs.check_records(options, _NUM_COPIES)
    patches = patch_set.find_patches(options)
    if len(patches) != parameters["patches"]:
        raise ValueError(
            f"{options.records_dir}: found {parameters['patches']:,} labelled"
            f" patches, expected the {len(patches):,} of {options.input_dir}."
            " Convert it again."
        )
    patches.write_images()
    return parameters


def tell_peers(
    rows: Sequence[reporting.Row], outcomes: Sequence[harness.Outcome]
) -> list[str]:
    """Adds to rows what each peer is, and the rate of `mmap` to its own."""
    (own,) = [o for o in outcomes if o.name == _OWN]
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome.error is None:
            row["setting"] = _describe(outcome.name)
            row["ratio_of_mmap"] = own.ratio_to(outcome)
    return []


def _describe(name: str) -> str:
    """Returns the versions and the setting of a peer."""
    if name == limits.GATHER:
        return "one uint8 array in memory; a plain loop"
    peer = _PEERS[name]
    versions = [
        f"{package} {reporting.find_version(package) or 'not installed'}"
        for package in peer.packages
    ]
    setting = inspect.getdoc(peer.read) or ""
    return f"{', '.join(versions)}; {' '.join(setting.split())}"


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--input_dir", required=True, help="Kaggle's folder.")
    add("--records_dir", required=True, help="Records of the same folder.")
    add("--scratch_dir", help="Where the peers' formats go; removed again.")
    add("--batch_size", type=int, default=512, help="Patches a batch.")
    add("--num_repeats", type=int, default=7, help="Times each is timed.")
    add("--min_patches", type=int, default=10_000, help="Least of a repeat.")
    add("--min_seconds", type=float, default=1.0, help="Least of a repeat.")
    add("--only", default="", help="Peers with one of these in their names.")
    add("--json_output", help="File for the same as JSON.")
    return parser.parse_args()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
