"""Networks that learned nothing are told, and others are not."""

import json
import pathlib
import re

import conftest
import loaded
import numpy as np
import pandas
import pytest
import tables
from conftest import convert_folder, run_pcam

from pcam_tfdata.evaluation import dead_network, metrics, operating_point
from pcam_tfdata.prediction import configuration, submission
from pcam_tfdata.runs import run_folder
from pcam_tfdata.system import csv_files

TOLD = "found a dead network"
LABEL = np.repeat([0, 1], [600, 400])
ENTROPY = dead_network.label_entropy((600, 400))


def noise(size=1000, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size)


def rank_at_random(label=LABEL) -> np.ndarray:
    """Returns different logits whose AUC is as near to 0.5 as can be."""
    logit = np.zeros(len(label))
    for value in (0, 1):
        (places,) = np.nonzero(label == value)
        logit[places] = np.linspace(-1, 1, len(places)) + 1e-3 * value
    assert abs(metrics.auc(label, logit) - 0.5) < 0.025
    return logit


def find(logit, loss=ENTROPY + 0.1, label=LABEL, entropy=ENTROPY):
    return dead_network.find_reason(
        label, np.asarray(logit, np.float32), loss=loss, entropy=entropy
    )


# What is told from labels, logits and loss.


@pytest.mark.parametrize(
    ("logit", "told"),
    [
        (np.zeros(1000), "all 1,000 logits are 0"),
        (np.full(1000, -0.4), "all 1,000 logits are -0.4"),
        (np.full(1000, 1e30), "all 1,000 logits are 1e+30"),
        (3 + 1e-6 * noise(), "all 1,000 logits are 3, but for rounding"),
        (3e9 + 1e3 * noise(), "are 3e+09, but for rounding"),
        (rank_at_random(), "within chance"),
        (1e6 * rank_at_random(), "within chance"),
        (rank_at_random() - 0.4, "0.7730 not below the entropy"),
    ],
    ids=["zero", "one", "huge", "rounded", "rounded huge", "chance",
         "diverged", "shares"],
)  # fmt: skip
def test_a_dead_network_is_found(logit, told):
    assert told in find(logit)


@pytest.mark.parametrize(
    ("logit", "loss"),
    [
        (1e-3 * (noise() + LABEL), ENTROPY + 0.1),
        (1e-9 * (noise() + LABEL), ENTROPY + 0.1),
        (-5 + 1e-2 * (noise() + LABEL), ENTROPY + 3),
        (noise() + 0.3 * LABEL, ENTROPY + 0.1),
        (noise() - 0.3 * LABEL, ENTROPY + 0.1),
        (rank_at_random(), ENTROPY - 1e-3),
        (rank_at_random(), float("nan")),
    ],
    ids=["small", "tiny", "far off", "slow", "upside down", "overfit",
         "no step"],
)  # fmt: skip
def test_a_network_that_is_not_dead_is_left_alone(logit, loss):
    assert find(logit, loss) is None


def test_a_slow_network_is_never_called_dead_whatever_the_data():
    draw = np.random.default_rng(0)
    for _ in range(200):
        label = draw.permutation(np.repeat([0, 1], draw.integers(2, 2000, 2)))
        chance = dead_network.auc_standard_error(label)
        # Better than chance by a little, at any offset, size and loss.
        logit = draw.standard_normal(len(label)) + draw.choice([1, -1]) * label
        auc = metrics.auc(label, logit)
        logit = 10 ** draw.uniform(-4, 4) * (logit + draw.uniform(-9, 9))
        loss = draw.uniform(0, 9)
        are_few = chance > 0.0301 and loss < 2 * np.log(2)
        if abs(auc - 0.5) > 2.01 * chance or are_few:
            assert find(logit, loss, label) is None
        assert find(label + 0.0 * logit + noise(len(label)), 0.0, label) is None


def test_too_few_patches_tell_equal_logits_and_what_diverged():
    label = np.arange(50) % 2
    assert find(rank_at_random(label), label=label) is None
    assert "within chance" in find(rank_at_random(label), 250.0, label)
    assert find(np.ones(50), label=label) == "all 50 logits are 1"
    assert find(np.ones(1), label=label[:1]) is None
    assert find(noise(50), label=np.zeros(50, int)) is None
    assert find(np.ones(50), label=np.zeros(50, int)) is not None


def test_chance_is_as_wide_as_rankings_at_random_are():
    draw = np.random.default_rng(0)
    label = np.repeat([0, 1], [30, 12])
    aucs = [metrics.auc(label, draw.standard_normal(42)) for _ in range(500)]
    # Of 500 the standard deviation is right to 3.2%.
    expected = dead_network.auc_standard_error(label)
    assert np.std(aucs) == pytest.approx(expected, rel=0.15)


# Of seed_cnn on 250 real patches at learning rate 0.0001, and of others.
@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([0.76, 0.70, 0.68, 0.67], [True, True, True, True]),
        ([0.688, 0.687, 0.710], [True, True, False]),
        ([0.69, 0.67, 0.6731, 0.6730], [True, True, False, False]),
        ([900.0, 120.0, 5.0], [False, False, False]),
        ([28.66, 0.7775], [False, False]),
        ([1.2, 1.3], [True, False]),
        ([float("nan")], [False]),
    ],
)
def test_a_loss_that_falls_is_of_a_network_that_learns(losses, expected):
    for weights in ((1.0, 1.0), (2.0, 3.0)):
        scale = 0.6 * weights[0] + 0.4 * weights[1]
        weighted = [scale * loss for loss in losses]
        found = [
            dead_network.is_learning(
                loss, weighted[:place], (600, 400), weights
            )
            for place, loss in enumerate(weighted)
        ]
        assert found == expected
    for logit, is_dead in ((rank_at_random(), False), (np.ones(1000), True)):
        reason = dead_network.find_reason(
            LABEL, logit, loss=0.7, entropy=ENTROPY, is_learning=True
        )
        assert (reason is not None) == is_dead


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 3.0), (2.0, 0.1)])
def test_entropy_is_the_least_loss_of_a_constant(weights):
    counts = (70, 30)
    logit = np.linspace(-6, 6, 100_001)
    losses = (
        counts[0] * weights[0] * np.logaddexp(0, logit)
        + counts[1] * weights[1] * np.logaddexp(0, -logit)
    ) / sum(counts)
    found = dead_network.label_entropy(counts, weights)
    assert found <= losses.min() + 1e-12
    # A step is 1.2e-4, and the loss is a parabola there.
    assert found == pytest.approx(losses.min(), abs=1e-7)


def test_entropy_of_one_label_is_nothing():
    assert dead_network.label_entropy((9, 0)) == 0


def history(*dead) -> list[dict[str, float]]:
    return [
        {"epoch": n, run_folder.IS_DEAD: value}
        for n, value in enumerate(dead, 1)
    ]


@pytest.mark.parametrize(
    ("dead", "best_epoch", "told"),
    [
        ((), 0, None),
        ((0, 0, 0), 2, None),
        ((1, 0, 0), 3, None),
        ((1, 1, 1), 1, "in 3 of 3 epochs, .* of epoch 1, is dead"),
        ((0, 1, 1), 1, "in 2 of 3 epochs, .* of epoch 1, is not"),
        ((1, 0, 0), 1, "in 1 of 3 epochs, .* of epoch 1, is dead"),
        ((None, 1), 1, "in 1 of 2 epochs, .* of epoch 1, is not"),
    ],
)  # fmt: skip
def test_the_end_tells_of_a_dead_network(dead, best_epoch, told):
    found = dead_network.summarize(history(*dead), best_epoch)
    if told is None:
        assert found is None
    else:
        assert re.search(told, found)


# What the commands say.

TRAINING = """
import slow_and_dead
from pcam_tfdata.models import networks
from pcam_tfdata.cli import main

networks.build = slow_and_dead.{name}
main.run({arguments!r})
"""
FLAGS = ("--model=small_cnn", "--batch_size=16", "--epochs=2", "--input=mmap")


def train(name, records_dir, run_dir, *flags) -> list[str]:
    """Trains a network of tests/slow_and_dead.py; returns the lines it said."""
    arguments = [
        "train", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        *FLAGS, *flags,
    ]  # fmt: skip
    program = TRAINING.format(name=name, arguments=arguments)
    process = loaded.Process(program, together=True)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output.splitlines()


def call(command, records_dir, run_dir, *flags) -> str:
    """Runs a command that succeeds; returns its stderr."""
    result = loaded.run(
        command, f"--records_dir={records_dir}", f"--run_dir={run_dir}", *flags
    )
    assert result.returncode == 0, result.stderr
    return result.stderr


def read_dead(run_dir) -> list[tuple[str, ...]]:
    return tables.read_csv(
        str(run_dir / run_folder.HISTORY), (run_folder.IS_DEAD,)
    )


@pytest.fixture(scope="module")
def dead(records_dir, tmp_path_factory) -> tuple[pathlib.Path, list[str]]:
    """A run that its learning rate killed, and what it said."""
    run_dir = tmp_path_factory.mktemp("dead") / "run"
    return run_dir, train("mortal", records_dir, run_dir, "--learning_rate=10")


def test_training_tells_at_each_epoch_and_at_the_end(dead, records_dir):
    run_dir, lines = dead
    *epochs, end = [line for line in lines if TOLD in line]
    assert [line.split(":")[1] for line in epochs] == [" epoch 1", " epoch 2"]
    for line in epochs:
        assert re.search(r": all 15 logits are \S+\. Pass --restart", line)
        assert "--learning_rate, --warmup_steps or another --seed." in line
    assert f"{run_dir}: {TOLD} in 2 of 2 epochs" in end
    assert read_dead(run_dir) == [("1",), ("1",)]
    again = train("mortal", records_dir, run_dir, "--learning_rate=10")
    assert [line for line in again if TOLD in line] == [end]


def test_runs_mark_a_dead_network(dead):
    run_dir, _ = dead
    result = run_pcam("runs", f"--runs_dir={run_dir}")
    header, line = result.stdout.splitlines()
    assert "dead_epochs" in header
    assert "2 of 2" in line


def test_evaluation_of_a_dead_network_warns(dead, records_dir, tmp_path):
    run_dir, _ = dead
    stderr = call("evaluate", records_dir, run_dir, f"--output_dir={tmp_path}")
    (line,) = [line for line in stderr.splitlines() if TOLD in line]
    scores = json.loads((tmp_path / run_folder.METRICS_JSON).read_text())
    assert [f"Warning: {warning}" for warning in scores["warnings"]] == [line]
    text = (tmp_path / run_folder.METRICS_TEXT).read_text()
    assert line in " ".join(text.split())


@pytest.mark.parametrize("flags", [(), ("--threshold=0.5",)], ids=str)
def test_a_csv_of_equal_probabilities_warns(dead, records_dir, tmp_path, flags):
    run_dir, _ = dead
    path = tmp_path / "s.csv"
    flags = (f"--output_csv={path}", *flags)
    stderr = call("predict", records_dir, run_dir, *flags)
    (line,) = [line for line in stderr.splitlines() if "Warning" in line]
    assert f"{path}: found all 7 probabilities equal" in line
    assert "Pass --allow_equal_probabilities" in line
    assert len(tables.read_csv(str(path), ("id", "label"))) == 7
    flags = (*flags, "--allow_equal_probabilities")
    assert "Warning" not in call("predict", records_dir, run_dir, *flags)


def test_merged_parts_of_equal_probabilities_warn(dead, records_dir, tmp_path):
    run_dir, _ = dead
    flag = f"--output_csv={tmp_path / 's.csv'}"
    part = call("predict", records_dir, run_dir, flag, "--shard_range=0:1")
    assert "Warning" not in part
    assert "found all 7 prob" in call(
        "predict", records_dir, run_dir, flag, "--merge"
    )


def test_a_folder_of_equal_probabilities_warns(dead, kaggle_tree, tmp_path):
    run_dir, _ = dead
    result = loaded.run(
        "predict", f"--input_dir={kaggle_tree}", f"--run_dir={run_dir}",
        f"--output_csv={tmp_path / 's.csv'}",
        f"--sample_submission={kaggle_tree / 'sample_submission.csv'}",
    )  # fmt: skip
    assert result.returncode == 0
    assert "found all 7 probabilities equal" in result.stderr


@pytest.mark.parametrize(
    ("logit", "is_told"),
    [
        ([0.0, 0.0], True),
        ([50.0, 900.0], True),  # Of both the probability is 1.
        ([0.0, 1e-6], False),
        ([-900.0, -901.0], True),
        ([0.0], False),
        ([], False),
    ],
    ids=str,
)
def test_probabilities_are_equal_as_the_csv_has_them(
    tmp_path, caplog, logit, is_told
):
    rows = pandas.Series(range(len(logit)), dtype=str)
    path = str(tmp_path / "s.csv")
    options = configuration.PredictOptions("run", path)
    point = operating_point.OperatingPoint()
    results = {"logit": np.array(logit, np.float32)}
    submission.write(options, point, rows, results)
    assert ("probabilities equal" in caplog.text) == is_told
    assert len(tables.read_csv(path, ("id",))) == len(logit)


@pytest.fixture(scope="module")
def easy_records_dir(tmp_path_factory) -> str:
    """Records whose label 1 is dark, enough to tell an AUC of 0.57 from chance."""
    root = tmp_path_factory.mktemp("easy")
    clouds = conftest.make_clouds(490)
    label = np.arange(480) % 2
    clouds[:480][label == 1] //= 2
    train = conftest.write_patches(root / "kaggle" / "train", clouds[:480])
    conftest.write_patches(root / "kaggle" / "test", clouds[480:])
    csv_files.write_csv(
        str(root / "kaggle" / "train_labels.csv"),
        ("id", "label"),
        zip(train, label.tolist(), strict=True),
    )
    convert_folder(str(root / "kaggle"), str(root / "records"))
    return str(root / "records")


@pytest.mark.long
def test_a_network_that_learns_slowly_is_left_alone(easy_records_dir, tmp_path):
    run_dir = tmp_path / "run"
    splits = "--validation_splits=fold0,fold1,fold2,fold3"
    lines = train(
        "convex", easy_records_dir, run_dir, splits, "--optimizer=sgd",
        "--learning_rate=0.00001",
    )  # fmt: skip
    assert "Warning" not in "".join(lines)
    assert read_dead(run_dir) == [("0",), ("0",)]
    rows = tables.read_csv(str(run_dir / run_folder.HISTORY), ("loss",))
    # What it has learned shows in the ranking alone.
    assert all(abs(float(loss) - np.log(2)) < 0.01 for (loss,) in rows)
    stderr = call("evaluate", easy_records_dir, run_dir)
    assert "Warning" not in stderr
    scores = json.loads((run_dir / run_folder.METRICS_JSON).read_text())
    assert scores["warnings"] == []
    flag = f"--output_csv={tmp_path / 's.csv'}"
    assert "Warning" not in call("predict", easy_records_dir, run_dir, flag)
    result = run_pcam("runs", f"--runs_dir={run_dir}")
    assert "dead" not in result.stdout


@pytest.mark.long
def test_seed_cnn_begins_slowly_on_real_patches(real_records_dir, tmp_path):
    """The loss of its first epochs is above the entropy of the labels."""
    run_dir = tmp_path / "run"
    lines = train(
        "seed_cnn", real_records_dir, run_dir, "--train_splits=fold1",
        "--batch_size=32", "--learning_rate=0.0001",
    )  # fmt: skip
    lines += call("evaluate", real_records_dir, run_dir)
    assert "dead" not in "".join(lines)
    assert read_dead(run_dir) == [("0",), ("0",)]
