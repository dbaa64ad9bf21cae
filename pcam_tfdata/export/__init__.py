"""A trained network for other programs, calibrated and in their formats.

In: the folders of runs. Out: a SavedModel, an ONNX or a LiteRT file.
"""
