"""Networks that learned nothing, told from those that learn slowly. No I/O.

A network is dead where it gives all patches one logit, as one does whose ReLUs
are all 0; or where it ranks patches as chance does, its loss is not below the
entropy of the labels, which a network reaches that knows but their shares, and
that loss no longer falls. One that learns slowly ranks better than chance long
before its loss is that low, or else its loss falls.

Losses and entropies are in nats. `counts` are the patches of label 0 and of label
1, not both 0, and `weights` the factors of the loss of each.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from pcam_tfdata.evaluation import metrics
from pcam_tfdata.runs import run_folder

REMEDY = "Train anew with a lower learning rate, a warm-up or another seed."
TRAIN_REMEDY = (
    "Pass --restart with a lower --learning_rate, --warmup_steps or another"
    " --seed."
)
# The order in which a thousand terms of one size are summed changes about the
# square root of their number, 32, in units of the last place, either way.
_ROUNDING = 64 * float(np.finfo(np.float32).eps)
# Of 100 networks that rank at random, 95 are this near to an AUC of 0.5.
_NUM_STANDARD_ERRORS = 2
# A slow start may have an AUC of 0.57: where chance is wider than this (of fewer
# than 370 patches) the two are one, unless the loss has diverged.
_WIDEST_CHANCE = 0.06


def are_equal(low: float, high: float) -> bool:
    """Returns whether float32 logits from `low` to `high` differ by rounding.

    The limit is a share of their size: small logits may all be different.
    """
    return high - low <= _ROUNDING * max(abs(low), abs(high))


def find_reason(
    label: np.ndarray,
    logit: np.ndarray,
    *,
    loss: float,
    entropy: float,
    is_learning: bool = False,
) -> str | None:
    """Returns why a network is dead, in words; None where it is not.

    Args:
        label: int [num_patches], 0 or 1, of patches that it is scored on.
        logit: float [num_patches].
        loss: Mean loss of these patches or those it is trained on.
        entropy: Of the labels of the patches of the loss, as `label_entropy`
            returns it.
        is_learning: Whether the training loss still falls, as the function
            `is_learning` returns it; only equal logits count then.
    """
    if len(logit) < 2:
        return None
    low, high = float(np.min(logit)), float(np.max(logit))
    if are_equal(low, high):
        rounding = "" if low == high else ", but for rounding"
        return f"all {len(logit):,} logits are {low:.6g}{rounding}"
    auc = metrics.auc(label, logit)
    if auc is None or is_learning or not loss >= entropy:
        return None
    width = _NUM_STANDARD_ERRORS * auc_standard_error(label)
    has_diverged = loss > 2 * max(entropy, math.log(2))
    if width > _WIDEST_CHANCE and not has_diverged:
        return None
    if abs(auc - 0.5) > width:
        return None
    return (
        f"the AUC {auc:.4f} of {len(logit):,} patches is within chance, 0.5 +-"
        f" {width:.4f}, and the loss {loss:.4f} not below the entropy of the"
        f" labels, {entropy:.4f}"
    )


def is_learning(
    loss: float,
    losses_before: Sequence[float],
    counts: Sequence[int],
    weights: Sequence[float] = (1.0, 1.0),
) -> bool:
    """Returns whether an epoch's mean loss is lower than in all epochs before.

    No loss may be twice that of a network that is not trained, whose logits are
    all 0, or more: one that comes down from there is of weights that diverged.
    """
    limit = 2 * math.log(2) * float(np.average(weights, weights=counts))
    return (
        loss < min([limit, *losses_before])
        and max(losses_before, default=0) < limit
    )


def auc_standard_error(label: np.ndarray) -> float:
    """Returns the standard error of the AUC of a ranking at random.

    That of the Mann-Whitney statistic (Hanley & McNeil 1982): of n0 patches of
    label 0 and n1 of label 1, the square root of (n0 + n1 + 1) / (12 n0 n1).
    """
    negative, positive = np.bincount(label, minlength=2).tolist()
    return math.sqrt((negative + positive + 1) / (12 * negative * positive))


def label_entropy(
    counts: Sequence[int], weights: Sequence[float] = (1.0, 1.0)
) -> float:
    """Returns the least mean loss of one logit for all patches.

    Without weights it is the entropy of the labels.
    """
    masses = [n * w for n, w in zip(counts, weights, strict=True)]
    total = sum(masses)
    nats = -sum(mass * math.log(mass / total) for mass in masses if mass)
    return nats / sum(counts)


def summarize(
    history: Sequence[Mapping[str, float | None]], best_epoch: int
) -> str | None:
    """Returns what a run's history says of dead epochs, in words.

    None where neither its last epoch is dead nor the one of its best model;
    epochs that died on the way and recovered do not matter.

    Args:
        history: A row an epoch.
        best_epoch: The epoch of the best model; 0 for none.
    """
    dead = [row["epoch"] for row in history if row.get(run_folder.IS_DEAD)]
    if not dead or not {history[-1]["epoch"], best_epoch} & {*dead}:
        return None
    best = "is dead" if best_epoch in dead else "is not"
    return (
        f"found a dead network in {len(dead)} of {len(history)} epochs, which"
        f" tells no patch from another; the best model, of epoch {best_epoch},"
        f" {best}"
    )
