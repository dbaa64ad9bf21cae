"""Times other ways to feed the same patches, in one run with the project's own.

    make peers
    .venv-peers/bin/python tools/compare_peers.py \
        --input_dir=kaggle --records_dir=records

A peer reads Kaggle's TIFFs, the records, or a format of its own, which is written
first and untimed. Each gives shuffled batches of uint8 patches with labels
unless its setting says otherwise, and is checked before it is timed. Take a
folder of which ten copies fit in memory: disks are not what is compared.

The flags are those of `pcam benchmark`, and --only.
"""

import dataclasses
import functools
import importlib.metadata
import inspect
import logging
import os
import signal
import sys

from absl import app, flags

from pcam_tfdata.cli import benchmark, flag_groups, quiet

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # As the commands do.
with quiet.imports():
    from peers import patch_set, tensorflow_peers, torch_peers

    from pcam_tfdata.benchmark import configuration, harness, jobs, limits

_OWN = "pcam_tfdata mmap"
# How a peer gives batches, its docstring being its setting; then the packages
# whose versions are told.
_PEERS = {
    _OWN: (tensorflow_peers.mmap, "tensorflow"),
    "limit: .npy memmap gather": (torch_peers.gather_npy, "numpy"),
    "Keras ImageDataGenerator": (tensorflow_peers.keras_generator, "keras"),
    "TFDS, PNG Examples": (tensorflow_peers.tfds_png, "tensorflow-datasets"),
    "TFRecordDataset.map(parse_single_example)": (
        tensorflow_peers.parse_single, "tensorflow"
    ),
    "the same, cache()": (tensorflow_peers.cache, "tensorflow"),
    "torch DataLoader, TIFF": (torch_peers.read_tiffs, "torch", "pillow"),
    "torch DataLoader, .npy memmap": (torch_peers.read_npy, "torch", "numpy"),
    "FFCV": (torch_peers.ffcv, "ffcv"),
}  # fmt: skip

flags.adopt_module_key_flags(benchmark)
_ONLY = flags.DEFINE_list("only", [""], "Peers with one of these in the name.")


def main(_: list[str]) -> None:
    """Measures, prints the table, and writes the figures."""
    # Both end what runs and remove what was written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    signal.signal(signal.SIGINT, lambda *_: sys.exit("interrupted"))
    logging.basicConfig(level=logging.INFO, format="%(message)s", force=True)
    contenders: dict[str, harness.Contender] = {limits.GATHER: limits.gather}
    for name, (read, *_) in _PEERS.items():
        is_wanted = any(part.lower() in name.lower() for part in _ONLY.value)
        if name == _OWN or is_wanted:
            contenders[name] = functools.partial(patch_set.consume, read=read)
    options = flag_groups.from_flags(configuration.Options)
    options = dataclasses.replace(options, what="peers")
    try:
        report = jobs.run_benchmark(
            options, contenders, patch_set.write_images, describe_peers
        )
    except (OSError, ValueError) as error:
        sys.exit(str(error))
    print(report.to_text())


def describe_peers(rows: jobs.Rows, outcomes: jobs.Outcomes) -> None:
    """Adds to rows what each peer is, and the rate of `mmap` to its own."""
    own = next(outcome for outcome in outcomes if outcome.name == _OWN)
    for row, outcome in zip(rows, outcomes, strict=True):
        if outcome.error is None:
            read, *packages = _PEERS.get(outcome.name, (limits.gather, "numpy"))
            versions = [
                f"{p} {importlib.metadata.version(p)}" for p in packages
            ]
            setting = " ".join((inspect.getdoc(read) or "").split())
            row["setting"] = f"{', '.join(versions)}; {setting}"
            row["ratio_of_mmap"] = own.ratio_to(outcome)


if __name__ == "__main__":
    if "--help" in sys.argv:
        app.usage(shorthelp=True, writeto_stdout=True, exitcode=0)
    flags.mark_flags_as_required(["input_dir", "records_dir"])
    app.run(main)
