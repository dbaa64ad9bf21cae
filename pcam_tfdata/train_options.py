"""What to train, and whether it can be trained."""

import dataclasses
import os
from collections.abc import Sequence

from pcam_tfdata import manifest, pipeline, run_files


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """A training run.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of the run; an unfinished run there is resumed.
        model: Network, one of `choices.MODELS`.
        strategy: `one_device` or `mirrored`.
        precision: `auto`, `float32`, `mixed_float16` or `mixed_bfloat16`.
        batch_size: Patches of a step, over all replicas.
        epochs: Times that each patch is seen.
        optimizer: One of `choices.OPTIMIZERS`.
        learning_rate: For the mean of the loss over the whole batch.
        train_splits: Names; none for all labelled splits not validated on.
        validation_splits: Names.
        seed: Of weights, order and dropout.
        input: Way in, one of `choices.INPUTS`.
        input_threads: See `pipeline.Source`.
        check_crc: Likewise.
        shuffle_megabytes: Likewise.
        cache: One of `choices.CACHES`; the file is in the run's folder.
        num_virtual_devices: See `strategy.make_strategy`.
        allow_cpu: Likewise.
        restart: Begins anew in a folder where there is a run.
    """

    records_dir: str
    run_dir: str
    model: str = "seed_cnn"
    strategy: str = "one_device"
    precision: str = "auto"
    batch_size: int = 1024
    epochs: int = 20
    optimizer: str = "adam"
    learning_rate: float = 0.001
    train_splits: Sequence[str] = ()
    validation_splits: Sequence[str] = ("fold0",)
    seed: int = 0
    input: str = "auto"
    input_threads: int = 0
    check_crc: str = "first_epoch"
    shuffle_megabytes: int = 128
    cache: str = "none"
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    restart: bool = False

    def training(self) -> pipeline.Source:
        """Returns the patches to train on."""
        cache = self.cache
        if cache == "file":
            cache = os.path.join(self.run_dir, run_files.INPUT_CACHE, "records")
        return dataclasses.replace(self._source(self.train_splits), cache=cache)

    def validation(self) -> pipeline.Source:
        """Returns the patches to score."""
        return self._source(self.validation_splits)

    def _source(self, splits: Sequence[str]) -> pipeline.Source:
        return pipeline.Source(
            self.records_dir,
            splits,
            self.input,
            input_threads=self.input_threads,
            check_crc=self.check_crc,
            shuffle_megabytes=self.shuffle_megabytes,
        )


def settle_splits(options: TrainOptions) -> TrainOptions:
    """Returns the options with `train_splits` filled in.

    Raises:
        FileNotFoundError: there are no records.
        ValueError: a split is unknown, without labels, or on both sides, or the
            validation lacks a class.
    """
    content = manifest.read(options.records_dir)
    validation = content.select(options.validation_splits)
    names = options.train_splits or [
        split.name
        for split in content.splits
        if split.labeled and split not in validation
    ]
    training = content.select(names)
    shared = set(names) & set(options.validation_splits)
    if shared:
        raise ValueError(
            f"--validation_splits: found {', '.join(sorted(shared))} among"
            " --train_splits too, expected none: a score on training data says"
            " nothing."
        )
    unlabeled = [s.name for s in training + validation if not s.labeled]
    if unlabeled:
        raise ValueError(
            f"found splits without labels, {', '.join(unlabeled)}, expected"
            " labelled ones in --train_splits and --validation_splits."
        )
    for label in ("0", "1"):
        if not sum(split.class_counts[label] for split in validation):
            raise ValueError(
                f"--validation_splits: found no patch of label {label},"
                " expected both labels: the AUC needs them."
            )
    return dataclasses.replace(
        options,
        train_splits=tuple(names),
        validation_splits=tuple(options.validation_splits),
    )


def check_batch_size(options: TrainOptions, num_replicas: int) -> None:
    """Refuses a batch that replicas cannot share, or larger than an epoch.

    Raises:
        ValueError: it is one; the message says what to take instead.
    """
    size = options.batch_size
    if size % num_replicas:
        below = size - size % num_replicas
        nearest = [n for n in (below, below + num_replicas) if n]
        raise ValueError(
            f"--batch_size: found {size}, which {num_replicas} replicas cannot"
            f" share evenly. Take {' or '.join(map(str, nearest))}."
        )
    num_patches = options.training().count_patches()
    if size > num_patches:
        raise ValueError(
            f"--batch_size: found {size}, expected at most the number of"
            f" training patches, {num_patches:,}."
        )
