"""Which patches are worth a look."""

import numpy as np
import pytest

from pcam_tfdata.runs import patch_examples


def test_groups_are_what_their_names_say():
    label = np.array([1, 0, 1, 0, 1, 0, 1, 0])
    logit = np.array([5.0, -4.0, -3.0, 6.0, 0.1, -0.2, 2.0, 1.0])
    chosen = patch_examples.choose(label, logit, 2)
    assert [*chosen] == [*patch_examples.GROUPS]
    assert chosen["surest_wrong"].tolist() == [3, 2]
    assert chosen["least_sure"].tolist() == [4, 5]
    assert chosen["surest_right"].tolist() == [0, 1]


@pytest.mark.parametrize("num_patches", [0, 1, 7, 500])
def test_no_patch_is_chosen_twice(num_patches):
    rng = np.random.default_rng(num_patches)
    label = rng.integers(0, 2, num_patches)
    logit = np.round(rng.normal(size=num_patches), 1)
    chosen = patch_examples.choose(label, logit, 24)
    everything = np.concatenate([*chosen.values()])
    assert len(everything) == len(set(everything.tolist()))
    for places in chosen.values():
        assert np.bincount(label[places], minlength=2).max(initial=0) <= 12
    if num_patches == 500:
        assert [len(places) for places in chosen.values()] == [24] * 3
