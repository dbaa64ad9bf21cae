"""Batches of patches from a records folder, as tf.data.

In: records. Out: dictionaries of `image`, `label` and `row`, in an order that the
seed and the step decide, or, streamed, seeded buffers of what is read.
"""
