"""Nested options take flat values by the names of their leaves."""

import dataclasses

import pytest

from pcam_tfdata.system import nested_options


@dataclasses.dataclass(frozen=True)
class Inner:
    rate: float = 0.5
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Outer:
    path: str
    rate: Inner = dataclasses.field(default_factory=Inner)


def test_leaves_are_filled_wherever_they_are_nested():
    options = nested_options.fill(Outer, {"path": "p", "seed": 3, "other": 1})
    assert options == Outer("p", Inner(seed=3))


def test_leaves_are_listed_in_the_order_of_declaration():
    leaves = nested_options.list_leaves(Outer("p", Inner(rate=2.0)))
    assert list(leaves.items()) == [("path", "p"), ("rate", 2.0), ("seed", 0)]
    assert nested_options.fill(Outer, leaves) == Outer("p", Inner(rate=2.0))


def test_leaf_without_value_and_default_is_missed():
    with pytest.raises(TypeError, match="path"):
        nested_options.fill(Outer, {})
