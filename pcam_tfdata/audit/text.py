"""An audit's summary as text and as JSON. Pure."""

import json
import re

_NUM_SHOWN = 3
_NUM_WHERE = 6
_HASH = re.compile(r"[0-9a-fA-F]{40}|[0-9a-fA-F]{64}")  # SHA-1, SHA-256.
_HASH_LETTERS = 16
_NAME_LETTERS = 32


def format_json(summary: dict[str, object]) -> str:
    """Returns `job.summarize` as JSON."""
    return json.dumps(summary, indent=1) + "\n"


def format_audit(summary: dict[str, object]) -> str:
    """Returns `job.summarize` as text: the gravest findings first."""
    lines = [_folder_line(folder) for folder in summary["folders"]]
    for found in summary["findings"]:
        lines += ["", *_finding_lines(found)]
    if summary["not_found"]:
        lines += ["", f"Not found: {', '.join(summary['not_found'])}."]
    if summary["num_pairs_left_out"]:
        lines.append(
            f"Not compared: at least {summary['num_pairs_left_out']:,} more"
            " pairs that look alike; there may be near duplicates of any kind"
            " among them."
        )
    return "\n".join([*lines, "", *_split_lines(summary["splits"])]) + "\n"


def _folder_line(folder: dict[str, object]) -> str:
    return (
        f"{folder['records_dir']}: {folder['num_patches']:,} patches, made from"
        f" {folder['source'] or 'an unknown source'}."
    )


def _finding_lines(found: dict[str, object]) -> list[str]:
    lines = [
        f"{found['gravity'].upper()}: {found['title']}",
        f"  {found['text']}",
    ]
    where = list(found["where"].items())
    if len(where) > 1 or found["examples"]:
        shown = [f"{name} {count:,}" for name, count in where[:_NUM_WHERE]]
        more = len(where) - len(shown)
        shown += [f"and {more:,} more"] if more else []
        lines.append(f"  {', '.join(shown)}")
    for example in found["examples"][:_NUM_SHOWN]:
        patches = " | ".join(_patch(patch) for patch in example["patches"][:3])
        note = f" ({example['note']})" if example["note"] else ""
        lines.append(f"  e.g. {patches}{note}")
    return lines


def _patch(patch: dict[str, object]) -> str:
    slide = f" of {patch['slide']}" if patch["slide"] else ""
    return (
        f"{patch['split']} row {patch['row']:,} {_shorten(patch['source_name'])}"
        f"{slide} label {patch['label']}"
    )


def _shorten(name: str) -> str:
    """Returns the part of a name that tells it from others."""
    if _HASH.fullmatch(name):
        return name[:_HASH_LETTERS]
    if len(name) <= _NAME_LETTERS:
        return name
    return f"...{name[-_NAME_LETTERS:]}"


def _split_lines(splits: list[dict[str, object]]) -> list[str]:
    lines = [
        f"{'split':<12}{'patches':>9}{'label 1':>9}{'blank':>7}"
        f"{'tissue':>8}{'  density R    G    B':<22}largest difference"
    ]
    for split in splits:
        if not split["num_patches"]:
            lines.append(f"{split['name']:<12}{0:>9}")
            continue
        share = split["share_of_label_1"]
        shown = "-" if share is None else f"{share:.1%}"
        red, green, blue = split["density"]
        lines.append(
            f"{split['name']:<12}{split['num_patches']:>9,}{shown:>9}"
            f"{split['num_blank']:>7,}{split['tissue']:>8.1%}"
            f"{red:>11.2f} {green:.2f} {blue:.2f}  {_difference(split)}"
        )
    return [
        *lines,
        "Differences from the other labelled splits, in standard deviations of a"
        " patch (Cohen's d):",
        "0.2 is small, 0.5 moderate, 0.8 large; 0 where chance explains it.",
    ]


def _difference(split: dict[str, object]) -> str:
    if not split["shift"]:
        return "-"
    if not split["shift"]["effect"]:
        return "0"
    return f"{split['shift']['effect']:+.2f} in {split['shift']['measure']}"
