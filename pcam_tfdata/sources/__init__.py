"""Lists of patches to convert, one module for each kind of source.

In: a folder of Kaggle's TIFFs, the official HDF5 files, class folders or a TFDS
data set. Out: a `listing.Listing` for each split: names, labels and where the
pixels are, without reading them.
"""
