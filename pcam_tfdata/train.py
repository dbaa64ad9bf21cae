"""Trains a network: opens the run, and lets `loop` go on with it."""

import dataclasses
import functools
import logging
from collections.abc import Sequence

import keras
import tensorflow as tf

from pcam_tfdata import (
    loop,
    manifest,
    models,
    optimizers,
    pipeline,
    run_files,
    strategy,
    train_options,
    trainer,
)

_logger = logging.getLogger(__name__)


def train(
    options: train_options.TrainOptions,
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
        FloatingPointError: the loss or a gradient is no longer finite.
    """
    options = train_options.settle_splits(options)
    distribution = strategy.make_strategy(
        options.strategy,
        num_virtual_devices=options.num_virtual_devices,
        allow_cpu=options.allow_cpu,
    )
    train_options.check(options, distribution.num_replicas_in_sync)
    # First, so that damaged shards are refused before anything is made.
    devices = strategy.list_devices(distribution)
    opened = _settle_input(options)
    training = pipeline.open_patches(opened.training(), devices)
    validation = pipeline.open_patches(opened.validation(), devices)
    with run_files.lock_run(options.run_dir):
        flags = dataclasses.asdict(options)
        restart = flags.pop("restart")
        facts = _list_facts(options, training)
        run_files.open_run(options.run_dir, flags, facts, restart=restart)
        stepped = _make_trainer(options, distribution, training)
        run = loop.Loop(options, distribution, stepped, training, validation)
        if run.is_finished():
            _logger.info("%s: finished before, nothing to do.", options.run_dir)
        else:
            _announce(options, distribution, run, stepped, facts)
            if options.cache == "file":
                run_files.make_input_cache(options.run_dir)
            try:
                run.go_on(callbacks)
            finally:
                run_files.remove_input_cache(options.run_dir)
    state = run.state
    return {
        "epoch": state.epoch,
        "step": state.step,
        "best_epoch": state.best_epoch,
        "best_val_auc": state.best_auc,
    }


def _settle_input(
    options: train_options.TrainOptions,
) -> train_options.TrainOptions:
    """Returns options in which a resumed run keeps its way in.

    The machine may be busier than it was, and `auto` choose another order.
    """
    if options.input != "auto" or options.restart:
        return options
    before = run_files.read_input(options.run_dir)
    return dataclasses.replace(options, input=before or "auto")


def _list_facts(
    options: train_options.TrainOptions, training: pipeline.Patches
) -> dict[str, object]:
    """Returns what must be the same when a run is resumed, beside flags."""
    return {
        "precision": strategy.resolve_precision(options.precision),
        "input": training.input,
        "order": training.order,
        "manifest_sha256": manifest.hash_manifest(options.records_dir),
    }


def _make_trainer(
    options: train_options.TrainOptions,
    distribution: tf.distribute.Strategy,
    training: pipeline.Patches,
) -> trainer.Trainer:
    recipe = trainer.Recipe(
        batch_size=options.batch_size,
        seed=options.seed,
        optimizer=optimizers.OptimizerOptions(
            name=options.optimizer,
            learning_rate=options.learning_rate,
            schedule=options.schedule,
            warmup_steps=options.warmup_steps,
            num_steps=train_options.last_step(
                options.epochs, training.num_patches, options.batch_size
            ),
            weight_decay=options.weight_decay,
            ema_decay=options.ema_decay,
        ),
        precision=strategy.resolve_precision(options.precision),
        augment=options.augment,
        class_weights=train_options.resolve_class_weights(options),
        clip_norm=options.clip_norm,
        num_accumulated=options.gradient_accumulation_steps,
        xla=strategy.resolve_xla(options.xla),
        sync_batch_norm=options.sync_batch_norm,
    )
    build = functools.partial(models.build, options.model)
    return trainer.Trainer(distribution, build, recipe, training.fill)


def _announce(
    options: train_options.TrainOptions,
    distribution: tf.distribute.Strategy,
    run: loop.Loop,
    stepped: trainer.Trainer,
    facts: dict[str, object],
) -> None:
    """Says, and notes in the run's folder, what computes where."""
    devices = strategy.describe_devices(distribution)
    run_files.write_environment(
        options.run_dir,
        {
            "first_epoch": run.state.epoch + 1,
            "first_step": run.state.step,
            "devices": devices,
            "xla": stepped.recipe.xla,
            **facts,
        },
    )
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
