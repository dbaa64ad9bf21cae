"""`pcam COMMAND`, and `python -m pcam_tfdata COMMAND`."""

import _signal as signal  # `signal` itself takes most of the time until here.

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Nothing has begun, so Ctrl-C ends the process, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from pcam_tfdata.cli import main

if __name__ == "__main__":
    main.run()
