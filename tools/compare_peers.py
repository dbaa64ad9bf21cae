"""Times other ways to feed the same patches, in one run with the project's own.

    make peers
    .venv-peers/bin/python tools/compare_peers.py \
        --input_dir=kaggle --records_dir=records

A peer reads Kaggle's TIFFs, the records, or a format of its own, which is written
first and untimed. Each gives shuffled batches of uint8 patches with labels
unless its setting says otherwise, and is checked before it is timed. Take a
folder of which ten copies fit in memory: disks are not what is compared.
"""

import argparse
import dataclasses
import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Sequence

import install_peers
from peers import consumer, listing, patch_set

from pcam_tfdata.benchmark import (
    configuration,
    contender,
    limits,
    machine,
    measure,
    results,
)
from pcam_tfdata.runs import outputs

_NUM_COPIES = 10


def main() -> None:
    """Measures, prints the table, and writes the figures."""
    # Both end what runs and remove what was written.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    signal.signal(signal.SIGINT, lambda *_: sys.exit("interrupted"))
    # Some peers leave shared memory to multiprocessing's tracker, which removes
    # it, and would say so.
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore::UserWarning:multiprocessing.resource_tracker"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    options = _parse()
    if options.json_output is not None:
        outputs.check_file(
            options.json_output, "--json_output", suffixes=outputs.JSON
        )
    data = configuration.find_data(
        configuration.BenchmarkOptions(
            "input", options.records_dir, batch_size=options.batch_size
        )
    )
    limits.check_memory(data, num_copies=_NUM_COPIES)
    plan = contender.Plan(
        num_repeats=options.num_repeats,
        min_patches=options.min_patches,
        min_seconds=options.min_seconds,
    )
    with tempfile.TemporaryDirectory(
        prefix="peers-", dir=options.scratch_dir
    ) as folder:
        found = patch_set.find(options.input_dir, data, folder)
        outcomes = _measure(_select_peers(options.only), found, plan)
    report = _report(outcomes, data, plan)
    print(results.format_report(report))
    if options.json_output is not None:
        results.write_json(options.json_output, report)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--input_dir", required=True, help="Kaggle's folder.")
    add("--records_dir", required=True, help="Records of the same folder.")
    add("--scratch_dir", help="Where the peers' formats go; removed again.")
    add("--batch_size", type=int, default=512, help="Patches a batch.")
    add("--num_repeats", type=int, default=7, help="Times each is timed.")
    add("--min_patches", type=int, default=10_000, help="Least of a repeat.")
    add("--min_seconds", type=float, default=1.0, help="Least of a repeat.")
    add("--only", default="", help="Peers with one of these in their names.")
    add("--json_output", help="File for the same as JSON.")
    return parser.parse_args()


def _select_peers(only: str) -> list[listing.Peer]:
    """Returns the peers that `only` (A,B,...) names, and the project's own."""
    return [
        peer
        for peer in listing.PEERS
        if peer.name == listing.OWN
        or any(part.lower() in peer.name.lower() for part in only.split(","))
    ]


def _measure(
    peers: Sequence[listing.Peer],
    found: patch_set.PatchSet,
    plan: contender.Plan,
) -> list[measure.Outcome]:
    reasons = _find_uninstalled(peers)
    patch_set.write_array(found)
    reasons |= _write_formats(
        [p for p in peers if p.name not in reasons], found
    )
    limit = contender.Contender(
        limits.GATHER,
        limits.gather,
        {"data": found.data},
        "one uint8 array in memory; a plain loop",
    )
    ready = [_contender(p, found) for p in peers if p.name not in reasons]
    measured = measure.measure([limit, *ready], plan)
    by_name = {outcome.name: outcome for outcome in measured}
    failed = {
        peer.name: measure.Outcome(
            peer.name, listing.describe(peer), error=reasons[peer.name]
        )
        for peer in peers
        if peer.name in reasons
    }
    names = [limits.GATHER, *(peer.name for peer in peers)]
    return [(by_name | failed)[name] for name in names]


def _find_uninstalled(peers: Sequence[listing.Peer]) -> dict[str, str]:
    """Returns why a peer could not be installed, for each of these."""
    if not install_peers.FAILED_FILE.exists():
        return {}
    failed = json.loads(install_peers.FAILED_FILE.read_text())
    return {
        peer.name: f"{package} could not be installed: {reason}"
        for peer in peers
        for package in peer.packages
        for line, reason in failed.items()
        if package in line.split()
    }


def _write_formats(
    peers: Sequence[listing.Peer], found: patch_set.PatchSet
) -> dict[str, str]:
    """Writes the peers' own formats; returns why, for each that failed."""
    # Peers may share a format.
    functions = sorted({(p.module, p.write) for p in peers if p.write})
    writers = [
        contender.Contender(
            f"writing by {module}.{function}",
            consumer.write,
            {"module": module, "function": function, "patches": found},
        )
        for module, function in functions
    ]
    # As contenders: each in a process that can fail, or be ended, by itself.
    outcomes = measure.measure(writers, contender.Plan(num_repeats=0))
    errors = [outcome.error for outcome in outcomes]
    error_of = dict(zip(functions, errors, strict=True))
    return {
        peer.name: f"writing its format: {error}"
        for peer in peers
        if (error := error_of.get((peer.module, peer.write)))
    }


def _contender(
    peer: listing.Peer, found: patch_set.PatchSet
) -> contender.Contender:
    arguments = {
        "module": peer.module,
        "function": peer.read,
        "patches": found,
        "whole_epoch": peer.whole_epoch,
    }
    return contender.Contender(
        peer.name, consumer.consume, arguments, listing.describe(peer)
    )


def _report(
    outcomes: Sequence[measure.Outcome],
    data: configuration.Data,
    plan: contender.Plan,
) -> results.Report:
    rows = results.summarize(outcomes, limits.GATHER)
    (own,) = [o for o in outcomes if o.name == listing.OWN]
    ratios = [results.median_ratio(own, outcome) for outcome in outcomes]
    report = results.build(
        machine.describe(), {"what": "peers"} | data.parameters(), plan, rows
    )
    shown = ["mmap to it"] + [
        "" if ratio is None else f"{ratio:.2f}" for ratio in ratios
    ]
    table = [
        [*cells, ratio]
        for cells, ratio in zip(results.list_cells(rows), shown, strict=True)
    ]
    return dataclasses.replace(
        report,
        rows=[
            row if ratio is None else row | {"ratio_of_mmap": ratio}
            for row, ratio in zip(report.rows, ratios, strict=True)
        ],
        table=results.format_table(table),
        notes=[
            "",
            *(f"{row.name}: {row.setting}" for row in rows if not row.error),
            "",
            *(f"{row.name}: failed: {row.error}" for row in rows if row.error),
        ],
    )


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(str(error))
