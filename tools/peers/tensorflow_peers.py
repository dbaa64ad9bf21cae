"""The project's own input modes, and peers on TensorFlow and Keras."""

import os
from collections.abc import Callable

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import input_modes
from peers import patch_set

_SHUFFLE_BUFFER = 16_384  # Patches; as many as --input=stream holds.
_TFDS_NAME = "pcam_png"


def mmap(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; --input=mmap, exact shuffle."""
    input_modes.hide_gpus()
    for batch in input_modes.train_batches(patches.options):
        yield batch["image"], batch["label"]


def stream(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; --input=stream, shuffled in a buffer of 128 MiB."""
    input_modes.hide_gpus()
    opened = input_modes.open_patches(patches.options, input="stream")
    for batch in input_modes.train_batches(patches.options, opened):
        yield batch["image"], batch["label"]


def keras_generator(patches: patch_set.PatchSet) -> patch_set.Batches:
    """TIFF; flow_from_dataframe, rescale 1/255: gives float32."""
    import pandas as pd

    input_modes.hide_gpus()
    names = [os.path.basename(path) for path in patches.paths]
    frame = pd.DataFrame({"id": names, "label": patches.labels.astype(str)})
    generator = tf.keras.preprocessing.image.ImageDataGenerator(rescale=1 / 255)
    flow = generator.flow_from_dataframe(
        frame,
        directory=os.path.dirname(patches.paths[0]),
        x_col="id",
        y_col="label",
        class_mode="binary",
        target_size=schema.IMAGE_SHAPE[:2],
        batch_size=patches.batch_size,
    )
    while True:
        yield next(flow)


def write_tfds(patches: patch_set.PatchSet) -> None:
    """Writes PNG Examples with TFDS, of the features of patch_camelyon."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=schema.IMAGE_SHAPE, encoding_format="png")
    label = tfds.features.ClassLabel(num_classes=2)
    builder = tfds.dataset_builders.AdhocBuilder(
        name=_TFDS_NAME,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"id": tfds.features.Text(), "image": image, "label": label}
        ),
        split_datasets={
            "train": (
                (name, {"id": name, "image": pixels, "label": int(label)})
                for name, pixels, label in zip(
                    patches.ids, patches.images, patches.labels, strict=True
                )
            )
        },
        data_dir=patches.path("tfds"),
    )
    builder.download_and_prepare()


def read_tfds(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Features of patch_camelyon; shuffle_files, shuffle(16,384) of encoded
    patches, parallel decode_png, batch, prefetch.
    """
    import tensorflow_datasets as tfds

    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_png(example["image"], channels=schema.NUM_CHANNELS)
        return image, example["label"]

    input_modes.hide_gpus()
    builder = tfds.builder_from_directory(
        os.path.join(patches.path("tfds"), _TFDS_NAME, "1.0.0")
    )
    ds = builder.as_dataset(
        split="train",
        shuffle_files=True,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    # Encoded patches are a third of the size, so the buffer costs less.
    return _batch(_map(_shuffle(ds, patches), decode), patches)


def parse_single(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; parallel map, shuffle(16,384), batch, prefetch."""
    return _batch(_shuffle(_parse_all(patches), patches), patches)


def cache(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; parallel map, cache in memory, shuffle(16,384), batch, prefetch."""
    return _batch(_shuffle(_parse_all(patches).cache(), patches), patches)


def _parse_all(patches: patch_set.PatchSet) -> tf.data.Dataset:
    input_modes.hide_gpus()
    ds = input_modes.read_examples(patches.options)
    return _map(ds, input_modes.parse_example)


def _map(ds: tf.data.Dataset, function: Callable) -> tf.data.Dataset:
    return ds.map(
        function, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False
    )


def _shuffle(
    ds: tf.data.Dataset, patches: patch_set.PatchSet
) -> tf.data.Dataset:
    return ds.shuffle(min(_SHUFFLE_BUFFER, len(patches))).repeat()


def _batch(
    ds: tf.data.Dataset, patches: patch_set.PatchSet
) -> patch_set.Batches:
    ds = ds.batch(
        patches.batch_size,
        drop_remainder=True,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return iter(ds.prefetch(tf.data.AUTOTUNE))
