"""Batches that a tf.data service on other hosts reads for the training.

In: records that those hosts see too. Out: the same batches as `pipeline` gives,
in an order that is never the same twice.
"""
