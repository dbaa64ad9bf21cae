"""How far a run has come."""

import dataclasses


@dataclasses.dataclass
class State:
    """How far a run has come: what a checkpoint holds beside variables.

    Attributes:
        epoch: Epochs completed, with their validation.
        step: Steps done.
        sums: Of loss, right answers and patches in the epoch that is under way.
        num_skipped: Steps of the run that were skipped.
        best_epoch: Of best validation AUC.
        best_auc: That AUC.
        is_stopped: A callback ended the run before its last epoch.
        history: A row an epoch.
        callbacks: See `callback_state.get`.
    """

    epoch: int = 0
    step: int = 0
    sums: list[float] = dataclasses.field(default_factory=lambda: [0.0] * 3)
    num_skipped: int = 0
    best_epoch: int = 0
    best_auc: float = -1.0
    is_stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)
    callbacks: list[dict[str, object]] = dataclasses.field(default_factory=list)
