"""Keywords are flags: their names, defaults, values and bounds."""

import json
import subprocess
import sys
from typing import Any

import pytest

from pcam_tfdata import keywords
from pcam_tfdata.conversion import convert
from pcam_tfdata.evaluation import configuration as evaluation
from pcam_tfdata.evaluation import operating_point
from pcam_tfdata.prediction import configuration as prediction
from pcam_tfdata.system import nested_options
from pcam_tfdata.training import configuration as training

READ = """
import importlib, json, sys
from absl import flags
module = importlib.import_module(f"pcam_tfdata.cli.{sys.argv[1]}")
print(json.dumps({
    flag.name: {
        "default": flag.value, "type": flag.flag_type(),
        "least": getattr(flag.parser, "lower_bound", None),
        "most": getattr(flag.parser, "upper_bound", None),
        "choices": list(getattr(flag.parser, "enum_values", [])),
    }
    for flag in flags.FLAGS.get_key_flags_for_module(module.__name__)
}))
"""
# What the interface gives to the options of each command, and what is a flag
# there but goes elsewhere.
CALLS = {
    "train": ("pcam.train", training.TrainOptions, set()),
    "evaluate": ("Run.evaluate", evaluation.EvaluateOptions, set()),
    "predict": (
        "Run.predict",
        prediction.PredictOptions,
        {"merge", "runner", "beam_options"},
    ),
    "convert_to_tfrecords": ("pcam.convert", convert.ConvertOptions, set()),
}
# No flags.
INNER = {"unpacked_dir", "worker_wait_seconds"}
# Any number is a seed of folds for the command.
LOOSER = {("convert_to_tfrecords", "seed")}


@pytest.fixture(scope="module", params=CALLS)
def command(request) -> tuple[str, dict[str, dict[str, Any]]]:
    result = subprocess.run(
        [sys.executable, "-c", READ, request.param],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return request.param, json.loads(result.stdout)


def build(name: str, **given) -> dict[str, Any]:
    call, kind, _ = CALLS[name]
    required = {
        "run_dir": "run", "records_dir": "records", "output_csv": "s.csv",
        "input_dir": "kaggle", "output_dir": "records", "source": "kaggle",
    }  # fmt: skip
    leaves = nested_options.list_fields(kind)
    known = {n: v for n, v in required.items() if n in leaves}
    return nested_options.list_leaves(keywords.build(call, kind, known | given))


def test_names_are_those_of_flags(command):
    name, flags = command
    leaves = nested_options.list_fields(CALLS[name][1]).keys()
    assert leaves - INNER == flags.keys() - CALLS[name][2] - INNER


def test_defaults_are_those_of_flags(command):
    name, flags = command
    found = build(name)
    required = ("_dir", "_csv", "source")
    for leaf in found.keys() & flags.keys():
        default, own = flags[leaf]["default"], found[leaf]
        if leaf.endswith(required) or (default is None and own == ""):
            continue
        assert (list(own) if isinstance(own, tuple) else own) == default, leaf
        if not isinstance(own, tuple):
            assert type(own) is type(default), leaf


def test_numbers_have_the_bounds_of_flags(command):
    name, flags = command
    leaves = nested_options.list_fields(CALLS[name][1])
    numeric = {
        n: f for n, f in flags.items() if n in leaves and f["type"] in
        ("int", "float")
    }  # fmt: skip
    assert numeric
    for leaf, flag in numeric.items():
        if (name, leaf) in LOOSER:
            continue
        # A flag whose numbers are free is of finite ones.
        assert flag["least"] is not None, leaf
        assert build(name, **{leaf: flag["least"]})[leaf] == flag["least"]
        step = 1 if flag["type"] == "int" else 1e-12
        with pytest.raises(ValueError, match=rf"\({leaf}=.*expected a number"):
            build(name, **{leaf: flag["least"] - step})
        most = flag["most"]
        if most is None:
            build(name, **{leaf: 10**9})
            continue
        assert build(name, **{leaf: most})[leaf] == most
        with pytest.raises(ValueError, match=rf"\({leaf}=.*expected a number"):
            build(name, **{leaf: most * 2})


def test_names_of_values_are_those_of_flags(command):
    name, flags = command
    leaves = nested_options.list_fields(CALLS[name][1])
    for leaf, flag in flags.items():
        if not flag["choices"] or leaf not in leaves:
            continue
        for choice in flag["choices"]:
            assert build(name, **{leaf: choice})[leaf] == choice
        with pytest.raises(ValueError) as refused:
            build(name, **{leaf: "no such"})
        expected = f"expected {', '.join(flag['choices'])}."
        assert str(refused.value).endswith(expected)


def test_unknown_keyword_is_a_type_error_that_names_the_right_one():
    with pytest.raises(TypeError) as refused:
        build("train", epoch=3)
    assert str(refused.value).startswith(
        "pcam.train() got an unexpected keyword argument 'epoch'. Did you mean"
        " 'epochs'? It takes allow_cpu, "
    )


@pytest.mark.parametrize(
    ("command", "name", "value", "expected"),
    [
        ("train", "train_splits", "fold1,fold2", ("fold1", "fold2")),
        ("train", "train_splits", ["fold1"], ("fold1",)),
        ("train", "class_weights", "balanced", ("balanced",)),
        ("train", "learning_rate", 1, 1.0),
        ("train", "weight_decay", None, None),
        ("evaluate", "threshold", "0.25", 0.25),
        ("evaluate", "threshold", "sensitivity:0.95",
         operating_point.Wanted("sensitivity", 0.95)),
    ],
)  # fmt: skip
def test_values_become_those_of_flags(command, name, value, expected):
    found = build(command, **{name: value})[name]
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", "5"), ("epochs", 2.0), ("epochs", None),
        ("learning_rate", "0.1"), ("restart", "no"), ("model", 3),
        ("train_splits", 3),
    ],
)  # fmt: skip
def test_value_of_another_type_is_a_type_error(name, value):
    with pytest.raises(TypeError, match=rf"pcam.train\({name}=.* expected "):
        build("train", **{name: value})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_are_finite(value):
    with pytest.raises(ValueError, match="expected a number from 0"):
        build("train", checkpoint_every_seconds=value)


def test_unknown_stress_is_refused():
    with pytest.raises(ValueError, match="expected stain, brightness"):
        build("evaluate", stress=("stain", "rain"))


def test_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build("train", run_dir="~/run")["run_dir"] == f"{tmp_path}/run"
