"""A network and batches to logits, each patch once."""

import collections
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.distribution import strategy
from pcam_tfdata.pipeline import patch_source
from pcam_tfdata.system import interruption, progress

# Calls whose results nobody has asked for yet. A GPU computes them while Python
# takes the results of the one before.
_CALLS_AHEAD = 2
# Of Keras' layers and operations, in lower case: those that are an activation,
# and those that leave values as they are.
_ACTIVATIONS = {name.replace("_", "") for name in dir(keras.activations)}
_PASSING = (
    "activation", "cast", "dropout", "flatten", "identity", "reshape", "squeeze",
)  # fmt: skip

_logger = logging.getLogger(__name__)


class Predictor:
    """Runs a network forward over batches, on the replicas of a strategy.

    Args:
        model: Takes uint8 [B, 96, 96, 3], gives a logit [B, 1].
        distribution: In whose scope the model was made.
        fill: Called on each replica's part of a batch, see
            `pipeline.open_patches`.
    """

    def __init__(
        self,
        model: keras.Model,
        distribution: tf.distribute.Strategy,
        fill: Callable[
            [patch_source.Batch], patch_source.Batch
        ] = patch_source.whole,
    ) -> None:
        self._distribution = distribution

        def forward(batch: patch_source.Batch) -> patch_source.Batch:
            batch = fill(batch)
            logit = model(batch["image"], training=False)[:, 0]
            kept = {name: batch[name] for name in ("label", "row", "mask")}
            return kept | {"logit": logit}

        self._step = tf.function(
            lambda batch: distribution.run(forward, args=(batch,)),
            reduce_retracing=True,
        )

    def predict(
        self,
        batches: tf.data.Dataset,
        num_patches: int,
        description: str,
        check: Callable[[], None] | None = None,
    ) -> dict[str, np.ndarray]:
        """Returns `row`, `label` (int64) and `logit` (float32) of each patch.

        Arguments and errors as for `stream`.
        """
        return _join(self.stream(batches, num_patches, description, check))

    def stream(
        self,
        batches: tf.data.Dataset,
        num_patches: int,
        description: str,
        check: Callable[[], None] | None = None,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Yields `row`, `label` (int64) and `logit` (float32) of each batch.

        Without the padding, and in order, whatever the number of replicas.

        Args:
            batches: Of `pipeline.eval_batches`: one static size, masked, which
                the replicas can share evenly.
            num_patches: How many there are, for the progress bar.
            description: For the progress bar.
            check: Called before each batch is given; what it raises ends them.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        num_done = 0
        parts = strategy.distribute(batches, self._distribution)
        with progress.Progress(num_patches, description) as bar:
            calls = _run_ahead(map(self._step, parts), _CALLS_AHEAD)
            for found in _undisturbed(map(self._gather, calls)):
                _check_finite(found["logit"], description)
                num_done += len(found["row"])
                bar.advance_to(num_done)
                if check:
                    check()
                yield found

    def _gather(self, outputs: patch_source.Batch) -> dict[str, np.ndarray]:
        """Returns a batch whose contiguous parts the replicas had, in order."""
        whole = {
            name: np.concatenate(self._local(part))
            for name, part in outputs.items()
        }
        mask = whole.pop("mask")
        return {name: part[mask] for name, part in whole.items()}

    def _local(self, part: tf.Tensor) -> Sequence[np.ndarray]:
        results = self._distribution.experimental_local_results(part)
        return [np.asarray(result) for result in results]


def open_patches(
    source: patch_source.Source, devices: Sequence[str] = ()
) -> patch_source.Patches:
    """Returns patches that are to be read once, see `pipeline.open_patches`.

    Those that `stream` reads need no memory to be shuffled.
    """
    source = dataclasses.replace(source, shuffle_megabytes=0)
    return patch_source.open_patches(source, devices)


def predict_all(
    patches: patch_source.Patches | patch_source.ImageFiles,
    model_path: str,
    distribution: tf.distribute.Strategy,
    batch_size: int,
    description: str,
) -> dict[str, np.ndarray]:
    """Returns what a saved network says of patches, see `Predictor.predict`.

    Arguments and errors as for `stream_all`.
    """
    return _join(
        stream_all(patches, model_path, distribution, batch_size, description)
    )


def stream_all(
    patches: patch_source.Patches | patch_source.ImageFiles,
    model_path: str,
    distribution: tf.distribute.Strategy,
    batch_size: int,
    description: str,
    *,
    first_patch: int = 0,
    end_patch: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields what a saved network says of patches, see `Predictor.stream`.

    Args:
        patches: Of `open_patches`, or files.
        model_path: A `.keras` file.
        distribution: On whose replicas it runs.
        batch_size: Patches of a forward pass, over all replicas; rounded up to
            what these can share evenly.
        description: For the progress bar.
        first_patch: Begins with the batch that has this one. A patch has its
            place in its batch wherever one begins: the place can change the
            last bits of a logit.
        end_patch: Ends with the batch that has the one before; None for all.

    Raises:
        ValueError: the model or a record is damaged.
        FloatingPointError: a logit is not finite.
    """
    predictor = load(model_path, distribution, patches.fill)
    batch_size = patch_source.fit_batch_size(
        batch_size, patches.num_patches, distribution.num_replicas_in_sync
    )
    first_batch = first_patch // batch_size
    end_patch = end_patch or patches.num_patches
    batches = patches.eval_batches(
        batch_size=batch_size, first_batch=first_batch
    ).take(-(-end_patch // batch_size) - first_batch)
    num_patches = end_patch - first_batch * batch_size
    if patches.plan:
        _logger.info("Input: %s.", patches.plan)
    with patch_source.damage_named(patches):
        yield from predictor.stream(batches, num_patches, description)


def load(
    path: str,
    distribution: tf.distribute.Strategy,
    fill: Callable[
        [patch_source.Batch], patch_source.Batch
    ] = patch_source.whole,
) -> Predictor:
    """Returns a predictor of a `.keras` file; arguments as for `Predictor`.

    Raises:
        ValueError: the file is damaged, or its network does not take such
            patches or gives no logit.
    """
    try:
        # Layers that are loaded draw seeds, too.
        settings = strategy.keras_settings(seed=0)
        with interruption.put_off(), settings, distribution.scope():
            model = keras.models.load_model(path)
    except Exception as error:  # Keras raises anything on bad bytes.
        raise ValueError(
            f"{path}: found no network that Keras can load"
            f" ({' '.join(str(error).split())[:200]}). Train again."
        ) from error
    _check_network(path, model)
    return Predictor(model, distribution, fill)


def _check_network(path: str, model: keras.Model) -> None:
    """Refuses a network that does not take patches, or gives no logit."""
    for what, tensors, dtype, shape in (
        ("takes", model.inputs or (), "uint8", (None, *schema.IMAGE_SHAPE)),
        ("gives", model.outputs or (), "float", (None, 1)),
    ):
        found = ", ".join(f"{t.dtype}{list(t.shape)}" for t in tensors)
        if len(tensors) != 1 or not _fits(tensors[0], dtype, shape):
            raise ValueError(
                f"{path}: found a network that {what} {found}, expected"
                f" {dtype}{list(shape)}. Choose the --run_dir of a network that"
                " takes patches as they are and gives a logit."
            )
    activation = _find_activation(model)
    if activation != "linear":
        raise ValueError(
            f"{path}: found a network that ends in {activation}, expected a"
            " logit, before any activation. Save it without its last one, or"
            " choose another --run_dir."
        )


def _fits(
    tensor: keras.KerasTensor, dtype: str, shape: Sequence[int | None]
) -> bool:
    sizes = tensor.shape
    return (
        tensor.dtype.startswith(dtype)
        and len(sizes) == len(shape)
        and all(a in (None, b) for a, b in zip(sizes, shape, strict=True))
    )


def _find_activation(model: keras.Model) -> str:
    """Returns the name of what a network's last values went through.

    Layers that leave values as they are, are passed over.
    """
    # A Sequential has layers alone; both are in the order of computation.
    for operation in reversed(getattr(model, "operations", model.layers)):
        if isinstance(operation, keras.Model):
            return _find_activation(operation)
        name = type(operation).__name__.lower()
        function = getattr(operation, "activation", None)
        if function is not None and function is not keras.activations.linear:
            return getattr(function, "__name__", str(function))
        if name in _ACTIVATIONS:
            return name
        if name not in _PASSING:
            return "linear"
    return "linear"


def _run_ahead(
    calls: Iterable[patch_source.Batch], num_calls: int
) -> Iterator[patch_source.Batch]:
    """Yields each call's outputs after as many later ones were launched."""
    waiting: collections.deque[patch_source.Batch] = collections.deque()
    for outputs in calls:
        waiting.append(outputs)
        if len(waiting) > num_calls:
            yield waiting.popleft()
    yield from waiting


def _undisturbed(
    batches: Iterator[dict[str, np.ndarray]],
) -> Iterator[dict[str, np.ndarray]]:
    """Yields batches; a signal waits until one has been computed."""
    while True:
        with interruption.put_off():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def _join(
    parts: Iterable[dict[str, np.ndarray]],
) -> dict[str, np.ndarray]:
    whole = list(parts)
    return {
        name: np.concatenate([part[name] for part in whole])
        for name in ("row", "label", "logit")
    }


def _check_finite(logit: np.ndarray, description: str) -> None:
    num_bad = np.count_nonzero(~np.isfinite(logit))
    if num_bad:
        raise FloatingPointError(
            f"{description}: found a batch with {num_bad:,} logits that are no"
            " finite numbers. The weights have diverged: run pcam train anew"
            " with a lower --learning_rate."
        )
