"""Trains a network: opens the run, and lets `loop` go on with it."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence

import keras
import tensorflow as tf

from pcam_tfdata.distribution import cluster, strategy, tf_config
from pcam_tfdata.evaluation import dead_network
from pcam_tfdata.models import networks
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import (
    environment_file,
    outputs,
    resumption,
    run_folder,
)
from pcam_tfdata.system import interruption, versions
from pcam_tfdata.training import configuration, loop, optimizers, replica_step

# What may differ between the workers of a run: it is theirs, or the chief's.
_OWN = ("records_dir", "run_dir", "input_threads", "restart")

_logger = logging.getLogger(__name__)


@strategy.keras_settings()
def train(
    options: configuration.TrainOptions,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, float]:
    """Trains a network, or goes on with an unfinished run.

    Validates every epoch, keeps the model of best validation AUC, and writes
    checkpoints. Which patches a step sees, and how they are augmented, follows
    from the seed and the number of the step.

    Ctrl-C and SIGTERM end it after a checkpoint, by the handlers that were there
    before.

    Args:
        options: The run.
        callbacks: Of Keras; they receive the events of `fit`. Batch events come
            once for all steps of a call, as with `steps_per_execution`. Their
            plain attributes are kept in checkpoints.

    Returns:
        `epoch`, `step`, `best_epoch` and `best_val_auc`.

    Raises:
        FileNotFoundError, ValueError: records, splits or options do not fit.
        FileExistsError: the run folder holds something else.
        RuntimeError: another process is training there.
        LostWorkerError: another worker ended, or cannot be reached.
        FloatingPointError: the loss or a gradient is no longer finite.
    """
    outputs.check_new(options.run_dir, "--run_dir")
    job = tf_config.find_job(options.strategy)
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
        job=job,
        worker_wait_seconds=options.worker_wait_seconds,
    )
    group = cluster.Group(job, distribution)
    with group.failures_told():
        records = records_folder.open_folder(options.records_dir)
        options = configuration.settle_splits(options, records)
        if group.count > 1:
            group.check_same(_list_common(options, records, job, distribution))
        configuration.check(options, records, distribution.num_replicas_in_sync)
        return _train(options, records, callbacks, distribution, group)


def _train(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    callbacks: Sequence[keras.callbacks.Callback],
    distribution: tf.distribute.Strategy,
    group: cluster.Group,
) -> dict[str, float]:
    """See `train`; options are settled and checked."""
    # First, so that damaged shards are refused before anything is made.
    training, validation = _open_patches(options, records, distribution, group)
    facts = _list_facts(options, training)
    with _hold_run(options, facts, group):
        with interruption.SignalsDeferred():
            stepped = _make_trainer(options, distribution, training)
            run = loop.Loop(
                options, distribution, stepped, training, validation, group
            )
        if run.is_finished():
            _logger.info("%s: finished before, nothing to do.", options.run_dir)
        else:
            _announce(options, distribution, run, stepped)
            if group.is_chief:
                _note_environment(options, distribution, run, stepped, facts)
            if options.cache == "file":
                run_folder.make_input_cache(options.run_dir)
            try:
                run.go_on(callbacks)
            finally:
                if group.is_chief:
                    run_folder.remove_input_cache(options.run_dir)
    state = run.state
    death = dead_network.summarize(state.history, state.best_epoch)
    if death and group.is_chief:
        _logger.warning(
            "Warning: %s: %s. %s",
            options.run_dir, death, dead_network.TRAIN_REMEDY,
        )  # fmt: skip
    return {
        "epoch": state.epoch,
        "step": state.step,
        "best_epoch": state.best_epoch,
        "best_val_auc": state.best_auc,
    }


@contextlib.contextmanager
def _hold_run(
    options: configuration.TrainOptions,
    facts: Mapping[str, object],
    group: cluster.Group,
) -> Iterator[None]:
    """Holds the run's folder, if this is the chief; other workers write none."""
    if not group.is_chief:
        yield
        return
    with resumption.lock_run(options.run_dir):
        flags = _list_flags(options)
        # A dataclass keeps the defaults of its fields as attributes.
        defaults = {n: getattr(type(options), n, None) for n in flags}
        resumption.open_run(
            options.run_dir,
            flags,
            facts,
            restart=options.restart,
            defaults=defaults,
        )
        yield


def _open_patches(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    distribution: tf.distribute.Strategy,
    group: cluster.Group,
) -> tuple[patch_source.Patches, patch_source.Patches]:
    """Returns those to train on and those to score.

    All workers take the chief's way in: records on a disk and in a bucket would
    have two orders.
    """
    devices = strategy.list_devices(distribution)
    training = None
    if group.is_chief:
        training = patch_source.open_patches(options.training(records), devices)
    if group.count > 1:
        kind = training.input if group.is_chief else ""
        kind = group.bytes_of_chief(kind.encode()).decode()
        options = dataclasses.replace(options, input=kind)
    if training is None:
        training = patch_source.open_patches(options.training(records), devices)
    validation = options.validation(records)
    return training, patch_source.open_patches(validation, devices)


def _list_common(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    job: tf_config.Job,
    distribution: tf.distribute.Strategy,
) -> dict[str, object]:
    """Returns what has to be the same on all workers."""
    flags = dataclasses.asdict(options)
    return {
        **{f"--{name}": flags[name] for name in flags.keys() - set(_OWN)},
        **versions.of_training(),
        "cluster": job.addresses,
        "records of manifest SHA-256": records.manifest_sha256,
        "devices": len(strategy.list_devices(distribution)),
        "precision": strategy.resolve_precision(options.precision),
        "XLA": strategy.resolve_xla(options.xla),
    }


def _list_flags(options: configuration.TrainOptions) -> dict[str, object]:
    """Returns the flags that make a run what it is."""
    flags = dataclasses.asdict(options)
    del flags["restart"]
    return flags


def _list_facts(
    options: configuration.TrainOptions, training: patch_source.Patches
) -> dict[str, object]:
    """Returns what must be the same when a run is resumed, beside flags."""
    return {
        "precision": strategy.resolve_precision(options.precision),
        "input": training.input,
        "order": training.order,
        "manifest_sha256": training.source.records.manifest_sha256,
    }


def _make_trainer(
    options: configuration.TrainOptions,
    distribution: tf.distribute.Strategy,
    training: patch_source.Patches,
) -> replica_step.Trainer:
    recipe = replica_step.Recipe(
        batch_size=options.batch_size,
        seed=options.seed,
        optimizer=optimizers.OptimizerOptions(
            name=options.optimizer,
            learning_rate=options.learning_rate,
            schedule=options.schedule,
            warmup_steps=options.warmup_steps,
            num_steps=configuration.last_step(
                options.epochs, training.num_patches, options.batch_size
            ),
            weight_decay=options.weight_decay,
            ema_decay=options.ema_decay,
        ),
        precision=strategy.resolve_precision(options.precision),
        augment=options.augment,
        class_weights=configuration.resolve_class_weights(
            options, training.source.records
        ),
        clip_norm=options.clip_norm,
        num_accumulated=options.gradient_accumulation_steps,
        xla=strategy.resolve_xla(options.xla),
        sync_batch_norm=options.sync_batch_norm,
    )
    build = functools.partial(networks.build, options.model)
    return replica_step.Trainer(distribution, build, recipe, training.fill)


def _announce(
    options: configuration.TrainOptions,
    distribution: tf.distribute.Strategy,
    run: loop.Loop,
    stepped: replica_step.Trainer,
) -> None:
    """Says what computes where."""
    devices = strategy.describe_devices(distribution)
    _logger.info(
        "%s: %s parameters, %s, on %s; %s training and %s validation patches.",
        options.model,
        f"{stepped.model.count_params():,}",
        stepped.recipe.precision,
        ", ".join(devices),
        f"{run.training.num_patches:,}",
        f"{run.validation.num_patches:,}",
    )
    _logger.info("Input: %s.", run.training.plan)
    if run.state.step:
        _logger.info(
            "Resuming after epoch %d, at step %d.",
            run.state.epoch, run.state.step,
        )  # fmt: skip


def _note_environment(
    options: configuration.TrainOptions,
    distribution: tf.distribute.Strategy,
    run: loop.Loop,
    stepped: replica_step.Trainer,
    facts: Mapping[str, object],
) -> None:
    """Notes in the run's folder what computes where, and by which flags."""
    run_folder.write_flags(options.run_dir, _list_flags(options))
    environment_file.add_start(
        options.run_dir,
        {
            "first_epoch": run.state.epoch + 1,
            "first_step": run.state.step,
            "devices": strategy.describe_devices(distribution),
            "replicas": distribution.num_replicas_in_sync,
            "xla": stepped.recipe.xla,
            **facts,
        },
    )
