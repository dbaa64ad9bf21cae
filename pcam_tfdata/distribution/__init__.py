"""Devices, precision, and workers that train together.

In: the names that flags give, and TF_CONFIG. Out: a `tf.distribute.Strategy`,
and the group of workers that share it.
"""
