"""The command line: one module a command, flags in, one library call out."""
