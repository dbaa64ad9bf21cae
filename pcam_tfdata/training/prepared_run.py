"""A run that is ready to train."""

import dataclasses

from pcam_tfdata.distribution import worker_group
from pcam_tfdata.pipeline import batch_format, patch_source
from pcam_tfdata.runs import checkpoint_files
from pcam_tfdata.training import configuration, steps


@dataclasses.dataclass(frozen=True)
class PreparedRun:
    """What a run trains with.

    Attributes:
        options: The run's options, settled and checked.
        group: The workers that train together; its chief writes what is kept.
        trainer: The network and its optimizer.
        training: Patches to train on.
        validation: Patches to score.
        state: How far the run is; it goes on from there.
    """

    options: configuration.TrainOptions
    group: worker_group.WorkerGroup
    trainer: steps.Trainer
    training: patch_source.Patches
    validation: patch_source.Patches
    state: checkpoint_files.State

    @property
    def is_finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.state.is_stopped or self.state.epoch >= self.options.epochs

    @property
    def portion(self) -> batch_format.Portion:
        """What this worker takes of each batch."""
        job = self.group.job
        return batch_format.Portion(job.index, job.num_workers)

    def last_step(self, num_epochs: int) -> int:
        """Returns how many steps complete epochs, which batches straddle."""
        return self.options.last_step(num_epochs, self.training.num_patches)
