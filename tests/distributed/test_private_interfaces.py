"""What is used of TensorFlow and Keras beyond their public interfaces.

`pyproject.toml` bounds their versions for it. Where a newer version fails here,
the message says what has to follow it.
"""

import keras
import pytest
import tensorflow as tf

from pcam_tfdata.distribution import private_interfaces


@pytest.mark.parametrize(
    ("name", "user"),
    [
        ("_seed", "pipeline.stream_mode seeds the order of shuffling"),
        ("configure_coordination_service", "distribution joins workers"),
        ("coordination_service", "distribution joins workers"),
        ("set_config_key_value", "distribution compares workers"),
        ("get_config_key_value", "distribution compares workers"),
        ("report_error_to_cluster", "distribution ends all workers"),
    ],
)
def test_eager_context_has(name, user):
    context = private_interfaces.eager_context()
    assert hasattr(context, name), f"{tf.__version__}: {name} is gone; {user}"


def test_seed_of_the_eager_context_is_the_global_one():
    context = private_interfaces.eager_context()
    before = context._seed
    try:
        tf.random.set_seed(7)
        assert context._seed == 7
    finally:
        context._seed = before


def test_jobs_of_the_coordination_service_have_name_and_count():
    job = private_interfaces.describe_job("worker", 2)
    assert (job.name, job.num_tasks) == ("worker", 2)


def test_layers_of_layers_are_listed():
    inner = keras.Sequential([keras.layers.BatchNormalization()])
    model = keras.Sequential([keras.Input((4,)), inner])
    kinds = set(map(type, private_interfaces.list_layers(model)))
    assert keras.layers.BatchNormalization in kinds, (
        f"{keras.__version__}: distribution.replicas finds no inner layers"
    )


def test_server_of_the_data_service_knows_its_address():
    dispatcher = tf.data.experimental.service.DispatchServer()
    worker = tf.data.experimental.service.WorkerServer(
        tf.data.experimental.service.WorkerConfig(
            dispatcher_address=dispatcher.target.partition("://")[2]
        )
    )
    assert worker._address.rpartition(":")[-1].isdigit(), (
        f"{tf.__version__}: data_service.servers cannot say its port"
    )
