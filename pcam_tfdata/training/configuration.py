"""What to train, and whether it can be trained."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from pcam_tfdata import schema
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import networks
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import nested_options
from pcam_tfdata.training import optimizers, steps


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """A training run. Each leaf has the name of a flag of `pcam train`.

    Attributes:
        records_dir: Records folder.
        run_dir: Folder of the run; an unfinished run there is resumed.
        model: Network, one of `choices.MODELS`.
        head: How it ends, one of `choices.HEADS`.
        image_size: Pixels of a side that it enlarges patches to.
        weights: What its backbone starts with: `none`, random weights;
            `imagenet`; or a file, see `pretrained.load`.
        freeze_epochs: First epochs, in which only the head trains.
        devices: What computes.
        recipe: What a step does.
        epochs: Times that each patch is seen.
        optimizer: What becomes of the gradients.
        steps_per_loop: Steps of a call of TensorFlow; 0 for as many as fit in
            a second.
        on_nan: One of `choices.ON_NAN`: what to do where the loss or a gradient
            is not finite.
        early_stopping_patience: Epochs without a better validation AUC after
            which the run ends; 0 for never.
        train_splits: Names; none for all labelled splits not validated on.
        validation_splits: Names.
        checkpoint_every_seconds: Time between checkpoints within an epoch; each
            epoch ends with one anyway.
        keep_checkpoints: How many of the last ones are kept.
        tensorboard: Also write the scores for TensorBoard.
        input: How patches are read; `file` as their cache is one in the run's
            folder, for training alone.
        data_service: Address of the dispatcher of a tf.data service that reads
            training batches; None for this process.
        data_service_timeout_seconds: How long the service may be silent.
        restart: Begins anew in a folder where there is a run.
    """

    records_dir: str
    run_dir: str
    model: str = "resnet_small"
    head: str = "label"
    image_size: int = schema.PATCH_SIZE
    weights: str = "none"
    freeze_epochs: int = 0
    devices: replicas.DeviceOptions = dataclasses.field(
        default_factory=replicas.DeviceOptions
    )
    recipe: steps.Recipe = dataclasses.field(default_factory=steps.Recipe)
    epochs: int = 20
    optimizer: optimizers.OptimizerOptions = dataclasses.field(
        default_factory=optimizers.OptimizerOptions
    )
    steps_per_loop: int = 0
    on_nan: str = "stop"
    early_stopping_patience: int = 0
    train_splits: Sequence[str] = ()
    validation_splits: Sequence[str] = ("fold0",)
    checkpoint_every_seconds: float = 300.0
    keep_checkpoints: int = 3
    tensorboard: bool = False
    input: patch_source.InputOptions = dataclasses.field(
        default_factory=patch_source.InputOptions
    )
    data_service: str | None = None
    data_service_timeout_seconds: float = 300.0
    restart: bool = False

    def list_flags(self) -> dict[str, Any]:
        """Returns name and value of each flag that makes the run what it is."""
        flags = nested_options.list_leaves(self)
        del flags["restart"]
        return flags

    def last_step(self, num_epochs: int, num_patches: int) -> int:
        """Returns how many steps complete epochs, which batches straddle."""
        return math.ceil(num_epochs * num_patches / self.recipe.batch_size)


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
    negative, positive = records.count_labels(options.validation_splits)
    if not negative or not positive:
        raise ValueError(
            f"--validation_splits: found {negative} patches of label 0 and"
            f" {positive} of label 1, expected both: the AUC needs them."
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
    networks.check(options.model, options.head, options.image_size)
    recipe, splits = options.recipe, options.train_splits
    num_patches = records.count_patches(splits)
    unit = num_replicas * recipe.gradient_accumulation_steps
    if recipe.batch_size % unit or recipe.batch_size > num_patches:
        raise ValueError(
            f"--batch_size: found {recipe.batch_size}, expected a multiple of"
            f" {unit}, which replicas can share evenly, of at most the"
            f" {num_patches:,} training patches."
        )
    num_steps = options.last_step(options.epochs, num_patches)
    if options.optimizer.warmup_steps >= num_steps:
        raise ValueError(
            f"--warmup_steps: found {options.optimizer.warmup_steps}, expected"
            f" fewer than the {num_steps} steps of the run."
        )
    if options.freeze_epochs >= options.epochs:
        raise ValueError(
            f"--freeze_epochs: found {options.freeze_epochs}, expected fewer than"
            f" the {options.epochs} --epochs of the run."
        )
    if options.weights == "none" and options.freeze_epochs:
        raise ValueError(
            "--freeze_epochs: found it with --weights=none, expected weights that"
            " are worth keeping. Pass --weights=imagenet or a file."
        )
    is_shared = options.devices.strategy == "multi_worker"
    if is_shared and options.data_service:
        raise ValueError(
            "--data_service: found it with --strategy=multi_worker, expected"
            " none: the service gives each worker all patches, in an order of"
            " its own. Let each worker map its copy: --input=mmap."
        )
    if is_shared and options.input.cache == "file":
        raise ValueError(
            "--cache=file: found it with --strategy=multi_worker, expected"
            " none or memory: workers that share a folder would share the file."
        )
    resolve_class_weights(recipe.class_weights, records.count_labels(splits))


def resolve_class_weights(
    class_weights: Sequence[str], counts: tuple[int, int]
) -> tuple[float, float]:
    """Returns the factors of the loss of labels 0 and 1.

    `balanced` is n / (2 n_c), as in scikit-learn.

    Args:
        class_weights: As in `Recipe`.
        counts: Training patches of label 0 and of label 1.

    Raises:
        ValueError: they are not two numbers above 0, or balance no two labels.
    """
    if not class_weights:
        return 1.0, 1.0
    try:
        if list(class_weights) == ["balanced"]:
            negative, positive = (sum(counts) / (2 * n) for n in counts)
        else:
            negative, positive = map(float, class_weights)
        if not (0 < negative < math.inf and 0 < positive < math.inf):
            raise ValueError
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"--class_weights: found {','.join(class_weights)!r}, for"
            f" {' and '.join(map(str, counts))} patches of label 0 and 1,"
            " expected `balanced` and some of both, or two numbers above 0, of"
            " label 0 and of label 1, as in 1,1.5."
        ) from error
    return negative, positive
