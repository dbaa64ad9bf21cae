"""The project's own input, and peers on TensorFlow and Keras."""

import os

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import input_rates
from peers import patch_set

_SHUFFLE_BUFFER = 16_384  # Patches; as many as --input=stream holds.
_TFDS_NAME = "pcam_png"


def mmap(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; --input=mmap, exact shuffle."""
    input_rates.hide_gpus()
    for batch in input_rates.train_batches(patches.options):
        yield batch["image"], batch["label"]


def keras_generator(patches: patch_set.PatchSet) -> patch_set.Batches:
    """TIFF; flow_from_dataframe, rescale 1/255: gives float32."""
    import pandas as pd

    input_rates.hide_gpus()
    frame = pd.DataFrame({"path": patches.paths})
    frame["label"] = patches.labels.astype(str)
    generator = tf.keras.preprocessing.image.ImageDataGenerator(rescale=1 / 255)
    flow = generator.flow_from_dataframe(
        frame,
        x_col="path",
        y_col="label",
        class_mode="binary",
        target_size=schema.IMAGE_SHAPE[:2],
        batch_size=patches.batch_size,
    )
    while True:
        yield next(flow)


def tfds_png(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Features of patch_camelyon; shuffle_files, shuffle(16,384) of encoded
    patches, parallel decode_png, batch, prefetch.
    """
    import tensorflow_datasets as tfds

    def decode(example: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        image = tf.io.decode_png(example["image"], channels=schema.NUM_CHANNELS)
        return image, example["label"]

    patches.write(_write_tfds)
    input_rates.hide_gpus()
    builder = tfds.builder_from_directory(
        os.path.join(patches.path("tfds"), _TFDS_NAME, "1.0.0")
    )
    ds = builder.as_dataset(
        split="train",
        shuffle_files=True,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    # Encoded patches are a third of the size, so the buffer costs less.
    ds = ds.shuffle(min(_SHUFFLE_BUFFER, len(patches))).repeat()
    ds = ds.map(decode, tf.data.AUTOTUNE, deterministic=False)
    return _batch(ds, patches)


def parse_single(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; parallel map, shuffle(16,384), batch, prefetch."""
    ds = _parse_all(patches).shuffle(min(_SHUFFLE_BUFFER, len(patches)))
    return _batch(ds.repeat(), patches)


def cache(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; parallel map, cache in memory, shuffle(16,384), batch, prefetch."""
    ds = _parse_all(patches).cache()
    ds = ds.shuffle(min(_SHUFFLE_BUFFER, len(patches))).repeat()
    batches = _batch(ds, patches)
    for _ in range(1 + len(patches) // patches.batch_size):
        next(batches)  # Fills the cache.
    return batches


def _parse_all(patches: patch_set.PatchSet) -> tf.data.Dataset:
    input_rates.hide_gpus()
    return input_rates.read_examples(patches.options).map(
        input_rates.parse_example, tf.data.AUTOTUNE, deterministic=False
    )


def _batch(
    ds: tf.data.Dataset, patches: patch_set.PatchSet
) -> patch_set.Batches:
    ds = ds.batch(
        patches.batch_size,
        drop_remainder=True,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return iter(ds.prefetch(tf.data.AUTOTUNE))


def _write_tfds(patches: patch_set.PatchSet) -> None:
    """Writes PNG Examples with TFDS, of the features of patch_camelyon."""
    import tensorflow_datasets as tfds

    image = tfds.features.Image(shape=schema.IMAGE_SHAPE, encoding_format="png")
    label = tfds.features.ClassLabel(num_classes=2)
    names = map(os.path.basename, patches.paths)
    examples = (
        (name, {"id": name, "image": pixels, "label": int(label)})
        for name, pixels, label in zip(
            names, patches.images, patches.labels, strict=True
        )
    )
    tfds.dataset_builders.AdhocBuilder(
        name=_TFDS_NAME,
        version="1.0.0",
        features=tfds.features.FeaturesDict(
            {"id": tfds.features.Text(), "image": image, "label": label}
        ),
        split_datasets={"train": examples},
        data_dir=patches.path("tfds"),
    ).download_and_prepare()
