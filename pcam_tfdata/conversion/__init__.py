"""From a source of patches to a records folder: plan, write, publish.

In: listings of `sources`. Out: a folder that `records` reads, put into its place
in one move.
"""
