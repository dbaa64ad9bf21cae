"""Packaging of pcam_tfdata."""

import pathlib
import re

import setuptools

_HERE = pathlib.Path(__file__).parent
_VERSION = re.search(
    r'__version__ = "(.+)"', (_HERE / "pcam_tfdata/__init__.py").read_text()
).group(1)

setuptools.setup(
    name="pcam_tfdata",
    version=_VERSION,
    description="PatchCamelyon patches to a trained classifier on TensorFlow.",
    long_description=(_HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=setuptools.find_packages(include=["pcam_tfdata*"]),
    python_requires=">=3.11,<3.14",
    # Keras is TensorFlow's; it is named for its least version.
    install_requires=[
        "absl-py",
        "google-crc32c",
        "h5py",
        "keras>=3.15",
        "matplotlib",
        "numpy>=2.0",
        "pandas",
        "pillow",
        "scikit-learn",
        "tensorflow>=2.21",
        "tensorflow-datasets",
        "threadpoolctl",
        "tqdm",
    ],
    extras_require={
        "gpu": ["tensorflow[and-cuda]>=2.21"],
        "tensorboard": ["tensorboard"],
        # Beam holds protobuf and Pillow back: docs/beam.md.
        "beam": ["apache-beam"],
        "remote": ["fsspec", "gcsfs", "s3fs"],
        "dev": [
            "hypothesis",
            "importlib_resources",
            "pytest",
            "pytest-xdist",
            "pyyaml",
            "ruff",
            "tensorboard",
        ],
        # moto's server answers as S3 does.
        "dev-remote": ["flask", "flask-cors", "moto[s3]"],
    },
    entry_points={"console_scripts": ["pcam = pcam_tfdata.__main__:main.run"]},
)
