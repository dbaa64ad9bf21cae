"""Lists of patches, one module for each kind of source."""
