"""A saved network, and its logits of patches, batch by batch."""

import collections
import dataclasses
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.augmentation import square
from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import (
    classifier_head,
    group_conv,  # noqa: F401, registers its layers.
)
from pcam_tfdata.pipeline import (
    batch_format,
    image_files,
    input_choice,
    patch_source,
)
from pcam_tfdata.records import records_folder
from pcam_tfdata.system import faults, interruption, progress

# Calls whose results nobody has asked for yet. A GPU computes them while Python
# takes the results of the one before.
_CALLS_AHEAD = 2
# Keras' layers and operations, in lower case: those that are an activation, and
# those that leave values as they are.
_ACTIVATIONS = {name.replace("_", "") for name in dir(keras.activations)}
_PASSING = (
    "activation", "cast", "dropout", "flatten", "identity", "reshape", "squeeze",
)  # fmt: skip
# In the order of the columns of predictions.csv.
_RESULTS = ("row", "label", *classifier_head.LAYERS)

Fill = Callable[[batch_format.Batch], batch_format.Batch]
Logits = dict[str, np.ndarray]
_logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class InferenceOptions:
    """How a saved network runs over patches.

    Attributes:
        batch_size: Patches of a forward pass, over all replicas; rounded up to
            what these can share evenly. With several views an eighth of them.
        input: Input mode of records, one of `choices.INPUTS`.
        input_threads: Threads of the input; 0 for as many as it can use.
        tta: Test-time augmentation, one of `choices.TTA`: of which views of a
            patch the logit is the mean.
        devices: What computes.
    """

    batch_size: int = 512
    input: str = "auto"
    input_threads: int = 0
    tta: str = "none"
    devices: replicas.DeviceOptions = dataclasses.field(
        default_factory=replicas.DeviceOptions
    )

    def open_records(
        self, records: records_folder.RecordsFolder, splits: Sequence[str]
    ) -> tuple[tf.distribute.Strategy, patch_source.Patches]:
        """Returns what computes, and the patches of some splits for it.

        Those that are streamed are read once, so none are shuffled in memory.
        """
        strategy = replicas.make_strategy(self.devices)
        source = patch_source.Source(
            records,
            splits,
            patch_source.InputOptions(
                self.input, self.input_threads, shuffle_megabytes=0
            ),
        )
        devices = replicas.list_devices(strategy)
        return strategy, input_choice.open_patches(source, devices)


class Predictor:
    """Runs a network forward over batches, on the replicas of a strategy.

    Args:
        model: Takes uint8 [B, 96, 96, 3], gives a logit [B, 1], and maybe the
            share of tumor in the centre, [B, 1].
        strategy: In whose scope the model was made.
        fill: Called on each replica's part of a batch, see
            `patch_source.Patches.fill`.
        tta: As in `InferenceOptions`.

    Attributes:
        has_fraction: Whether the network gives a tumor fraction, too.
    """

    def __init__(
        self,
        model: keras.Model,
        strategy: tf.distribute.Strategy,
        fill: Fill = batch_format.whole,
        tta: str = "none",
    ) -> None:
        self._strategy = strategy
        self.has_fraction = len(model.outputs) > 1
        self._num_views = _count_views(tta)

        def forward(batch: batch_format.Batch) -> batch_format.Batch:
            batch = fill(batch)
            means = mean_of_views(model, batch["image"], tta)
            kept = {name: batch[name] for name in ("label", "row", "mask")}
            return kept | dict(zip(classifier_head.LAYERS, means, strict=False))

        self._step = tf.function(
            lambda batch: strategy.run(forward, args=(batch,)),
            reduce_retracing=True,
        )

    def stream(
        self,
        batches: tf.data.Dataset,
        num_patches: int,
        description: str,
        check: Callable[[], None] | None = None,
    ) -> Iterator[Logits]:
        """Yields `row`, `label` (int64) and `logit` (float32) of each batch.

        Of a network that gives it, also `fraction` (float32).
        Without the padding, and in order, whatever the number of replicas. A
        signal waits until a batch has been computed.

        Args:
            batches: Evaluation batches of one static size, masked, which the
                replicas can share evenly.
            num_patches: How many there are, for the progress bar.
            description: What the progress bar and errors call it.
            check: Called before each batch is given; what it raises ends them.

        Raises:
            FloatingPointError: a logit is not finite.
        """
        num_done = 0
        parts = iter(replicas.distribute(batches, self._strategy))
        launched: collections.deque[batch_format.Batch] = collections.deque()
        with progress.Progress(num_patches, description) as bar:
            while True:
                with interruption.SignalsDeferred():
                    num_calls = 1 + _CALLS_AHEAD - len(launched)
                    for part in itertools.islice(parts, num_calls):
                        launched.append(self._step(part))
                    if not launched:
                        return
                    logits = self._gather(launched.popleft())
                _check_finite(logits["logit"], description)
                num_done += len(logits["row"])
                bar.advance_to(num_done)
                if check:
                    check()
                yield logits

    def stream_patches(
        self,
        patches: patch_source.Patches | image_files.ImageFiles,
        batch_size: int,
        description: str,
        *,
        first_patch: int = 0,
        end_patch: int | None = None,
    ) -> Iterator[Logits]:
        """Yields what `stream` gives for each batch of patches.

        Args:
            patches: Those whose `fill` the predictor has.
            batch_size: Patches of a forward pass, over all replicas; rounded up
                to what these can share evenly.
            description: What the progress bar and errors call it.
            first_patch: Begins with the batch that has this one. A patch has
                its index in its batch wherever one begins: the index can change
                the last bits of a logit.
            end_patch: Ends with the batch that has the one before; None for all.

        Raises:
            ValueError: a record is damaged.
            FloatingPointError: a logit is not finite.
        """
        batch_size = batch_format.fit_batch_size(
            -(-batch_size // self._num_views),  # For memory.
            patches.num_patches,
            self._strategy.num_replicas_in_sync,
        )
        first_batch = first_patch // batch_size
        end_patch = end_patch or patches.num_patches
        batches = patches.eval_batches(
            batch_size=batch_size, first_batch=first_batch
        ).take(-(-end_patch // batch_size) - first_batch)
        if patches.plan:
            _logger.info("Input: %s.", patches.plan)
            patches.plan = ""  # It is told once.
        # Image files have no records, whose damage could be named.
        opened = [p for p in (patches,) if isinstance(p, patch_source.Patches)]
        with patch_source.damage_named(*opened):
            yield from self.stream(
                batches, end_patch - first_batch * batch_size, description
            )

    def _gather(self, outputs: batch_format.Batch) -> Logits:
        """Returns a batch whose contiguous parts the replicas had, in order."""
        local_results = self._strategy.experimental_local_results
        whole = {
            name: np.concatenate([np.asarray(p) for p in local_results(parts)])
            for name, parts in outputs.items()
        }
        mask = whole["mask"]
        return {name: whole[name][mask] for name in _RESULTS if name in whole}


def mean_of_views(
    model: keras.Model, image: tf.Tensor, tta: str
) -> list[tf.Tensor]:
    """Returns each output of a network, the mean over views: float32 [B].

    Args:
        model: As for `Predictor`.
        image: uint8 [B, 96, 96, 3].
        tta: As in `InferenceOptions`.
    """
    num_views = _count_views(tta)
    if num_views > 1:
        image = square.stack_d4(image)
    outputs = keras.tree.flatten(model(image, training=False))
    return [
        tf.reduce_mean(tf.reshape(output, [num_views, -1]), axis=0)
        for output in outputs
    ]


def _count_views(tta: str) -> int:
    return square.NUM_MOVES if tta == "d4" else 1


def join(batches: Iterable[Logits]) -> Logits:
    """Returns the results of all batches of a stream."""
    streamed = list(batches)
    return {
        name: np.concatenate([batch[name] for batch in streamed])
        for name in streamed[0]
    }


def load(
    path: str,
    strategy: tf.distribute.Strategy,
    fill: Fill = batch_format.whole,
    tta: str = "none",
) -> Predictor:
    """Returns a predictor of a `.keras` file; arguments as for `Predictor`.

    Raises:
        ValueError: see `load_network`.
    """
    with strategy.scope():
        model = load_network(path)
    return Predictor(model, strategy, fill, tta)


def load_network(path: str) -> keras.Model:
    """Returns the network of a `.keras` file.

    Raises:
        ValueError: the file is damaged, or its network does not take such
            patches or gives no logit.
    """
    try:
        # Layers that are loaded draw seeds, too.
        settings = replicas.keras_settings(seed=0)
        with interruption.SignalsDeferred(), settings:
            model = keras.models.load_model(path)
    except Exception as error:  # Keras raises anything on bad bytes.
        raise ValueError(
            f"{path}: found no network that Keras can load"
            f" ({faults.one_line(error, 200)}). Train again."
        ) from error
    _check_network(path, model)
    return model


def _check_network(path: str, model: keras.Model) -> None:
    """Refuses a network that does not take patches, or gives no logit."""
    # A Sequential has no names of outputs.
    names = getattr(model, "output_names", [])
    if names[1:] == [classifier_head.FRACTION]:
        model = keras.Model(model.inputs, model.outputs[0])
    for verb, tensors, dtype, shape in (
        ("takes", model.inputs, "uint8", (None, *schema.IMAGE_SHAPE)),
        ("gives", model.outputs, "float", (None, 1)),
    ):
        fits = [
            tensor.dtype.startswith(dtype)
            and len(tensor.shape) == len(shape)
            and all(map(lambda a, b: a in (None, b), tensor.shape, shape))
            for tensor in tensors
        ]
        if fits != [True]:
            found = ", ".join(f"{t.dtype}{list(t.shape)}" for t in tensors)
            raise ValueError(
                f"{path}: found a network that {verb} {found}, expected"
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
        if function not in (None, keras.activations.linear):
            return getattr(function, "__name__", str(function))
        if name not in _PASSING:
            return name if name in _ACTIVATIONS else "linear"
    return "linear"


def _check_finite(logit: np.ndarray, description: str) -> None:
    num_bad = np.count_nonzero(~np.isfinite(logit))
    if num_bad:
        raise FloatingPointError(
            f"{description}: found a batch with {num_bad:,} logits that are no"
            " finite numbers. The weights have diverged: run pcam train anew"
            " with a lower --learning_rate."
        )
