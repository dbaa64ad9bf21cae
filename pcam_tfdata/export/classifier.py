"""What is exported: a network that gives calibrated probabilities."""

import keras
import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.models import inference
from pcam_tfdata.runs import calibration_file

IMAGE, PROBABILITY = "image", "probability"
SPEC = tf.TensorSpec([None, *schema.IMAGE_SHAPE], tf.uint8, IMAGE)


class Classifier(keras.Model):
    """Gives what `pcam predict` writes, but in float32 to the end.

    Of uint8 patches [B, 96, 96, 3], a dictionary of their `probability`, float32
    [B].

    Args:
        network: As `inference.load_network` returns it.
        tta: Of which views the logit is the mean, one of `choices.TTA`.
        calibration: Of these logits.
    """

    def __init__(
        self,
        network: keras.Model,
        tta: str,
        calibration: calibration_file.Calibration,
    ) -> None:
        super().__init__()
        self.network = network
        self._tta = tta
        self._calibration = calibration

    def call(self, image: tf.Tensor) -> dict[str, tf.Tensor]:
        """Returns the probability of label 1."""
        logit, *_ = inference.mean_of_views(self.network, image, self._tta)
        temperature, intercept = self._calibration
        return {PROBABILITY: tf.sigmoid(logit / temperature + intercept)}
