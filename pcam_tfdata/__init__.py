"""PatchCamelyon patches to a trained classifier on TensorFlow."""

__version__ = "0.1.0"
