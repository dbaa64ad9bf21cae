"""Trains a network: opens the run, and lets `loop` go on with it."""

import contextlib
import dataclasses
import functools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.data_service import served
from pcam_tfdata.distribution import replicas, tf_config, worker_group
from pcam_tfdata.evaluation import dead_network
from pcam_tfdata.models import networks, pretrained
from pcam_tfdata.pipeline import input_choice, patch_source
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import (
    checkpoint_files,
    environment_file,
    outputs,
    resumption,
    run_folder,
)
from pcam_tfdata.system import files, interruption, versions
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
) -> checkpoint_files.State:
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
        How far the run has come, with its scores.

    Raises:
        FileNotFoundError, ValueError: records, splits or options do not fit.
        FileExistsError: the run folder holds something else.
        RuntimeError: another process is training there.
        LostWorkerError: another worker ended, or cannot be reached.
        FloatingPointError: the loss or a gradient is no longer finite.
    """
    outputs.check_new(options.run_dir, "--run_dir")
    job = tf_config.find_job(options.devices.strategy)
    strategy = replicas.make_strategy(options.devices, job)
    group = worker_group.WorkerGroup(strategy, job)
    with group.failures_reported(), contextlib.ExitStack() as stack:
        records = records_folder.open_folder(options.records_dir)
        options = configuration.settle_splits(options, records)
        if job.num_workers > 1:  # It hashes the code, and tries XLA.
            group.check_same(_list_common(options, records, group))
        configuration.check(options, records, strategy.num_replicas_in_sync)
        # First, so that damaged shards are refused before anything is made.
        training, validation = _open_patches(options, records, strategy)
        # The same when a run is resumed, beside flags.
        facts: dict[str, Any] = {
            "precision": replicas.resolve_precision(options.recipe.precision),
            "input": training.input,
            "order": training.order,
            "manifest_sha256": records.manifest_sha256,
        }
        weights = _find_weights(options, group)
        with interruption.SignalsDeferred():
            trainer = _make_trainer(options, training, strategy)
            if weights:
                pretrained.load(trainer.model, weights)
        group.wait()  # Nothing is written until all have come so far.
        if job.is_chief:  # The others write nothing.
            stack.enter_context(resumption.lock_run(options.run_dir))
            resumption.open_run(
                options.run_dir,
                options.list_flags(),
                facts,
                restart=options.restart,
                defaults=configuration.TrainOptions("", "").list_flags(),
            )
        with interruption.SignalsDeferred():
            state = checkpoints.restore(options.run_dir, trainer, group)
        if weights:
            facts["weights"] = weights.list_facts()
        run = prepared_run.PreparedRun(
            options, group, trainer, training, validation, state
        )
        _go_on(run, callbacks, facts)
    return state


def _find_weights(
    options: configuration.TrainOptions, group: worker_group.WorkerGroup
) -> pretrained.Weights | None:
    """Returns what the backbone of a new run starts with, if with anything.

    A run that goes on needs it no more. Warns of a network that was trained on
    what this run validates on.
    """
    if options.weights == pretrained.NONE:
        return None
    weights = None
    if options.restart or not checkpoint_files.list_checkpoints(
        options.run_dir
    ):
        weights = pretrained.find(options.model, options.weights)
    expected = group.broadcast(weights and weights.sha256)
    if not weights or not expected:  # Other workers may not see the run.
        return None
    if weights.sha256 != expected:
        raise ValueError(
            f"--weights={options.weights}: found SHA-256 {weights.sha256} on"
            f" this worker, expected the chief's {expected}. Copy its file."
        )
    flags = run_folder.read_flags(os.path.dirname(weights.path))
    seen = run_folder.list_splits(flags, "train_splits")
    if both := sorted(set(seen) & set(options.validation_splits)):
        _logger.warning(
            "Warning: --weights=%s: that network was trained on %s, which this"
            " run validates on: its scores may say nothing of new patches.",
            options.weights, ", ".join(both),
        )  # fmt: skip
    return weights


def _open_patches(
    options: configuration.TrainOptions,
    records: records_folder.RecordsFolder,
    strategy: tf.distribute.Strategy,
) -> tuple[patch_source.Patches, patch_source.Patches]:
    """Returns those to train on and those to score."""
    devices = replicas.list_devices(strategy)
    reading = dataclasses.replace(options.input, cache="none")
    validation = patch_source.Source(
        records, options.validation_splits, reading
    )
    reading = options.input
    if reading.cache == "file":
        folder = os.path.join(options.run_dir, run_folder.INPUT_CACHE)
        cache = os.path.join(folder, "records")
        reading = dataclasses.replace(reading, cache=cache)
    source = patch_source.Source(records, options.train_splits, reading)
    training: patch_source.Patches
    if options.data_service:
        training = served.ServedPatches(
            source, options.data_service, options.data_service_timeout_seconds
        )
    else:
        training = input_choice.open_patches(source, devices)
    return training, input_choice.open_patches(validation, devices)


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
        "input": input_choice.resolve_mode(
            options.input.input, is_remote=files.is_remote(records.path)
        ),
        "manifest_sha256": records.manifest_sha256,
        "precision": replicas.resolve_precision(options.recipe.precision),
        "cluster": group.job.addresses,
        "devices": len(replicas.list_devices(group.strategy)),
        "XLA": replicas.resolve_xla(options.recipe.xla),
    }


def _make_trainer(
    options: configuration.TrainOptions,
    training: patch_source.Patches,
    strategy: tf.distribute.Strategy,
) -> steps.Trainer:
    num_steps = options.last_step(options.epochs, training.num_patches)
    return steps.Trainer(
        strategy,
        functools.partial(
            networks.build, options.model, options.head, options.image_size
        ),
        functools.partial(
            optimizers.make_optimizer, options.optimizer, num_steps
        ),
        options.recipe,
        configuration.resolve_class_weights(
            options.recipe.class_weights, training.source.count_labels()
        ),
        training.fill,
        options.last_step(options.freeze_epochs, training.num_patches),
        _read_fractions(options, training.source.records),
    )


def _read_fractions(
    options: configuration.TrainOptions, records: records_folder.RecordsFolder
) -> np.ndarray | None:
    """Returns the shares of tumor to learn, by row; None for none."""
    if options.head != "fraction":
        return None
    fractions = records.read_tumor_fractions(options.train_splits)
    if np.isnan(fractions).all():
        raise ValueError(
            f"--head=fraction: found no patch in {records.path} whose tumor"
            " fraction is known, expected records of masks. Pass"
            " --head=noisy_or."
        )
    return fractions


def _go_on(
    run: prepared_run.PreparedRun,
    callbacks: Sequence[keras.callbacks.Callback],
    facts: Mapping[str, Any],
) -> None:
    """Trains what is left to train; warns of a dead network."""
    run_dir = run.options.run_dir
    if run.group.job.is_chief:
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
            if run.group.job.is_chief:
                run_folder.remove_input_cache(run_dir)
    death = dead_network.summarize(run.state.history, run.state.best_epoch)
    if death and run.group.job.is_chief:
        _logger.warning(
            "Warning: %s: %s. %s", run_dir, death, dead_network.TRAIN_REMEDY
        )


def _announce(run: prepared_run.PreparedRun, facts: Mapping[str, Any]) -> None:
    """Says what computes where; notes it, and the flags, in the run's folder."""
    options, trainer, state = run.options, run.trainer, run.state
    devices = replicas.describe_devices(run.group.strategy)
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
    if not run.group.job.is_chief:
        return
    run_folder.write_flags(options.run_dir, options.list_flags())
    data = run.training.source.records.content
    environment_file.add_start(
        options.run_dir,
        {
            "first_epoch": state.epoch + 1,
            "first_step": state.step,
            "devices": devices,
            "replicas": run.group.strategy.num_replicas_in_sync,
            "xla": trainer.compiles,
            "data": {
                "by_slide": data.options.get("grouped_by_slide"),
                "class_counts": {s.name: s.class_counts for s in data.splits},
            },
            **facts,
        },
    )
