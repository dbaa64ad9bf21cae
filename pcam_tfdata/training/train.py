"""Trains a network: opens the run, and lets `loop` go on with it."""

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from pcam_tfdata.data_service import served
from pcam_tfdata.distribution import replicas, tf_config, worker_group
from pcam_tfdata.evaluation import dead_network
from pcam_tfdata.models import networks
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import (
    environment_file,
    outputs,
    resumption,
    run_folder,
)
from pcam_tfdata.system import interruption, versions
from pcam_tfdata.training import (
    checkpoints,
    configuration,
    loop,
    optimizers,
    prepared_run,
    steps,
)

# What may differ between the workers of a run: it is theirs, or the chief's.
_OWN = ("records_dir", "run_dir", "input_threads")

_logger = logging.getLogger(__name__)


@replicas.keras_settings()
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
        callbacks: Callbacks of Keras; they receive the events of `fit`. Batch
            events come once for all steps of a call, as with
            `steps_per_execution`. Their plain attributes are kept in
            checkpoints.

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
    job = tf_config.find_job(options.devices.strategy)
    distribution = replicas.make_strategy(options.devices, job)
    group = worker_group.WorkerGroup(distribution, job)
    with group.failures_told():
        records = records_folder.open_folder(options.records_dir)
        options = configuration.settle_splits(options, records)
        if group.count > 1:
            group.check_same(_list_common(options, records, group))
        configuration.check(options, records, distribution.num_replicas_in_sync)
        # First, so that damaged shards are refused before anything is made.
        training, validation = _open_patches(options, records, group)
        facts = _list_facts(options, training)
        with _hold_run(options, facts, group):
            with interruption.SignalsDeferred():
                trainer = _make_trainer(options, training, group)
                state = checkpoints.restore(options.run_dir, trainer, group)
            run = prepared_run.PreparedRun(
                options, group, trainer, training, validation, state
            )
            _go_on(run, callbacks, facts)
    return {
        "epoch": state.epoch,
        "step": state.step,
        "best_epoch": state.best_epoch,
        "best_val_auc": state.best_auc,
    }


def _open_patches(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    group: worker_group.WorkerGroup,
) -> tuple[patch_source.Patches, patch_source.Patches]:
    """Returns those to train on and those to score.

    All workers take the chief's input mode: records on a disk and in a bucket
    would have two orders.
    """
    devices = replicas.list_devices(group.distribution)
    training = None
    if group.is_chief:
        training = _open_training(options, records, devices)
    if group.count > 1:
        mode = "" if training is None else training.input
        mode = group.bytes_of_chief(mode.encode()).decode()
        of_chief = dataclasses.replace(options.input, input=mode)
        options = dataclasses.replace(options, input=of_chief)
    if training is None:
        training = _open_training(options, records, devices)
    validation = options.validation(records)
    return training, input_choice.open_patches(validation, devices)


def _open_training(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    devices: Sequence[str],
) -> patch_source.Patches:
    source = options.training(records)
    service = options.service
    if not service.data_service:
        return input_choice.open_patches(source, devices)
    return served.open_patches(
        source, service.data_service, service.data_service_timeout_seconds
    )


def _list_common(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    group: worker_group.WorkerGroup,
) -> dict[str, Any]:
    """Returns what has to be the same on all workers."""
    flags = options.list_flags()
    return {
        **{f"--{name}": flags[name] for name in flags.keys() - set(_OWN)},
        **versions.of_training(),
        "cluster": group.addresses,
        "records of manifest SHA-256": records.manifest_sha256,
        "devices": len(replicas.list_devices(group.distribution)),
        "precision": replicas.resolve_precision(options.recipe.precision),
        "XLA": replicas.resolve_xla(options.recipe.xla),
    }


def _list_facts(
    options: configuration.TrainOptions, training: patch_source.Patches
) -> dict[str, Any]:
    """Returns what must be the same when a run is resumed, beside flags."""
    return {
        "precision": replicas.resolve_precision(options.recipe.precision),
        "input": training.input,
        "order": training.order,
        "manifest_sha256": training.source.records.manifest_sha256,
    }


@contextlib.contextmanager
def _hold_run(
    options: configuration.TrainOptions,
    facts: Mapping[str, Any],
    group: worker_group.WorkerGroup,
) -> Iterator[None]:
    """Holds the run's folder, if this is the chief; other workers write none."""
    if not group.is_chief:
        yield
        return
    with resumption.lock_run(options.run_dir):
        resumption.open_run(
            options.run_dir,
            options.list_flags(),
            facts,
            restart=options.restart,
            defaults=configuration.TrainOptions("", "").list_flags(),
        )
        yield


def _make_trainer(
    options: configuration.TrainOptions,
    training: patch_source.Patches,
    group: worker_group.WorkerGroup,
) -> steps.Trainer:
    num_steps = options.last_step(options.epochs, training.num_patches)
    return steps.Trainer(
        group.distribution,
        functools.partial(networks.build, options.model),
        functools.partial(
            optimizers.make_optimizer, options.optimizer, num_steps
        ),
        options.recipe,
        configuration.resolve_class_weights(
            options.recipe.class_weights, training.source.count_labels()
        ),
        training.fill,
    )


def _go_on(
    run: prepared_run.PreparedRun,
    callbacks: Sequence[keras.callbacks.Callback],
    facts: Mapping[str, Any],
) -> None:
    """Trains what is left to train; warns of a dead network."""
    run_dir = run.options.run_dir
    if run.group.is_chief:
        # What came after the checkpoint is dropped, and will come again.
        run_folder.write_history(run_dir, run.state.history)
    if run.is_finished:
        _logger.info("%s: finished before, nothing to do.", run_dir)
    else:
        _announce(run, facts)
        if run.options.input.cache == "file":
            run_folder.make_input_cache(run_dir)
        try:
            loop.train_epochs(run, callbacks)
        finally:
            if run.group.is_chief:
                run_folder.remove_input_cache(run_dir)
    death = dead_network.summarize(run.state.history, run.state.best_epoch)
    if death and run.group.is_chief:
        _logger.warning(
            "Warning: %s: %s. %s", run_dir, death, dead_network.TRAIN_REMEDY
        )


def _announce(run: prepared_run.PreparedRun, facts: Mapping[str, Any]) -> None:
    """Says what computes where; notes it, and the flags, in the run's folder."""
    options, trainer, state = run.options, run.trainer, run.state
    devices = replicas.describe_devices(run.group.distribution)
    _logger.info(
        "%s: %s parameters, %s, on %s; %s training and %s validation patches.",
        options.model,
        f"{trainer.model.count_params():,}",
        trainer.precision,
        ", ".join(devices),
        f"{run.training.num_patches:,}",
        f"{run.validation.num_patches:,}",
    )
    _logger.info("Input: %s.", run.training.plan)
    if state.step:
        _logger.info(
            "Resuming after epoch %d, at step %d.", state.epoch, state.step
        )
    if not run.group.is_chief:
        return
    run_folder.write_flags(options.run_dir, options.list_flags())
    environment_file.add_start(
        options.run_dir,
        {
            "first_epoch": state.epoch + 1,
            "first_step": state.step,
            "devices": devices,
            "replicas": run.group.distribution.num_replicas_in_sync,
            "xla": trainer.compiles,
            **facts,
        },
    )
