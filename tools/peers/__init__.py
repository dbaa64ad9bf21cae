"""Other ways to feed patches, for tools/compare_peers.py.

A peer is a function whose docstring is its setting, from patches to endless batches
(image, label): uint8, or float32 in [0, 1], [B, 96, 96, 3], and integers. It writes
its own format first. Packages of others are imported where they are used: a missing
one fails its own row and no other.
"""
