"""What a PatchCamelyon patch is.

The facts are those of Veeling et al. 2018 ("Rotation Equivariant CNNs for
Digital Pathology") and of the Kaggle set made from it: a patch is 96 x 96 RGB,
and its label is 1 if any pixel of its centre 32 x 32 is tumor.
"""

import hashlib

import numpy as np

PATCH_SIZE = 96
CENTER_SIZE = 32
NUM_CHANNELS = 3
IMAGE_SHAPE = (PATCH_SIZE, PATCH_SIZE, NUM_CHANNELS)
IMAGE_BYTES = PATCH_SIZE * PATCH_SIZE * NUM_CHANNELS
ID_BYTES = 40

NEGATIVE = 0
POSITIVE = 1
UNLABELED = -1
CLASS_NAMES = ("Negative", "Positive")

CENTER_START = (PATCH_SIZE - CENTER_SIZE) // 2
CENTER = slice(CENTER_START, CENTER_START + CENTER_SIZE)


def hash_pixels(image: np.ndarray) -> str:
    """Returns the id of a patch: the SHA-1 of its pixels, as 40 hex digits.

    Args:
        image: uint8 [96, 96, 3], C-contiguous.

    Raises:
        BufferError: `image` is not C-contiguous.
    """
    return hashlib.sha1(image.data, usedforsecurity=False).hexdigest()


def find_contradictions(
    labels: np.ndarray, tumor_fractions: np.ndarray
) -> np.ndarray:
    """Returns which labels contradict the tumor in the centre: bool [n].

    Args:
        labels: int [n]; -1, no label, contradicts nothing.
        tumor_fractions: float [n], share of tumor pixels in the centre; NaN,
            not known, is contradicted by nothing.
    """
    is_known = (labels != UNLABELED) & ~np.isnan(tumor_fractions)
    return is_known & ((labels == POSITIVE) != (tumor_fractions > 0))
