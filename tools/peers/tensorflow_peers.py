"""Peers on TensorFlow and Keras."""

import os

import tensorflow as tf

from pcam_tfdata import schema
from pcam_tfdata.benchmark import feeds, input_modes
from peers import consumer, patch_set

SHUFFLE_BUFFER = 16_384  # Patches; as many as --input=stream holds.
_TFDS_NAME = "pcam_png"


def keras_generator(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads TIFFs by Keras' ImageDataGenerator, as the course notebook does."""
    import pandas as pd

    feeds.hide_gpus()
    frame = pd.DataFrame(
        {
            "id": [os.path.basename(path) for path in patches.paths],
            "label": [str(label) for label in patches.labels],
        }
    )
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

    images = patches.map_images()
    examples = (
        (name, {"id": name, "image": image, "label": label})
        for name, image, label in zip(
            patches.ids, images, patches.labels, strict=True
        )
    )
    features = tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(
                shape=schema.IMAGE_SHAPE, encoding_format="png"
            ),
            "label": tfds.features.ClassLabel(num_classes=2),
        }
    )
    builder = tfds.dataset_builders.AdhocBuilder(
        name=_TFDS_NAME,
        version="1.0.0",
        features=features,
        split_datasets={"train": examples},
        data_dir=patches.place("tfds"),
    )
    builder.download_and_prepare()


def read_tfds(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads PNG Examples with TFDS; decodes behind the shuffle, in parallel."""
    import tensorflow_datasets as tfds

    feeds.hide_gpus()
    builder = tfds.builder_from_directory(
        os.path.join(patches.place("tfds"), _TFDS_NAME, "1.0.0")
    )
    ds = builder.as_dataset(
        split="train",
        shuffle_files=True,
        decoders={"image": tfds.decode.SkipDecoding()},
    )
    # Encoded patches are a third of the size, so the buffer costs less.
    ds = ds.shuffle(min(SHUFFLE_BUFFER, patches.num_patches)).repeat()
    ds = ds.map(
        lambda example: (
            tf.io.decode_png(example["image"], channels=schema.NUM_CHANNELS),
            example["label"],
        ),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )
    return iter(_batch(ds, patches))


def parse_single(patches: patch_set.PatchSet) -> consumer.Batches:
    """Parses raw Examples one by one, shuffles and batches."""
    feeds.hide_gpus()
    ds = _parse_all(patches)
    ds = ds.shuffle(min(SHUFFLE_BUFFER, patches.num_patches)).repeat()
    return iter(_batch(ds, patches))


def cache(patches: patch_set.PatchSet) -> consumer.Batches:
    """Caches parsed patches in memory, shuffles and batches."""
    feeds.hide_gpus()
    ds = _parse_all(patches).cache()
    ds = ds.shuffle(min(SHUFFLE_BUFFER, patches.num_patches)).repeat()
    return iter(_batch(ds, patches))


def _parse_all(patches: patch_set.PatchSet) -> tf.data.Dataset:
    ds = tf.data.TFRecordDataset(feeds.list_shards(patches.data))
    return ds.map(
        input_modes.parse_example,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=False,
    )


def _batch(ds: tf.data.Dataset, patches: patch_set.PatchSet) -> tf.data.Dataset:
    ds = ds.batch(
        patches.batch_size,
        drop_remainder=True,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return ds.prefetch(tf.data.AUTOTUNE)
