"""Scores of patches that are changed more and more."""

import re

import conftest
import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata import choices
from pcam_tfdata.augmentation import color
from pcam_tfdata.evaluation import stress


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Pink and purple patches."""
    return conftest.make_clouds(4)


def changed(images, name) -> list[np.ndarray]:
    """Patches at each strength of a shift, as a network gets them."""
    seen = []

    def predict(fill, description):
        assert re.fullmatch(rf"{name} -?[\d.]+", description)
        batch = tf.function(fill)({"image": tf.constant(images)})
        assert batch["image"].dtype == tf.uint8
        assert batch["image"].shape == images.shape
        seen.append(batch["image"].numpy().astype(float))
        return {"label": np.array([0, 1, 0, 1]), "logit": np.arange(4.0)}

    rows = list(stress.score_shifts([name], predict, lambda batch: batch))
    assert [row[0] for row in rows] == [name] * len(seen)
    assert [row[2] for row in rows] == [0.75] * len(seen)
    return seen


def test_every_choice_is_a_shift():
    assert tuple(stress._SHIFTS) == choices.STRESSES


def test_brighter_is_brighter(images):
    strengths = (-0.2, -0.1, 0.1, 0.2)
    found = changed(images, "brightness")
    for strength, brighter in zip(strengths, found, strict=True):
        exact = np.clip(images + 255 * strength, 0, 255)
        assert np.abs(brighter - exact).max() < 0.6


def test_hematoxylin_rises_where_eosin_falls(images):
    density = [-np.log((x + 1) / 256) for x in changed(images, "stain")]
    amounts = np.array([d.mean((0, 1, 2)) for d in density])
    hematoxylin, eosin, _ = (amounts @ np.linalg.inv(color.STAINS)).T
    assert (np.diff(hematoxylin) > 0).all()
    assert (np.diff(eosin) < 0).all()


def test_blur_smooths_more_and_more(images):
    edges = [np.abs(np.diff(x, axis=1)).max() for x in changed(images, "blur")]
    assert np.abs(np.diff(images.astype(float), axis=1)).max() > edges[0]
    assert (np.diff(edges) < 0).all()


def test_jpeg_loses_more_and_more(images):
    errors = [((x - images) ** 2).mean() for x in changed(images, "jpeg")]
    assert 0 < errors[0] < errors[-1] < 400
