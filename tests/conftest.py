"""Patches and folders that the tests share."""

import os
import pathlib
import subprocess
import sys

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import pytest

from pcam_tfdata import convert, schema, tables, tiff

_SHARED_DATA = pathlib.Path(__file__).parents[2] / "shared" / "data"
NUM_TRAIN, NUM_TEST, NUM_SLIDES = 60, 7, 12


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


def write_patch(folder: pathlib.Path, rng: np.random.Generator) -> str:
    """Writes a patch of noise around a color; returns its id."""
    noise = rng.integers(0, 64, schema.IMAGE_SHAPE)
    image = (rng.integers(0, 192, 3) + noise).astype(np.uint8)
    name = schema.hash_pixels(image)
    (folder / f"{name}.tif").write_bytes(tiff.encode(image))
    return name


def write_kaggle_tree(root: pathlib.Path) -> pathlib.Path:
    """Writes a small folder in Kaggle's layout, with slides.csv."""
    rng = np.random.default_rng(0)
    for name in ("train", "test"):
        (root / name).mkdir(parents=True)
    train = [write_patch(root / "train", rng) for _ in range(NUM_TRAIN)]
    test = [write_patch(root / "test", rng) for _ in range(NUM_TEST)]
    labels = [(name, place % 5 // 3) for place, name in enumerate(train)]
    slides = [(name, f"s{n % NUM_SLIDES}") for n, name in enumerate(train)]
    zeros = [(name, 0) for name in test]
    tables.write_csv(str(root / "train_labels.csv"), ("id", "label"), labels)
    tables.write_csv(
        str(root / "sample_submission.csv"), ("id", "label"), zeros
    )
    tables.write_csv(str(root / "slides.csv"), ("id", "wsi"), slides)
    return root


@pytest.fixture
def kaggle_tree(tmp_path) -> pathlib.Path:
    """A small folder in Kaggle's layout that a test may spoil."""
    return write_kaggle_tree(tmp_path / "kaggle")


@pytest.fixture(scope="session")
def records_dir(tmp_path_factory) -> str:
    """Records of the small folder: five folds of several shards, and test."""
    root = tmp_path_factory.mktemp("records")
    output_dir = str(root / "records")
    tree = write_kaggle_tree(root / "kaggle")
    convert.convert(
        convert.ConvertOptions(
            input_dir=str(tree),
            output_dir=output_dir,
            slide_csv=str(tree / "slides.csv"),
            shard_megabytes=0.2,  # 7 records.
        )
    )
    return output_dir


@pytest.fixture(scope="session")
def virtual_devices() -> list[str]:
    """Two virtual CPU devices, for tests with replicas."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    if not tf.config.get_logical_device_configuration(cpu):
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 2
        )
    return [device.name for device in tf.config.list_logical_devices("CPU")]


@pytest.fixture(scope="session", autouse=True)
def _split_cpu_before_tensorflow_starts(virtual_devices) -> None:
    """Devices cannot be split once TensorFlow has run an operation."""


def run_pcam(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs a command as a user would; its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "pcam_tfdata", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )
