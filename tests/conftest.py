"""Patches and folders that the tests share."""

import os
import pathlib

import numpy as np
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

_SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture
def random_patch() -> np.ndarray:
    """uint8 [96, 96, 3] of noise."""
    return np.random.default_rng(7).integers(0, 256, (96, 96, 3), np.uint8)


@pytest.fixture(scope="session")
def kaggle_sample() -> pathlib.Path:
    """A folder of real patches, in Kaggle's layout; skips where there is none."""
    path = _SHARED_DATA / "kaggle_sample"
    if not path.is_dir():
        pytest.skip(
            "the real patches of ../shared/data are not on this machine"
        )
    return path
