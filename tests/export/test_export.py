"""Each format, loaded by its own runtime alone, gives what `pcam predict` writes."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pandas
import pytest
from conftest import ROOT, run_pcam, run_program
from PIL import Image

from pcam_tfdata import choices
from pcam_tfdata.distribution import private_interfaces
from pcam_tfdata.evaluation import ensemble
from pcam_tfdata.models import inference, networks
from pcam_tfdata.records import manifest
from pcam_tfdata.runs import calibration_file, environment_file, run_folder

NUM_PATCHES, TOLERANCE = 200, 1e-4
OUTPUTS = {"saved_model": "model", "onnx": "model.onnx", "litert": "m.tflite"}
# Each has nothing of this package; `images` and `path` are there.
RUNTIMES = {
    "saved_model": """
import tensorflow as tf
serve = tf.saved_model.load(path).signatures["serving_default"]
found = serve(image=tf.constant(images))["probability"].numpy()
""",
    "onnx": """
import onnxruntime
session = onnxruntime.InferenceSession(path)
found = session.run(["probability"], {"image": images})[0]
""",
    "litert": """
from ai_edge_litert import interpreter
run = interpreter.Interpreter(path).get_signature_runner("serving_default")
found = run(image=images)["probability"]
""",
    "keras": """
import json, os, keras
model = keras.models.load_model(path)
with open(os.path.join(os.path.dirname(path), "calibration.json")) as file:
    known = json.load(file)["calibrations"]["none"]
logit, *_ = keras.tree.flatten(model(images, training=False))
logit = keras.ops.convert_to_numpy(logit)[:, 0]
found = 1 / (1 + np.exp(-logit / known["temperature"] - known["intercept"]))
""",
}


def run_alone(code: str, path: pathlib.Path, images, before: str = ""):
    """Runs a program that has NumPy, `path` and `images`; returns its `found`."""
    folder = path.parent
    np.save(folder / "images.npy", images)
    program = (
        f"{before}\nimport numpy as np\npath = {str(path)!r}\n"
        f"images = np.load({str(folder / 'images.npy')!r})\n{code}\n"
        f"np.save({str(folder / 'found.npy')!r}, found)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return np.load(folder / "found.npy")


@pytest.fixture(scope="module")
def real_patches(kaggle_sample, tmp_path_factory):
    """A folder of real patches that predict reads, their names and pixels."""
    folder = tmp_path_factory.mktemp("real") / "kaggle"
    (folder / "test").mkdir(parents=True)
    paths = sorted((kaggle_sample / "train").iterdir())[:NUM_PATCHES]
    for path in paths:
        shutil.copy(path, folder / "test")
    images = np.stack([np.asarray(Image.open(path)) for path in paths])
    return folder, [path.stem for path in paths], images


def write_run(
    run_dir: pathlib.Path, model: keras.Model, images: np.ndarray, tta="none"
) -> pathlib.Path:
    """A run of a network whose calibrated probabilities lie around 1/2."""
    run_dir.mkdir()
    for layer in private_interfaces.list_layers(model):
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.0
    # Else random weights give all patches one logit.
    model(images[:64], training=True)
    path = str(run_dir / run_folder.BEST_MODEL)
    model.save(path)
    logit, *_ = inference.mean_of_views(model, images[:32], tta)
    temperature = max(float(np.std(logit)), 0.02)
    known = (temperature, -float(np.mean(logit)) / temperature)
    calibration_file.write(
        str(run_dir), tta, manifest.hash_file(path),
        calibration_file.Calibration(*known),
    )  # fmt: skip
    run_folder.write_flags(
        str(run_dir),
        {"model": "some", "train_splits": "a", "validation_splits": "b"},
    )
    environment_file.add_start(str(run_dir), {"manifest_sha256": "1" * 64})
    return run_dir


@pytest.fixture(scope="module")
def run_dir(real_patches, tmp_path_factory) -> pathlib.Path:
    keras.utils.set_random_seed(1)
    folder = tmp_path_factory.mktemp("runs")
    _, _, images = real_patches
    return write_run(folder / "run", networks.build("small_cnn"), images)


def predict(run_dir, real_patches, tta="none") -> np.ndarray:
    """Returns what the command writes, in the order of the patches."""
    folder, names, _ = real_patches
    output = f"{run_dir}.csv"
    done = run_pcam(
        "predict", f"--run_dir={run_dir}", f"--input_dir={folder}",
        f"--output_csv={output}", f"--tta={tta}", "--batch_size=64",
        "--allow_equal_probabilities",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return pandas.read_csv(output, index_col="id")["label"][names].to_numpy()


def call_export(run_dir, format, output, *arguments):
    return run_pcam(
        "export", f"--run_dir={run_dir}", f"--format={format}",
        f"--output={output}", *arguments,
    )  # fmt: skip


def export(run_dir, format, folder, *arguments) -> pathlib.Path:
    output = folder / OUTPUTS[format]
    done = call_export(run_dir, format, output, *arguments)
    assert done.returncode == 0, done.stderr
    return output


@pytest.mark.parametrize("format", choices.EXPORTS)
def test_runtime_gives_what_predict_writes(
    format, run_dir, real_patches, tmp_path
):
    output = tmp_path / OUTPUTS[format]
    done = call_export(run_dir, format, output)
    assert (done.returncode, done.stderr) == (0, "")
    found = run_alone(RUNTIMES[format], output, real_patches[2])
    expected = predict(run_dir, real_patches)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    one = run_alone(RUNTIMES[format], output, real_patches[2][:1])
    np.testing.assert_allclose(one, expected[:1], rtol=0, atol=TOLERANCE)


@pytest.mark.long
def test_parity_of_networks_and_formats(real_patches, tmp_path):
    """Prints a table; see it with -s."""
    _, _, images = real_patches
    rows = {}
    for name in choices.MODELS:
        keras.utils.set_random_seed(2)
        folder = write_run(tmp_path / name, networks.build(name), images)
        expected = predict(folder, real_patches)
        assert np.ptp(expected) > 1e-3, name
        row = rows[name] = {}
        for format in choices.EXPORTS:
            output = export(folder, format, tmp_path)
            found = run_alone(RUNTIMES[format], output, images)
            row[format] = np.abs(found - expected).max()
            shutil.rmtree(output) if output.is_dir() else output.unlink()
        # Layers of its own have to be known before it is opened.
        own = "import pcam_tfdata.models.group_conv" * (name == "p4m_cnn")
        path = folder / run_folder.BEST_MODEL
        found = run_alone(RUNTIMES["keras"], path, images, own)
        row["keras"] = np.abs(found - expected).max()
        print(name, *(f"{key} {value:.1e}" for key, value in row.items()))
    table = pandas.DataFrame.from_dict(rows, orient="index")
    print(f"\nLargest difference of a probability, {NUM_PATCHES} patches:")
    print(table.map("{:.1e}".format))
    assert table.to_numpy().max() < TOLERANCE


def test_keras_alone_opens_a_run(run_dir, real_patches):
    path = run_dir / run_folder.BEST_MODEL
    found = run_alone(RUNTIMES["keras"], path, real_patches[2])
    expected = predict(run_dir, real_patches)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("format", choices.EXPORTS)
def test_ensemble_of_views_is_inside(format, run_dir, real_patches, tmp_path):
    _, _, images = real_patches
    other = write_run(tmp_path / "b", networks.build("seed_cnn"), images)
    both = tmp_path / "both"
    ensemble.make_run([str(run_dir), str(other)], str(both))
    expected = predict(both, real_patches, "d4")
    output = export(f"{run_dir},{other}", format, tmp_path, "--tta=d4")
    found = run_alone(RUNTIMES[format], output, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE)
    assert np.abs(expected - predict(both, real_patches)).max() > TOLERANCE


@pytest.mark.parametrize("format", choices.EXPORTS)
def test_mixed_precision(format, real_patches, tmp_path):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = networks.build("small_cnn")
    finally:
        keras.config.set_dtype_policy("float32")
    folder = write_run(tmp_path / "run", model, real_patches[2])
    output = tmp_path / OUTPUTS[format]
    done = call_export(folder, format, output)
    assert done.returncode == 0, done.stderr
    found = run_alone(RUNTIMES[format], output, real_patches[2])
    is_same = format == "saved_model"
    assert ("computes in float32" in done.stderr) != is_same
    expected = predict(folder, real_patches)
    atol = TOLERANCE if is_same else 0.1  # Of bfloat16, and / temperature.
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def read_metadata(format: str, output: pathlib.Path) -> dict:
    if format == "saved_model":
        text = (output / "assets.extra" / "metadata.json").read_text()
        return json.loads(text)
    if format == "litert":
        with zipfile.ZipFile(output) as archive:
            return json.loads(archive.read("metadata.json"))
    import onnxruntime

    session = onnxruntime.InferenceSession(output)
    texts = session.get_modelmeta().custom_metadata_map
    is_text = {"model", "model_sha256", "manifest_sha256", "pcam_tfdata", "tta"}
    return {n: t if n in is_text else json.loads(t) for n, t in texts.items()}


@pytest.mark.parametrize("format", choices.EXPORTS)
def test_metadata_say_how_to_use_it(format, run_dir, tmp_path):
    sha256 = manifest.hash_file(str(run_dir / run_folder.BEST_MODEL))
    scores = {"auc": 0.9, "splits": ["b"], "tta": "none", "warnings": []}
    (run_dir / run_folder.METRICS_JSON).write_text(
        json.dumps(scores | {"model_sha256": sha256})
    )
    found = read_metadata(
        format, export(run_dir, format, tmp_path, "--threshold=0.3")
    )
    known = calibration_file.read(str(run_dir), "none", sha256)
    assert (
        found.items()
        >= {
            "model": "some",
            "labels": ["Negative", "Positive"],
            "patch_size": 96,
            "tta": "none",
            "is_calibrated": True,
            "temperature": known.temperature,
            "intercept": known.intercept,
            "threshold": 0.3,
            "model_sha256": sha256,
            "manifest_sha256": "1" * 64,
            "scores": {"auc": 0.9, "splits": ["b"]},
        }.items()
    )


def test_scores_of_other_views_are_left_out(run_dir, tmp_path):
    output = tmp_path / OUTPUTS["onnx"]
    done = call_export(run_dir, "onnx", output, "--tta=d4")
    assert (
        "not calibrated: the run has no calibration for --tta=d4" in done.stderr
    )
    found = read_metadata("onnx", output)
    assert (found["scores"], found["is_calibrated"]) == ({}, False)


@pytest.mark.parametrize(
    ("format", "name", "said"),
    [
        ("onnx", "run/best.keras", "found a name that ends in .keras"),
        ("litert", "model.onnx", "expected .tflite"),
        ("onnx", "nowhere/model.onnx", "found no folder"),
        ("saved_model", "there", "expected a folder to make"),
        ("saved_model", "run/checkpoints", "what belongs to a run"),
        ("saved_model", "s3://bucket/model", "expected a folder on a disk"),
    ],
)
def test_refuses_a_place(format, name, said, run_dir, tmp_path):
    shutil.copytree(run_dir, tmp_path / "run")
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").touch()
    before = sorted(tmp_path.rglob("*"))
    output = name if "://" in name else tmp_path / name
    done = call_export(tmp_path / "run", format, output)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("run_dirs", "said"),
    [
        ("{run},{run}", "found the same network twice"),
        ("{run}x", "best.keras: not found"),
    ],
)
def test_refuses_runs(run_dirs, said, run_dir, tmp_path):
    output = tmp_path / "model.onnx"
    done = call_export(run_dirs.format(run=run_dir), "onnx", output)
    assert done.returncode == 1
    assert said in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_no_threshold_is_chosen_for_runs_without_common_scores(run_dir):
    done = call_export(
        f"{run_dir},b", "onnx", "m.onnx", "--threshold=sensitivity:0.9"
    )
    assert done.returncode == 2
    assert "pcam ensemble makes a run of them" in done.stderr


def test_network_that_a_runtime_lacks_operations_of(real_patches, tmp_path):
    image = keras.Input((96, 96, 3), dtype="uint8")
    x = keras.layers.Rescaling(1 / 512, 0.1)(image)
    x = keras.layers.GlobalAveragePooling2D()(keras.ops.erfinv(x))
    model = keras.Model(image, keras.layers.Dense(1)(x))
    folder = write_run(tmp_path / "run", model, real_patches[2])
    output = tmp_path / "m.tflite"
    output.write_text("an earlier one")
    done = call_export(folder, "litert", output)
    assert done.returncode == 1
    assert re.search(r"--format=litert: .* Nothing was written", done.stderr)
    assert done.stderr.count("\n") == 1
    assert output.read_text() == "an earlier one"


@pytest.mark.parametrize(
    ("format", "package"), [("onnx", "tf2onnx"), ("litert", "ai_edge_litert")]
)
def test_missing_package_is_named(format, package, run_dir, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.machinery as machinery\n"
        "find = machinery.PathFinder.find_spec\n"
        "def find_others(name, *rest):\n"
        f"    return None if name == {package!r} else find(name, *rest)\n"
        "machinery.PathFinder.find_spec = staticmethod(find_others)\n"
    )
    done = run_program(
        "export", f"--run_dir={run_dir}", f"--format={format}",
        f"--output={tmp_path / OUTPUTS[format]}",
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == (
        f"--format={format}: {package} must be installed. pip install"
        f" 'pcam_tfdata[{format}]'\n"
    )
    assert not (tmp_path / OUTPUTS[format]).exists()


def test_program_of_the_docs_runs(run_dir, real_patches, tmp_path):
    page = (ROOT / "docs" / "export.md").read_text()
    (program,) = re.findall(
        r"^## onnxruntime\n.*?^```python\n(.*?)^```", page, re.M | re.S
    )
    folder, names, _ = real_patches
    export(run_dir, "onnx", tmp_path).rename(tmp_path / "pcam.onnx")
    (tmp_path / "kaggle").symlink_to(folder)
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {
        line.split()[0]: line.split()[1:] for line in done.stdout.splitlines()
    }
    expected = predict(run_dir, real_patches)
    assert list(found) == names
    values = np.array([float(found[name][0]) for name in names])
    np.testing.assert_allclose(values, expected, rtol=0, atol=TOLERANCE)
    assert {"tumor"} == {word for _, *words in found.values() for word in words}


def test_encoded_files_give_what_patches_give(run_dir, real_patches, tmp_path):
    folder, names, images = real_patches
    output = export(run_dir, "saved_model", tmp_path)
    code = f"""
import pathlib, tensorflow as tf
serve = tf.saved_model.load(path).signatures["serve_encoded"]
paths = [f"{folder}/test/{{name}}.tif" for name in {names}]
data = [pathlib.Path(path).read_bytes() for path in paths]
found = serve(image_bytes=tf.constant(data))["probability"].numpy()
"""
    found = run_alone(code, output, images)
    expected = run_alone(RUNTIMES["saved_model"], output, images)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
