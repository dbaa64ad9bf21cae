"""What is used of TensorFlow and Keras beyond their public interfaces.

Here alone, but for a server's address in `data_service.servers`; `pyproject.toml`
bounds the versions, and tests/distributed/test_private_interfaces.py says what a
newer one has broken.
"""

from typing import Any

import keras
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context


def eager_context() -> Any:
    """Returns the one that has the global seed and the coordination service."""
    return context.context()


def describe_job(name: str, num_tasks: int) -> Any:
    """Returns a job of the coordination service."""
    return coordination_config_pb2.CoordinatedJob(
        name=name, num_tasks=num_tasks
    )


def list_layers(model: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers of a network, and those within them."""
    return list(model._flatten_layers())
