"""Writes the best model of a run for other programs.

It takes patches of 0 to 255, uint8 [N, 96, 96, 3], and gives the probabilities that
pcam predict writes: calibration and --tta are inside, and so are the networks of
several runs. saved_model is TensorFlow's, and takes PNG, JPEG and Kaggle's TIFF files
as well; onnx and litert need pip install 'pcam_tfdata[onnx]' or 'pcam_tfdata[litert]'.
docs/export.md shows how each is loaded.
"""

import logging

from absl import app, flags

from pcam_tfdata import choices
from pcam_tfdata.cli import flag_groups, quiet
from pcam_tfdata.system import files

REQUIRED_FLAGS = ("run_dir", "format", "output")
_logger = logging.getLogger(__name__)

flags.DEFINE_list(
    "run_dir", None, "Folder of the run; of several, or of a cross-validation,"
    " the mean, as pcam ensemble makes it.",
)  # fmt: skip
flags.DEFINE_enum("format", None, choices.EXPORTS, "What to write.")
flags.DEFINE_string(
    "output", None, "File to write, ending in .onnx or .tflite; of saved_model a"
    " folder to make.",
)  # fmt: skip
flag_groups.define_tta()
flag_groups.define_threshold(
    0.5, "Noted in the metadata: at or above it a probability is to mean tumor."
)


def run() -> None:
    """Exports what the flags name."""
    given = flags.FLAGS
    if len(given.run_dir) > 1 and not isinstance(given.threshold, float):
        raise app.UsageError(
            "found several in --run_dir and a --threshold to be chosen by"
            " validation splits, expected a probability: pcam ensemble makes a"
            " run of them, which pcam evaluate scores."
        )
    with quiet.imports():
        from pcam_tfdata.export import export
    facts = export.export(
        given.run_dir,
        format=given.format,
        output=given.output,
        tta=given.tta,
        threshold=given.threshold,
    )
    tell = _logger.info if files.is_stream(given.output) else print
    tell(f"{given.output}: {facts['model']} as {given.format}.")
