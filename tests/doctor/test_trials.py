import numpy as np
import pytest

from pcam_tfdata.doctor import trials


@pytest.mark.tensorflow
@pytest.mark.parametrize("how", [trials.FLOAT32, trials.XLA])
def test_step_runs_and_tells_its_time(how):
    assert " ms" in trials._train("CPU:0", how)["text"]


@pytest.mark.tensorflow
def test_wrong_convolution_is_an_error(monkeypatch):
    import tensorflow as tf

    right = tf.nn.conv2d
    monkeypatch.setattr(
        tf.nn, "conv2d", lambda *a: right(*a) + np.float32(1e-3)
    )
    with pytest.raises(ArithmeticError):
        trials._train("CPU:0", trials.FLOAT32)


@pytest.mark.tensorflow
def test_replicas_get_the_sum_of_all(virtual_devices):
    devices = [f"CPU:{k}" for k in range(len(virtual_devices))]
    assert trials._sum_over(devices)["text"].startswith("2 GPUs")
