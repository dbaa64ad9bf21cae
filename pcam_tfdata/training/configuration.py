"""What to train, and whether it can be trained."""

import dataclasses
import math
import os
from collections.abc import Sequence

from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import event_files, run_folder


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """A training run.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of the run; an unfinished run there is resumed.
        model: Network, one of `choices.MODELS`.
        strategy: One of `choices.TRAIN_STRATEGIES`.
        precision: `auto`, `float32`, `mixed_float16` or `mixed_bfloat16`.
        batch_size: Patches of a step, over all replicas.
        epochs: Times that each patch is seen.
        optimizer: One of `choices.OPTIMIZERS`.
        learning_rate: See `optimizers.OptimizerOptions`.
        schedule: Likewise.
        warmup_steps: Likewise.
        weight_decay: Likewise.
        ema_decay: Likewise.
        clip_norm: See `trainer.Recipe`.
        gradient_accumulation_steps: Its `num_accumulated`.
        augment: See there.
        class_weights: Of labels 0 and 1; or `balanced`, so that both count as
            much; none for 1 and 1.
        sync_batch_norm: See there.
        xla: One of `choices.XLA`.
        steps_per_loop: Steps of a call of TensorFlow; 0 for as many as fit in
            a second.
        on_nan: One of `choices.ON_NAN`: what to do where the loss or a gradient
            is not finite.
        early_stopping_patience: Epochs without a better validation AUC after
            which the run ends; 0 for never.
        train_splits: Names; none for all labelled splits not validated on.
        validation_splits: Names.
        seed: Of weights, order, augmentation and dropout.
        checkpoint_every_seconds: Between checkpoints within an epoch; each
            epoch ends with one anyway.
        keep_checkpoints: How many.
        tensorboard: Also write the scores for TensorBoard.
        input: Way in, one of `choices.INPUTS`.
        input_threads: See `pipeline.Source`.
        check_crc: Likewise.
        shuffle_megabytes: Likewise.
        cache: One of `choices.CACHES`; the file is in the run's folder.
        data_service: See `pipeline.Source`; for training batches only.
        data_service_timeout_seconds: Likewise.
        num_virtual_devices: See `strategy.make_strategy`.
        allow_cpu: Likewise.
        worker_wait_seconds: Likewise.
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
    schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float | None = None
    ema_decay: float = 0.0
    clip_norm: float = 0.0
    gradient_accumulation_steps: int = 1
    augment: str = "none"
    class_weights: Sequence[str] = ()
    sync_batch_norm: bool = True
    xla: str = "auto"
    steps_per_loop: int = 0
    on_nan: str = "stop"
    early_stopping_patience: int = 0
    train_splits: Sequence[str] = ()
    validation_splits: Sequence[str] = ("fold0",)
    seed: int = 0
    checkpoint_every_seconds: float = 300.0
    keep_checkpoints: int = 3
    tensorboard: bool = False
    input: str = "auto"
    input_threads: int = 0
    check_crc: str = "first_epoch"
    shuffle_megabytes: int = 128
    cache: str = "none"
    data_service: str | None = None
    data_service_timeout_seconds: float = 300.0
    num_virtual_devices: int = 0
    allow_cpu: bool = False
    worker_wait_seconds: float = 600.0
    restart: bool = False

    def training(
        self, records: records_folder.RecordsFolder
    ) -> patch_source.Source:
        """Returns the patches to train on."""
        cache = self.cache
        if cache == "file":
            cache = os.path.join(
                self.run_dir, run_folder.INPUT_CACHE, "records"
            )
        return dataclasses.replace(
            self._source(records, self.train_splits),
            cache=cache,
            data_service=self.data_service,
            data_service_timeout_seconds=self.data_service_timeout_seconds,
        )

    def validation(
        self, records: records_folder.RecordsFolder
    ) -> patch_source.Source:
        """Returns the patches to score."""
        return self._source(records, self.validation_splits)

    def _source(
        self, records: records_folder.RecordsFolder, splits: Sequence[str]
    ) -> patch_source.Source:
        return patch_source.Source(
            records,
            splits,
            self.input,
            input_threads=self.input_threads,
            check_crc=self.check_crc,
            shuffle_megabytes=self.shuffle_megabytes,
        )


def last_step(num_epochs: int, num_patches: int, batch_size: int) -> int:
    """Returns the number of steps that complete epochs: batches straddle them."""
    return math.ceil(num_epochs * num_patches / batch_size)


def settle_splits(
    options: TrainOptions, records: records_folder.RecordsFolder
) -> TrainOptions:
    """Returns the options with `train_splits` filled in.

    Raises:
        ValueError: a split is unknown, without labels, or on both sides, none
            is left to train on, or the validation lacks a class.
    """
    content = records.content
    validation = content.select(options.validation_splits)
    names = options.train_splits or [
        split.name
        for split in content.splits
        if split.labeled and split not in validation
    ]
    if not names:
        raise ValueError(
            f"--train_splits: found no labelled split in {options.records_dir}"
            f" beside {', '.join(options.validation_splits)}, which is validated"
            " on, expected one to train on. Convert again, into two folds or"
            " more."
        )
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


def check(
    options: TrainOptions,
    records: records_folder.RecordsFolder,
    num_replicas: int,
) -> None:
    """Refuses what cannot be trained.

    Raises:
        ValueError: the batch cannot be shared by the replicas, or is larger
            than an epoch; or flags do not fit each other. The message says what
            to take instead.
    """
    num_patches = options.training(records).count_patches()
    _check_batch_size(options, num_patches, num_replicas)
    num_steps = last_step(options.epochs, num_patches, options.batch_size)
    if options.warmup_steps >= num_steps:
        raise ValueError(
            f"--warmup_steps: found {options.warmup_steps}, expected fewer than"
            f" the {num_steps} steps of the run."
        )
    if options.data_service and options.strategy == "multi_worker":
        raise ValueError(
            "--data_service: found it with --strategy=multi_worker, expected"
            " none: the service gives each worker all patches, in an order of"
            " its own. Let each worker map its copy: --input=mmap."
        )
    if options.cache == "file" and options.strategy == "multi_worker":
        raise ValueError(
            "--cache=file: found it with --strategy=multi_worker, expected"
            " none or memory: workers that share a folder would share the file."
        )
    resolve_class_weights(options, records)
    if options.tensorboard:
        event_files.check_installed()


def _check_batch_size(
    options: TrainOptions, num_patches: int, num_replicas: int
) -> None:
    size, num_parts = options.batch_size, options.gradient_accumulation_steps
    unit = num_replicas * num_parts
    if size % unit:
        below = size - size % unit
        nearest = [n for n in (below, below + unit) if n]
        in_parts = f" in {num_parts} parts each" if num_parts > 1 else ""
        raise ValueError(
            f"--batch_size: found {size}, which {num_replicas} replicas cannot"
            f" share evenly{in_parts}. Take {' or '.join(map(str, nearest))}."
        )
    if size > num_patches:
        raise ValueError(
            f"--batch_size: found {size}, expected at most the number of"
            f" training patches, {num_patches:,}."
        )


def resolve_class_weights(
    options: TrainOptions, records: records_folder.RecordsFolder
) -> tuple[float, float]:
    """Returns the factors of the loss of labels 0 and 1.

    `balanced` is n / (2 n_c), as in scikit-learn.

    Raises:
        ValueError: they are not two numbers above 0.
    """
    given = list(options.class_weights)
    if not given:
        return 1.0, 1.0
    if given == ["balanced"]:
        return _balance(records.count_labels(options.train_splits))
    try:
        negative, positive = map(float, given)
        if not (0 < negative < math.inf and 0 < positive < math.inf):
            raise ValueError
    except ValueError as error:
        raise ValueError(
            f"--class_weights: found {','.join(given)!r}, expected `balanced` or"
            " two numbers above 0, of label 0 and of label 1, as in 1,1.5."
        ) from error
    return negative, positive


def _balance(counts: tuple[int, int]) -> tuple[float, float]:
    if not all(counts):
        raise ValueError(
            "--class_weights=balanced: found training patches of one label"
            " only, expected both."
        )
    negative, positive = (sum(counts) / (2 * count) for count in counts)
    return negative, positive
