"""The difference of two runs, and runs that cannot be compared."""

import subprocess
import sys

import numpy as np
import pytest
import scored_runs

from pcam_tfdata.evaluation import bootstrap, compare, metrics


def predictions(
    num_patches: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, and logits of two networks that err in part alike."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, num_patches)
    shared, *own = rng.normal(size=(3, num_patches))
    first, second = (2 * label - 1 + shared + 0.5 * noise for noise in own)
    return label, first, second


def intervals(label, first, second, slide=None, **options):
    (found,) = bootstrap.compute_difference_intervals(
        label, (first, second), slide, **options
    )
    return found


@pytest.mark.parametrize("has_slides", [True, False])
def test_intervals_are_percentiles_of_paired_differences(has_slides):
    label, first, second = predictions(90)
    unit = np.arange(90) % 30 if has_slides else np.arange(90)
    found = intervals(
        label, first, second, unit if has_slides else None,
        num_resamples=80, seed=5,
    )  # fmt: skip
    rng = np.random.default_rng(5)
    num_units = unit.max() + 1
    differences = []
    for _ in range(80):
        drawn = rng.integers(num_units, size=num_units)
        own = np.concatenate([np.flatnonzero(unit == n) for n in drawn])
        scores = [
            (
                metrics.auc(label[own], logit[own]),
                metrics.nll(label[own], logit[own]),
            )
            for logit in (first, second)
        ]
        differences.append(np.subtract(scores[1], scores[0]))
    expected = np.percentile(differences, (2.5, 97.5), axis=0).T
    for name, interval in zip(bootstrap.COMPARED, expected, strict=True):
        assert found[name] == pytest.approx(interval, abs=1e-12), name


def test_difference_of_a_network_and_itself_is_none():
    label, first, _ = predictions(60)
    found = intervals(label, first, first, num_resamples=50)
    assert found == {"auc": (0, 0), "nll": (0, 0)}


def test_exchanged_networks_negate_the_interval():
    label, first, second = predictions(80)
    found = intervals(label, first, second, num_resamples=100)
    other = intervals(label, second, first, num_resamples=100)
    for name, (low, high) in found.items():
        assert other[name] == pytest.approx((-high, -low), abs=1e-12)


def test_pairs_tell_more_than_two_intervals():
    label, first, second = predictions(300)
    low, high = intervals(label, first, second, num_resamples=200)["nll"]
    alone = bootstrap.compute_intervals(label, first, 0.0, num_resamples=200)
    alone_low, alone_high = alone["intervals"]["nll"]
    assert high - low < alone_high - alone_low


def test_intervals_of_equally_good_networks_have_0():
    num_covering = dict.fromkeys(bootstrap.COMPARED, 0)
    for seed in range(60):
        found = intervals(*predictions(150, seed), num_resamples=100, seed=seed)
        for name, (low, high) in found.items():
            num_covering[name] += low <= 0 <= high
    assert min(num_covering.values()) >= 53


def test_runs_are_compared_by_what_evaluation_wrote(tmp_path):
    label, first, second = predictions(200)
    slide = [f"slide {n % 20:02}" for n in range(200)]
    a = scored_runs.write(tmp_path / "a", label, first, slide)
    b = scored_runs.write(tmp_path / "b", label, second - 8, slide)
    found = compare.compare(str(a), str(b), num_resamples=100)
    nll = [metrics.nll(label, logit) for logit in (first, second - 8)]
    assert found.scores["nll"] == nll
    expected = intervals(label, first, second - 8, slide, num_resamples=100)
    assert found.intervals == expected
    page = compare.format_comparison(found)
    assert "resamples of whole slides, of 20\n" in page
    last = page.splitlines()[-1]
    assert f"{nll[1] - nll[0]:+.4f}  [{expected['nll'][0]:+.4f}, " in last
    assert last.endswith("] excludes 0")
    assert all(len(line) <= 80 for line in page.splitlines()[2:])
    same = compare.compare(str(a), str(a), num_resamples=20)
    assert "includes 0" in compare.format_comparison(same).splitlines()[-1]


def test_one_class_has_no_difference_of_aucs(tmp_path):
    run_dir = scored_runs.write(tmp_path / "a", [1, 1, 1], [0.5, 1, 2])
    found = compare.compare(str(run_dir), str(run_dir), num_resamples=9)
    assert found.scores["auc"] == [None, None]
    assert "AUC         not defined" in compare.format_comparison(found)


@pytest.mark.parametrize(
    ("facts", "label", "told"),
    [
        (
            {"manifest_sha256": "2" * 64},
            [0, 1, 1],
            "of records 11111111 and 22222222, exp",
        ),
        (
            {"splits": ["fold1"]},
            [0, 1, 1, 0],
            "of fold0 and fold1 of records 1",
        ),
        ({}, [1, 1, 1], "expected the same patches"),
    ],
    ids=["records", "rows", "labels"],
)
def test_other_patches_are_refused(tmp_path, facts, label, told):
    logit = np.arange(4.0)
    a = scored_runs.write(tmp_path / "a", [0, 1, 1], logit[:3])
    b = scored_runs.write(tmp_path / "b", label, logit[: len(label)], **facts)
    with pytest.raises(ValueError, match=told):
        compare.compare(str(a), str(b))


def test_command_compares_without_tensorflow(tmp_path):
    label, first, second = predictions(50)
    for name, logit in (("a", first), ("b", second)):
        scored_runs.write(tmp_path / name, label, logit)
    code = (
        "import sys\n"
        "from pcam_tfdata.cli import main\n"
        "try:\n    main.run()\n"
        "finally:\n    assert 'tensorflow' not in sys.modules\n"
    )

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-c", code, "compare", *arguments],
            cwd=tmp_path, capture_output=True, text=True,
        )  # fmt: skip

    result = run("--run_dir=a,b", "--num_resamples=40")
    assert result.returncode == 0, result.stderr
    a, b = (str(tmp_path / name) for name in "ab")
    found = compare.compare(a, b, num_resamples=40)._replace(run_dirs="ab")
    assert result.stdout == compare.format_comparison(found)
    (tmp_path / "b" / "best.keras").write_text("trained on")
    result = run("--run_dir=a,b")
    assert result.returncode == 1
    (told,) = result.stderr.splitlines()
    assert told.startswith("b/predictions.csv: found predictions of an earlier")
    result = run("--run_dir=a")
    assert result.returncode == 2
    assert "--run_dir: found 1 folders, expected two: a,b." in result.stderr
