"""The command line: one module per command.

In: flags. Out: one call of the library, one line of what came of it, an exit code.
"""
