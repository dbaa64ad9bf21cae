"""Labels that contradict what else a source says of tumor in the centre."""

import logging
from collections.abc import Mapping

# More than a few are no annotator's slips, but an exchanged or inverted file.
_MAX_CONTRADICTIONS = 5

_logger = logging.getLogger(__name__)


def judge(
    counts: Mapping[str, int], what: str, input_dir: str, on_mismatch: str
) -> None:
    """Warns of labels that contradict something; refuses more than a few.

    Args:
        counts: How many there are in each split.
        what: What they contradict, for the message.
        input_dir: The source, for the message.
        on_mismatch: `fail`, or `warn` to refuse none.

    Raises:
        ValueError: there are more than a few.
    """
    total = sum(counts.values())
    if not total:
        return
    by_split = ", ".join(f"{name} {n:,}" for name, n in counts.items() if n)
    message = (
        f"{input_dir}: found {total:,} labels that contradict {what}"
        f" ({by_split})"
    )
    if total > _MAX_CONTRADICTIONS and on_mismatch == "fail":
        raise ValueError(
            f"{message}, expected {_MAX_CONTRADICTIONS} at most. Look whether"
            " the labels of two splits, or 0 and 1, are exchanged, and mend"
            " them; or pass --on_label_mismatch=warn to keep them."
        )
    _logger.warning(
        "Warning: %s. They are kept; pcam audit lists those against masks.",
        message,
    )
