"""The table and the rows of a benchmark."""

import pytest

from pcam_tfdata.benchmark import harness, reporting


def outcome_of(name: str, *rates: float, **usage) -> harness.Outcome:
    repeats = [harness.Repeat(1000, 1000 / rate, **usage) for rate in rates]
    return harness.Outcome(name, repeats)


def list_rows(*outcomes: harness.Outcome) -> list[reporting.Row]:
    return [reporting.make_row(outcome, outcomes[0]) for outcome in outcomes]


def test_ratio_is_the_median_of_the_ratios_of_each_round():
    limit = outcome_of("limit", 100, 1000, 400)
    other = outcome_of("other", 50, 200, 300)  # 0.5, 0.2, 0.75.
    row = list_rows(limit, other)[1]
    assert row["ratio_to_limit"] == pytest.approx(0.5)
    assert row["patches_per_second"] == pytest.approx(200)
    assert row["patches_per_second_min"] == pytest.approx(50)
    assert row["patches_per_second_max"] == pytest.approx(300)
    assert row["megabytes_per_second"] == pytest.approx(200 * 27_648 / 1e6)


def test_usage_is_the_largest_memory_and_the_median_time():
    usage = {"cpu_seconds": 2.0, "peak_bytes": 3_000_000}
    (row,) = list_rows(outcome_of("limit", 10, **usage))
    assert row["peak_rss_mb"] == pytest.approx(3)
    assert row["cpu_seconds_per_1000_patches"] == pytest.approx(2)


def test_what_is_not_measured_is_said_and_null():
    rows = list_rows(outcome_of("limit", 10))
    assert "not measured" in reporting.format_table(rows)
    assert rows[0]["peak_rss_mb"] is None


def test_a_failed_row_has_only_its_reason():
    failed = harness.Outcome("bad", error="no such module")
    rows = list_rows(outcome_of("limit", 10), failed)
    assert rows[1] == {
        "name": "bad",
        "error": "no such module",
    }
    assert "bad: failed: no such module" in reporting.format_table(rows)


def test_a_failed_limit_leaves_the_rates():
    limit = harness.Outcome("limit", error="no such module")
    row = list_rows(limit, outcome_of("other", 10))[1]
    assert row["ratio_to_limit"] is None
    assert row["patches_per_second"] == pytest.approx(10)


def test_seconds_are_told_with_their_ratio_the_other_way_round():
    limit, other = outcome_of("limit", 1000), outcome_of("other", 500)
    row = reporting.make_row(other, limit, "seconds")
    assert row["seconds"] == row["seconds_min"] == row["seconds_max"] == 2
    assert row["ratio_to_limit"] == 2
    head, _ = reporting.format_table([row]).splitlines()
    assert head.split() == ["seconds", "min-max", "ratio", "to", "limit"]
