"""Pictures, drawn without a say in how others draw theirs."""

import subprocess
import sys

from PIL import Image


def test_backend_of_a_notebook_stays(tmp_path):
    path = tmp_path / "patches.png"
    code = (
        "import sys\n"
        "import matplotlib, numpy\n"
        "matplotlib.use('svg')\n"
        "from pcam_tfdata.evaluation import plots\n"
        "from pcam_tfdata.system import pictures\n"
        "images = numpy.zeros((2, 96, 96, 3), numpy.uint8)\n"
        "pictures.save(plots.draw_patches(images, [0, 1]), sys.argv[1])\n"
        "assert matplotlib.get_backend() == 'svg', matplotlib.get_backend()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with Image.open(path) as picture:
        assert picture.format == "PNG"
