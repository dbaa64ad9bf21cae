"""`python -m pcam_tfdata COMMAND`: the same as `pcam COMMAND`."""

from pcam_tfdata.cli import main

if __name__ == "__main__":
    main.run()
