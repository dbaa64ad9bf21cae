"""Patches and folders that the tests share."""

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import loaded
import numpy as np
import pytest

from pcam_tfdata import schema
from pcam_tfdata.conversion import convert
from pcam_tfdata.images import tiff
from pcam_tfdata.records import manifest, records_folder
from pcam_tfdata.synthetic import kaggle_folder
from pcam_tfdata.system import csv_files, nested_options

# A suite started in the background ignores Ctrl-C, and so would its children.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = pathlib.Path(__file__).parents[1]
_TESTS = ROOT / "tests"
FOLDS = tuple(f"fold{n}" for n in range(5))
_SHARED_DATA = ROOT.parent / "shared" / "data"
_NOTES = re.compile(
    r"^([\w ./-]+: [\d,]+ of [\d,]+ \w+, .* left.*|Next: pcam .*)\n", re.M
)
_TENSORFLOW_ROOMS = {
    *("augmentation", "pipeline", "data_service", "models", "training"),
    *("evaluation", "explanation", "prediction", "benchmark", "distributed"),
    *("end_to_end", "export", "interface"),
}
NUM_TRAIN, NUM_TEST, NUM_SLIDES = 60, 7, 8
# What a patch's probability may depend on the batch that it is in: half of the
# digits of float32. A processor takes other instructions for another size, and
# so sums in another order. A sum of n products is then off by n * eps of them
# at most, which n = 2,896 would take for this; the longest one has 12,800, and
# the errors of so many do not all have one sign.
HALF_OF_FLOAT32 = float(np.sqrt(np.finfo(np.float32).eps))


@pytest.fixture
def random_patch() -> np.ndarray:
    """uint8 [96, 96, 3] of noise."""
    return np.random.default_rng(7).integers(0, 256, (96, 96, 3), np.uint8)


def make_clouds(num_patches: int, seed: int = 0) -> np.ndarray:
    """Returns pink and purple clouds, uint8 [num_patches, 96, 96, 3].

    No two are alike, where synthetic tissue shares its shapes.
    """
    rng = np.random.default_rng(seed)
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96))
    spectrum = np.fft.fft2(rng.standard_normal((num_patches, 96, 96)))
    clouds = np.fft.ifft2(spectrum * np.exp(-((12 * frequency) ** 2))).real
    clouds /= clouds.std()
    density = np.maximum(0.5 + 0.3 * clouds, 0)[..., None] * [0.8, 1.2, 0.6]
    return (255 * np.exp(-density)).astype(np.uint8)


@pytest.fixture(scope="session")
def kaggle_sample() -> pathlib.Path:
    """A folder of real patches, in Kaggle's layout; skips where there is none."""
    return _find_real("kaggle_sample")


@pytest.fixture(scope="session")
def pcam_jpeg() -> pathlib.Path:
    """A folder of real patches, class folders of JPEGs; skips without it."""
    return _find_real("pcam_jpeg")


def _find_real(name: str) -> pathlib.Path:
    path = _SHARED_DATA / name
    if not path.is_dir():
        pytest.skip(
            "the real patches of ../shared/data are not on this machine"
        )
    return path


def make_device(
    path: pathlib.Path, kind: int, major: int, minor: int
) -> pathlib.Path:
    """Makes a node of a device; skips where that is not allowed."""
    try:
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
    except PermissionError:
        pytest.skip("a device cannot be made here")
    return path


def write_patches(folder: pathlib.Path, images: np.ndarray) -> list[str]:
    """Writes patches as Kaggle's TIFFs; returns their ids."""
    folder.mkdir(parents=True)
    names = [schema.hash_pixels(image) for image in images]
    for name, image in zip(names, images, strict=True):
        (folder / f"{name}.tif").write_bytes(tiff.encode(image))
    return names


def write_kaggle_tree(root: pathlib.Path) -> pathlib.Path:
    """Writes a small folder in Kaggle's layout, with slides.csv."""
    made = kaggle_folder.make_patches(NUM_TRAIN)
    train = write_patches(root / "train", made.image)
    test = write_patches(
        root / "test", kaggle_folder.make_patches(NUM_TEST, seed=1).image
    )
    for name, columns, values in (
        ("train_labels.csv", ("id", "label"), (train, made.label)),
        ("slides.csv", ("id", "wsi"), (train, made.slide)),
        ("sample_submission.csv", ("id", "label"), (test, [0] * NUM_TEST)),
    ):
        rows = zip(*values, strict=True)
        csv_files.write_csv(str(root / name), columns, rows)
    return root


def convert_folder(
    input_dir: str | pathlib.Path, output_dir: str | pathlib.Path, **leaves
) -> manifest.Manifest:
    """Converts Kaggle's folder, or another `source`.

    By one process, unless told: other tests run beside this one.
    """
    values = {
        "num_workers": 1,
        "source": "kaggle",
        "input_dir": str(input_dir),
        "output_dir": str(output_dir),
        **leaves,
    }
    options = nested_options.fill(convert.ConvertOptions, values)
    assert values.keys() <= nested_options.list_leaves(options).keys()
    return convert.convert(options)


@pytest.fixture(scope="session")
def shared_tree(tmp_path_factory) -> pathlib.Path:
    """A small folder in Kaggle's layout, from which `records_dir` is made."""
    return write_kaggle_tree(tmp_path_factory.mktemp("shared") / "kaggle")


@pytest.fixture
def kaggle_tree(shared_tree, tmp_path) -> pathlib.Path:
    """A copy of `shared_tree` that a test may spoil."""
    return shutil.copytree(shared_tree, tmp_path / "kaggle")


@pytest.fixture(scope="session")
def records_dir(shared_tree, tmp_path_factory) -> str:
    """Records of the small folder: five folds of several shards, and test."""
    output_dir = str(tmp_path_factory.mktemp("records") / "records")
    convert_folder(
        shared_tree,
        output_dir,
        slide_csv=str(shared_tree / "slides.csv"),
        shard_megabytes=0.2,  # 7 records.
    )
    return output_dir


@pytest.fixture(scope="session")
def real_records_dir(kaggle_sample, tmp_path_factory) -> str:
    """Records of the real patches."""
    output_dir = str(tmp_path_factory.mktemp("real") / "records")
    convert_folder(str(kaggle_sample), output_dir)
    return output_dir


@pytest.fixture(scope="session")
def four_virtual_devices() -> list[str]:
    """Virtual CPU devices, for tests with replicas."""
    import tensorflow as tf

    (cpu,) = tf.config.list_physical_devices("CPU")
    if not tf.config.get_logical_device_configuration(cpu):
        tf.config.set_logical_device_configuration(
            cpu, [tf.config.LogicalDeviceConfiguration()] * 4
        )
    return [device.name for device in tf.config.list_logical_devices("CPU")]


@pytest.fixture(scope="session")
def virtual_devices(four_virtual_devices) -> list[str]:
    """Two of them."""
    return four_virtual_devices[:2]


@pytest.fixture(scope="session", autouse=True)
def _start_tensorflow_first_or_never(request) -> Iterator[None]:
    """Devices cannot be split once TensorFlow has run an operation."""
    items = request.session.items
    needs_it = any(map(_needs_tensorflow, items))
    if needs_it:
        request.getfixturevalue("four_virtual_devices")
    yield
    may_have_it = needs_it or any("beam" in item.keywords for item in items)
    assert may_have_it or "tensorflow" not in sys.modules, "a mark is missing"


def _needs_tensorflow(item: pytest.Item) -> bool:
    """Whether a test is marked so, or stands in a room that has TensorFlow."""
    room = item.path.relative_to(_TESTS).parts[0]
    return room in _TENSORFLOW_ROOMS or "tensorflow" in item.keywords


def open_patches(records_dir, input, splits=FOLDS, devices=(), **options):
    """Opens patches in an input mode, with `patch_source.InputOptions`."""
    # Here, because most tests do without TensorFlow.
    from pcam_tfdata.pipeline import input_choice, patch_source

    records = records_folder.open_folder(str(records_dir))
    reading = patch_source.InputOptions(input, **options)
    return input_choice.open_patches(
        patch_source.Source(records, splits, reading), devices
    )


def run_pcam(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs a command to its end; its output as text, but for some notes.

    It is forked, see `loaded`, unless there are options, or Beam, which starts
    programs of its own. Lines of progress depend on how busy the machine is; what
    comes next is left out, too.
    """
    if options or "--runner=beam" in arguments:
        result = run_program(*arguments, **options)
    else:
        result = loaded.run(*arguments)
    result.stderr = _NOTES.sub("", result.stderr)
    return result


def run_program(*arguments: object, **options) -> subprocess.CompletedProcess:
    """Runs a command as a user would, imports and all; its output as text."""
    return subprocess.run(
        [sys.executable, "-m", "pcam_tfdata", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        **options,
    )


def measure_alone(code: str, path: pathlib.Path) -> list[str]:
    """Returns the words that a program says of a path, and prints them.

    It has a process of its own, so that memory is its own too.
    """
    result = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    print(result.stdout)
    return result.stdout.split()


@contextlib.contextmanager
def small_disk(place: pathlib.Path, size: str) -> Iterator[pathlib.Path]:
    """A disk of a size, in memory; skips where none can be mounted."""
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place],
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def enlarge(disk: pathlib.Path) -> None:
    """Gives a small disk 100 MB."""
    subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
