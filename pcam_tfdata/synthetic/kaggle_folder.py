"""Seeded fake patches: small, free, and honest about where the tumor is.

Nests of tumor cells may lie anywhere in a patch, and the label asks only about
the centre, so a network must learn what a tumor cell looks like and where it
is; the colours of a patch say little. Each slide has stains of its own.
"""

import dataclasses
import functools
import itertools
import operator
import os
import shutil
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image

from pcam_tfdata import schema
from pcam_tfdata.images import tiff
from pcam_tfdata.runs import outputs
from pcam_tfdata.sources import kaggle_layout
from pcam_tfdata.synthetic import tissue
from pcam_tfdata.system import csv_files, files, workers

_PATCHES_PER_SLIDE = 64
_MASKS = "masks"
_MIN_SLIDES = 8  # Enough for five folds that keep slides whole.
_POSITIVE_SHARE = 0.4  # As in Kaggle's train set: 89,117 of 220,025.

# Random streams under one seed: [seed, stream, ...] never meet.
_SLIDE_STREAM = 1
_PATCH_STREAM = 2


@dataclasses.dataclass(frozen=True)
class Patches:
    """Synthetic patches and what is true of them.

    Attributes:
        image: uint8 [n, 96, 96, 3], RGB.
        tumor: bool [n, 96, 96], the pixels of tumor cells.
        slide: n names such as "slide_003".
    """

    image: np.ndarray
    tumor: np.ndarray
    slide: list[str]

    @property
    def tumor_fraction(self) -> np.ndarray:
        """float32 [n], the share of tumor in the centre 32 x 32, exact."""
        center = self.tumor[:, schema.CENTER, schema.CENTER]
        return center.mean(axis=(1, 2), dtype=np.float32)

    @property
    def label(self) -> np.ndarray:
        """int64 [n], 1 where any pixel of the centre is tumor."""
        return (self.tumor_fraction > 0).astype(np.int64)


class _Slide(NamedTuple):
    """The patches of one synthetic slide, to be made by one worker."""

    number: int
    split: str
    num_patches: int
    seed: int


class _Row(NamedTuple):
    """A line of truth.csv."""

    split: str
    id: str
    label: int
    tumor_fraction: float
    slide: str


def write_kaggle_tree(
    output_dir: str,
    *,
    num_train: int = 4096,
    num_test: int = 1024,
    seed: int = 0,
    num_workers: int = 0,
    has_masks: bool = False,
) -> None:
    """Writes a Kaggle tree of synthetic patches, and truth.csv beside it.

    The files are train/ID.tif, train_labels.csv, test/ID.tif and
    sample_submission.csv, as on Kaggle, and truth.csv, which tells of every
    patch of both splits its label, tumor fraction and slide. No slide has
    patches in both splits. The rows are in the order of their ids. The tree
    grows in `<output_dir>.incomplete` and takes its name when it is whole; its
    bytes depend on the counts and the seed alone, not on `num_workers`.

    Args:
        output_dir: A folder that does not exist, or an empty one.
        num_train: Labelled patches, at least 1.
        num_test: Patches without a label, at least 0.
        seed: At least 0.
        num_workers: Processes; 0 for one a core, 1 for this one alone.
        has_masks: Also writes masks/ID.png of every patch, grey, 255 where it
            is tumor and else 0.

    Raises:
        FileExistsError: `output_dir` is there and holds something.
    """
    output_dir = os.path.realpath(output_dir)
    outputs.check_new(output_dir, "--output_dir")
    what = "an empty folder"
    files.refuse_others(output_dir, lambda name: False, what, "--output_dir")
    tree_dir = f"{output_dir}.incomplete"
    shutil.rmtree(tree_dir, ignore_errors=True)  # Of a run that was killed.
    try:
        masks = [_MASKS] if has_masks else []
        for split in (kaggle_layout.TRAIN, kaggle_layout.TEST, *masks):
            os.makedirs(os.path.join(tree_dir, split))
        with workers.Workers(num_workers) as pool:
            rows_of_slides = pool.map(
                functools.partial(_write_slide, tree_dir),
                _plan_slides(num_train, num_test, seed),
                num_patches=num_train + num_test,
                description="synthesize",
            )
        _write_tables(tree_dir, itertools.chain(*rows_of_slides))
        os.replace(tree_dir, output_dir)
    except BaseException:
        shutil.rmtree(tree_dir, ignore_errors=True)
        raise


def make_patches(num_patches: int, seed: int = 0) -> Patches:
    """Returns the train patches of `write_kaggle_tree`, slide by slide."""
    slides = list(map(_make_slide, _plan_slides(num_patches, 0, seed)))
    return Patches(
        image=np.concatenate([patches.image for patches in slides]),
        tumor=np.concatenate([patches.tumor for patches in slides]),
        slide=[name for patches in slides for name in patches.slide],
    )


def _plan_slides(num_train: int, num_test: int, seed: int) -> list[_Slide]:
    """Returns the slides of both splits, numbered through.

    A slide has 3 patches at the least, so that 2 classes fit.
    """
    slides: list[_Slide] = []
    for split, num_patches in (
        (kaggle_layout.TRAIN, num_train),
        (kaggle_layout.TEST, num_test),
    ):
        few_slides = min(_MIN_SLIDES, num_patches // 3)
        num_slides = max(num_patches // _PATCHES_PER_SLIDE, few_slides, 1)
        size, num_larger = divmod(num_patches, num_slides)
        for number in range(num_slides if num_patches else 0):
            num_own = size + (number < num_larger)
            slides.append(_Slide(len(slides), split, num_own, seed))
    return slides


def _write_slide(tree_dir: str, slide: _Slide) -> list[_Row]:
    """Writes the TIFFs of one slide and returns their rows of truth.csv."""
    patches = _make_slide(slide)
    ids = [schema.hash_pixels(image) for image in patches.image]
    for patch_id, image in zip(ids, patches.image, strict=True):
        path = os.path.join(tree_dir, slide.split, f"{patch_id}.tif")
        with open(path, "xb") as file:
            file.write(tiff.encode(image))
    masks_dir = os.path.join(tree_dir, _MASKS)
    if os.path.isdir(masks_dir):  # They are wanted.
        for patch_id, tumor in zip(ids, patches.tumor, strict=True):
            mask = Image.fromarray(np.where(tumor, 255, 0).astype(np.uint8))
            mask.save(os.path.join(masks_dir, f"{patch_id}.png"))
    workers.count_done(slide.num_patches)
    labels, fractions = patches.label.tolist(), patches.tumor_fraction.tolist()
    truth = zip(ids, labels, fractions, patches.slide, strict=True)
    return [_Row(slide.split, *values) for values in truth]


def _write_tables(tree_dir: str, rows: Iterable[_Row]) -> None:
    """Writes the three csv files of a tree, rows in order of id."""
    rows = sorted(rows, key=operator.attrgetter("id"))
    train = [row for row in rows if row.split == kaggle_layout.TRAIN]
    test = [row for row in rows if row.split == kaggle_layout.TEST]
    columns = ("id", "label")
    labels = [(row.id, row.label) for row in train]
    zeros = [(row.id, 0) for row in test]
    for name, header, lines in (
        (kaggle_layout.LABELS_FILE, columns, labels),
        (kaggle_layout.SAMPLE_FILE, columns, zeros),
        ("truth.csv", _Row._fields, train + test),
    ):
        csv_files.write_csv(os.path.join(tree_dir, name), header, lines)


def _make_slide(slide: _Slide) -> Patches:
    """Returns the patches of one slide."""
    rng = np.random.default_rng([slide.seed, _SLIDE_STREAM, slide.number])
    atlas, stain = tissue.draw_atlas(slide.seed), tissue.draw_stain(rng)
    num_positive = round(_POSITIVE_SHARE * slide.num_patches)
    positive = rng.permutation(slide.num_patches) < num_positive
    image = np.empty((slide.num_patches, *schema.IMAGE_SHAPE), np.uint8)
    tumor = np.empty(image.shape[:-1], bool)
    for i in range(slide.num_patches):
        rng = np.random.default_rng(
            [slide.seed, _PATCH_STREAM, slide.number, i]
        )
        image[i], tumor[i] = tissue.draw_patch(rng, atlas, stain, positive[i])
    name = f"slide_{slide.number:03d}"
    return Patches(image, tumor, [name] * slide.num_patches)
