"""Weights of a backbone that were trained before, on other images."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence

import h5py
import keras
import numpy as np

from pcam_tfdata.distribution import replicas
from pcam_tfdata.models import applications, classifier_head, efficientnet_lite
from pcam_tfdata.records import manifest
from pcam_tfdata.system import faults

NONE = "none"
IMAGENET = "imagenet"


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights of a backbone, in a file that is there.

    Attributes:
        path: The file.
        source: The package and its version, or the name of the file.
        license: Of the weights; "" if unknown.
        sha256: Of the file, in hex.
    """

    path: str
    source: str
    license: str
    sha256: str

    def list_facts(self) -> dict[str, str]:
        """Returns what they are, wherever they lie."""
        facts = dataclasses.asdict(self)
        del facts["path"]
        return facts


def find(name: str, weights: str) -> Weights | None:
    """Returns weights of a network; None if there are to be none.

    Args:
        name: Of the network, one of `choices.MODELS`.
        weights: `none`; `imagenet`; or a file: `best.keras` of another run of
            this network, its backbone's weights in Keras' `.h5` (a network of
            `keras.applications`), or torch's `.pth` (EfficientNet-Lite).

    Raises:
        ValueError: there are none of this network.
        FileNotFoundError: there is no such file.
        RuntimeError: the package of the weights is not installed.
        ConnectionError: the weights cannot be downloaded.
    """
    if weights == NONE:
        return None
    terms = ""
    if weights != IMAGENET:
        path, source = weights, os.path.basename(weights)
        if not os.path.isfile(path):
            raise FileNotFoundError(
                f"--weights={weights}: found no such file, expected one, or"
                f" {IMAGENET} or {NONE}."
            )
    elif name in efficientnet_lite.VARIANTS:
        path, source = efficientnet_lite.find_imagenet(name)
        terms = efficientnet_lite.LICENSE
    elif name in applications.APPLICATIONS:
        path = applications.fetch_imagenet(name)
        source = f"keras.applications, {os.path.basename(path)}"
    else:
        raise ValueError(
            f"--weights={IMAGENET}: found --model={name}, of which there are"
            f" none. Pass --weights={NONE}, or the best.keras of another run."
        )
    return Weights(path, source, terms, manifest.hash_file(path))


def load(model: keras.Model, weights: Weights) -> None:
    """Assigns weights to the backbone of a network: all but its head.

    The network stays as it was unless there is a tensor for each of the
    backbone's. In the scope of a strategy, all replicas get them.

    Args:
        model: From `networks.build`, in any policy.
        weights: Of the network of its name.

    Raises:
        ValueError: the file is damaged or of another network.
    """
    path, name = weights.path, model.name
    variables = _list_backbone(model)
    # What is built to read a file draws seeds, too.
    with replicas.keras_settings(keras.config.dtype_policy().name, seed=0):
        tensors = _read(path, name, variables)
    fit = [
        tensor.shape == tuple(variable.shape)
        for tensor, variable in zip(tensors, variables, strict=False)
    ]
    if not all(fit) or len(tensors) != len(variables):
        found = f"{len(tensors)} tensors, {sum(fit)} of them of the right shape"
        raise _refuse(path, name, found, len(variables))
    for variable, tensor in zip(variables, tensors, strict=True):
        variable.assign(tensor)


def _read(
    path: str, name: str, variables: Sequence[keras.Variable]
) -> list[np.ndarray]:
    """Returns the tensors of a file, in the order of the variables."""
    if path.endswith(".pth"):
        tensors = efficientnet_lite.read_weights(path)
        return [tensors[v.path] for v in variables if v.path in tensors]
    try:
        if path.endswith(".h5") and name in applications.APPLICATIONS:
            backbone = applications.build_backbone(name, path)
        else:
            backbone = keras.models.load_model(path, compile=False)
        return [np.asarray(v) for v in _list_backbone(backbone)]
    except Exception as error:  # Keras raises anything on other files.
        what = "a network"
        if path.endswith(".h5"):
            what = f"{_count_tensors(path)} tensors"
        reason = faults.one_line(error, 200)
        found = f"{what} that Keras does not load ({reason})"
        raise _refuse(path, name, found, len(variables)) from error


def _list_backbone(model: keras.Model) -> list[keras.Variable]:
    return [
        variable
        for layer in model.layers
        if layer.name not in classifier_head.LAYERS
        for variable in layer.weights
    ]


def _count_tensors(path: str) -> int:
    """Returns how many there are in an HDF5 file; 0 if it is damaged."""
    kinds: list[type] = []
    with contextlib.suppress(OSError), h5py.File(path) as file:
        file.visititems(lambda _, item: kinds.append(type(item)))
    return kinds.count(h5py.Dataset)


def _refuse(path: str, name: str, found: str, num_expected: int) -> ValueError:
    return ValueError(
        f"{path}: found {found}, expected the {num_expected} of the backbone of"
        f" {name}. Choose the weights of such a network, or another --model."
    )
