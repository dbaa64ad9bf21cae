"""`pcam convert_to_tfrecords`, from a checkout."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from pcam_tfdata.__main__ import main

if __name__ == "__main__":
    main.run(["convert_to_tfrecords", *sys.argv[1:]])
