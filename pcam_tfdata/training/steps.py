"""A network and its optimizer, stepped on the replicas of a strategy."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np
import tensorflow as tf

from pcam_tfdata.augmentation import recipes
from pcam_tfdata.distribution import replicas
from pcam_tfdata.pipeline import batch_format
from pcam_tfdata.training import backbone, weight_average


@dataclasses.dataclass(frozen=True)
class Recipe:
    """What a step does.

    Attributes:
        batch_size: Patches of a step, over all replicas.
        seed: At least 0, less than 2^32; weights, order, augmentation and
            dropout follow from it.
        precision: One of `choices.PRECISIONS`, or another policy of Keras.
        augment: One of `choices.AUGMENTATIONS`.
        class_weights: Factors of the loss of labels 0 and 1; or `balanced`, so
            that both count as much; none for 1 and 1.
        label_smoothing: In the loss, half of this share of each patch has the
            other label (Szegedy et al. 2016).
        clip_norm: The gradients of a step, taken together, are scaled down to
            this norm; 0 leaves them.
        gradient_accumulation_steps: Parts in which each replica works off its
            share of a batch, to save memory; their gradients are summed.
        xla: One of `choices.XLA`: whether to compile the gradients with XLA;
            not done where batch normalization looks at several replicas.
        sync_batch_norm: Batch normalization looks at all replicas.
        ema_decay: Decay of a moving average of the weights, which is what is
            validated and kept; 0 for none.
        backbone_learning_rate_factor: Of the learning rate of all layers but
            the last one.
    """

    batch_size: int = 1024
    seed: int = 0
    precision: str = "auto"
    augment: str = "none"
    class_weights: Sequence[str] = ()
    label_smoothing: float = 0.0
    clip_norm: float = 0.0
    gradient_accumulation_steps: int = 1
    xla: str = "auto"
    sync_batch_norm: bool = True
    ema_decay: float = 0.0
    backbone_learning_rate_factor: float = 1.0


class Trainer:
    """A network and its optimizer, stepped on the replicas of a strategy.

    Args:
        strategy: Strategy on whose replicas steps run.
        build_network: Gives the network: uint8 patches in, a logit [B, 1] out,
            and with `fractions` also the share of tumor, [B, 1].
        build_optimizer: Gives the optimizer, not built yet.
        recipe: What a step does.
        class_weights: The factors that the recipe's class weights mean.
        fill: Called on each replica's part of a batch, see
            `patch_source.Patches.fill`.
        num_frozen_steps: First steps, in which only the head trains.
        fractions: Shares of tumor that the network learns too: float32, by row,
            NaN where not known; None for none.

    Attributes:
        recipe: As given.
        precision: Keras' policy, which `recipe.precision` means here.
        compiles: Whether XLA is asked for, as `recipe.xla` means here.
        class_weights: As given.
        model: The network.
        optimizer: Keras' optimizer; under mixed_float16 with a dynamic loss
            scale.
        variables: What a checkpoint holds: weights, dropout seeds, optimizer,
            moving average. The list is explicit because a checkpoint of Keras or
            of tf.train leaves out the seeds of dropout.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        build_network: Callable[[], keras.Model],
        build_optimizer: Callable[[], keras.Optimizer],
        recipe: Recipe,
        class_weights: tuple[float, float] = (1.0, 1.0),
        fill: Callable[
            [batch_format.Batch], batch_format.Batch
        ] = batch_format.whole,
        num_frozen_steps: int = 0,
        fractions: np.ndarray | None = None,
    ) -> None:
        self._strategy = strategy
        self._fractions = fractions
        self.recipe = recipe
        self.class_weights = class_weights
        self._fill = fill
        self.precision = replicas.resolve_precision(recipe.precision)
        self.compiles = replicas.resolve_xla(recipe.xla)
        settings = replicas.keras_settings(self.precision, recipe.seed)
        with settings, strategy.scope():
            self.model = build_network()
            self.optimizer = build_optimizer()
            if self.precision == "mixed_float16":  # Gradients underflow in it.
                self.optimizer = keras.optimizers.LossScaleOptimizer(
                    self.optimizer
                )
            self.optimizer.build(self.model.trainable_variables)
            self._average = None
            if recipe.ema_decay:
                self._average = weight_average.WeightAverage(
                    self.model.weights, recipe.ema_decay
                )
        self._backbone = backbone.Backbone(
            self.model,
            self.optimizer,
            num_frozen_steps,
            recipe.backbone_learning_rate_factor,
        )
        self._statistics = self.model.non_trainable_weights
        is_synced = recipe.sync_batch_norm and replicas.sync_batch_norm(
            self.model, strategy
        )
        replicas.vary_dropout(self.model, strategy)
        self.model.optimizer = self.optimizer  # For callbacks.
        self.variables = [*self.model.variables, *self.optimizer.variables]
        if self._average:
            self.variables += self._average.variables
        self._gradients = self._gradients_of_part
        if self.compiles and not is_synced:  # XLA cannot look at all replicas.
            self._gradients = tf.function(self._gradients, jit_compile=True)
        self._run_steps = tf.function(self._loop, reduce_retracing=True)

    def run_steps(
        self, batches: Iterator, step: int, num_steps: int, sums: tf.Tensor
    ) -> tuple[tf.Tensor, int, bool]:
        """Runs steps in one call of TensorFlow.

        It ends early with the last step of a frozen backbone, and with a step
        whose loss or gradient is not finite. Such a step changes no weight. With
        a loss scale a gradient counts only where the scale is below 1, for until
        then overflow is what lowers it.

        Args:
            batches: Of `replicas.distribute`.
            step: Number of the first one.
            num_steps: How many.
            sums: float64 [3], of loss, right answers and patches so far.

        Returns:
            The sums with these steps added, one after the other, so that they
            do not depend on how steps are parted into calls; the number of the
            step after the last one; and whether that one was finite.
        """
        num_frozen = self._backbone.num_frozen_steps - step
        is_frozen = num_frozen > 0
        if is_frozen:
            num_steps = min(num_steps, num_frozen)
        freezing = (
            self._backbone.frozen if is_frozen else contextlib.nullcontext
        )
        with freezing():
            sums, step, is_finite = self._run_steps(
                batches,
                tf.constant(step, tf.int64),
                tf.constant(num_steps, tf.int64),
                sums,
                is_frozen,
            )
        return sums, int(step), bool(is_finite)

    @property
    def factors(self) -> dict[str, float]:
        """`learning_rate` of the next step; `loss_scale`, if the loss has one."""
        factors = {"learning_rate": self.optimizer.learning_rate}
        if hasattr(self.optimizer, "dynamic_scale"):
            factors["loss_scale"] = self.optimizer.dynamic_scale
        return {name: float(np.asarray(n)) for name, n in factors.items()}

    def restore(self, values: Sequence[np.ndarray]) -> None:
        """Takes the values that a checkpoint held of `variables`."""
        weight_average.assign(self.variables, values)
        replicas.vary_dropout(self.model, self._strategy)

    @contextlib.contextmanager
    def averaged(self) -> Iterator[None]:
        """Lets the network have the moving average of its weights, if any."""
        average = self._average
        with average.applied() if average else contextlib.nullcontext():
            yield

    def save_model(self, path: str) -> None:
        """Writes the network as a `.keras` file, without its optimizer."""
        self.model.optimizer = None
        self.model.save(path)
        self.model.optimizer = self.optimizer

    def _loop(
        self,
        batches: Iterator,
        step: tf.Tensor,
        num_steps: tf.Tensor,
        sums: tf.Tensor,
        is_frozen: bool,
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        run = self._strategy.run
        end_step = step + num_steps
        is_finite = tf.constant(True)
        while is_finite and step < end_step:
            before = [tf.convert_to_tensor(v.value) for v in self._statistics]
            gradients, part, finite = run(
                self._compute, args=(next(batches), step, is_frozen)
            )
            # The same on all. Decided out here, because a replica may not
            # update variables under a condition.
            is_finite = self._strategy.experimental_local_results(finite)[0]
            if is_finite:
                with self._backbone.slowed(is_frozen):
                    run(self._apply, args=(gradients,))
                if self._average:
                    self._average.update()
                sums += self._strategy.reduce(
                    tf.distribute.ReduceOp.SUM, part, axis=None
                )
            else:  # Batch normalization has looked at the batch.
                for variable, value in zip(
                    self._statistics, before, strict=True
                ):
                    variable.assign(value)
            step += 1
        return sums, step, is_finite

    def _compute(
        self, batch: batch_format.Batch, step: tf.Tensor, is_frozen: bool
    ) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the gradients of the whole batch, in a replica.

        Returns:
            Gradients, summed over all replicas; this replica's sums of loss,
            right answers and patches, float64 [3]; whether all is finite.
        """
        context = tf.distribute.get_replica_context()
        batch = self._fill(batch)
        share = self.recipe.batch_size // context.num_replicas_in_sync
        gradients, part = self._gradients(
            batch["image"],
            batch["label"],
            batch["row"],
            step,
            context.replica_id_in_sync_group * share,
            is_frozen,
        )
        # Of one type, so that workers can send them as one.
        *gradients, loss = context.all_reduce(
            tf.distribute.ReduceOp.SUM,
            [*gradients, tf.cast(part[0], self.model.variable_dtype)],
        )
        are_sound = tf.reduce_all(
            [tf.reduce_all(tf.math.is_finite(total)) for total in gradients]
        )
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            are_sound |= self.optimizer.scale_loss(1.0) >= 1
        is_finite = tf.math.is_finite(loss) & are_sound
        return gradients, part, is_finite

    def _apply(self, gradients: Sequence[tf.Tensor]) -> None:
        """Changes the weights, in a replica."""
        if self.recipe.clip_norm:
            limit = self.optimizer.scale_loss(self.recipe.clip_norm)
            gradients, _ = tf.clip_by_global_norm(gradients, limit)
        apply_sums(self.optimizer, self._backbone.complete(gradients))

    def _gradients_of_part(
        self,
        image: tf.Tensor,
        label: tf.Tensor,
        row: tf.Tensor,
        step: tf.Tensor,
        first: tf.Tensor,
        is_frozen: bool,
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns the gradients and sums of a replica's share of a batch.

        That the backbone is frozen, the network knows by itself; as an argument
        it makes TensorFlow trace the one and the other.
        """
        del is_frozen
        image = recipes.augment(
            image,
            name=self.recipe.augment,
            seed=self.recipe.seed,
            step=step,
            first=first,
            batch_size=self.recipe.batch_size,
        )
        num_parts = self.recipe.gradient_accumulation_steps
        if num_parts == 1:
            return self._differentiate(image, label, row)
        # Unrolled: batch normalization cannot look at all replicas in a loop.
        parts = zip(
            *(tf.split(part, num_parts) for part in (image, label, row)),
            strict=True,
        )
        gradients, sums = zip(
            *(self._differentiate(*part) for part in parts), strict=True
        )
        return list(map(sum, zip(*gradients, strict=True))), sum(sums)

    def _differentiate(
        self, image: tf.Tensor, label: tf.Tensor, row: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns gradients, of the loss scale's size, and sums."""
        dtype = self.model.variable_dtype
        weight = tf.gather(tf.constant(self.class_weights, dtype), label)
        label = tf.cast(label, dtype)
        with tf.GradientTape() as tape:
            logit, *shares = keras.tree.flatten(
                self.model(image, training=True)
            )
            logit = tf.cast(logit[:, 0], dtype)
            smoothing = self.recipe.label_smoothing
            target = label * (1 - smoothing) + smoothing / 2
            losses = tf.nn.sigmoid_cross_entropy_with_logits(target, logit)
            loss_sum = tf.reduce_sum(losses * weight)
            total = loss_sum + self._share_loss(row, shares)
            mean = total / self.recipe.batch_size
            scaled = self.optimizer.scale_loss(mean)
        gradients = tape.gradient(scaled, self.model.trainable_variables)
        right = tf.math.count_nonzero((logit > 0) == (label > 0.5))
        values = (loss_sum, right, tf.size(logit))
        sums = tf.stack([tf.cast(value, tf.float64) for value in values])
        return gradients, sums

    def _share_loss(
        self, row: tf.Tensor, shares: Sequence[tf.Tensor]
    ) -> tf.Tensor | float:
        """Returns the sum of cross entropies of the known shares of tumor."""
        if self._fractions is None:
            return 0.0
        (share,) = shares
        target = tf.gather(tf.constant(self._fractions, share.dtype), row)
        is_known = tf.math.is_finite(target)
        target = tf.where(is_known, target, 0)
        losses = keras.ops.binary_crossentropy(target, share[:, 0])
        return tf.reduce_sum(tf.where(is_known, losses, 0))


def apply_sums(optimizer: keras.Optimizer, sums: Sequence[tf.Tensor]) -> None:
    """Applies gradients summed over all replicas; called in a replica.

    Each replica holds the sum when LossScaleOptimizer looks for Inf, which it
    does on the first replica alone. Keras sums once more, hence the division.
    """
    num_replicas = tf.distribute.get_replica_context().num_replicas_in_sync
    optimizer.apply([total / num_replicas for total in sums])
