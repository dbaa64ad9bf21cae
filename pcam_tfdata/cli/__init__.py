"""The command line: one module per command, flags in, one library call out."""
