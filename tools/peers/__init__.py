"""Other ways to feed patches, for tools/compare_peers.py.

Packages of others are imported where they are used: a missing one fails its own
row and no other.
"""
