"""A records folder: shards of TFRecords, a manifest and the sidecar patches.csv.

In: paths of such a folder. Out: its counts, its shards, its rows; and whether it is
whole. Conversion writes these folders; every later stage reads them from here.
"""
