"""Batches that a tf.data service on other hosts reads for the training.

In: records that those hosts see too. Out: batches of the same form as those of
`pipeline`, in an order that is never the same twice.
"""
