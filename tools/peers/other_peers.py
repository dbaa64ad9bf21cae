"""Peers with loaders of their own: Grain, DALI and FFCV.

Each reads raw pixels: none has to decode an image.
"""

import os

import numpy as np

from pcam_tfdata import schema
from peers import patch_set, torch_peers

_NUM_WORKERS = 2
_SHUFFLE_BUFFER = 16_384  # Patches, where order is shuffled in a buffer.
_SEED = 0


def grain_array_record(patches: patch_set.PatchSet) -> patch_set.Batches:
    """ArrayRecord of raw pixels, group_size 1, uncompressed; exact shuffle, batch,
    mp_prefetch with 2 processes of 1 thread.
    """
    import grain

    def split(record: bytes) -> tuple[np.ndarray, int]:
        image = np.frombuffer(record, np.uint8, offset=1)
        return image.reshape(schema.IMAGE_SHAPE), record[0]

    patches.write(_write_array_record)
    source = grain.sources.ArrayRecordDataSource(patches.path("array_record"))
    ds = grain.MapDataset.source(source).seed(_SEED).shuffle().repeat()
    ds = ds.map(split).batch(patches.batch_size, drop_remainder=True)
    ds = ds.to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
    processes = grain.MultiprocessingOptions(
        num_workers=_NUM_WORKERS, per_worker_buffer_size=2
    )
    return iter(ds.mp_prefetch(processes))


def dali(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Records; readers.tfrecord, random_shuffle in a buffer of 16,384, 2 threads,
    device_id None; batches are views of its buffers, valid until the next.
    """
    from nvidia.dali import fn, pipeline_def, tfrecord

    paths, index_paths = [], []
    for shard in patches.options.select_patches().shards:
        size = shard.layout.record_bytes
        index = [(record * size, size) for record in range(shard.num_records)]
        paths.append(shard.path)
        index_paths.append(patches.path(os.path.basename(shard.path)))
        np.savetxt(index_paths[-1], index, "%d")

    @pipeline_def(
        batch_size=patches.batch_size,
        num_threads=_NUM_WORKERS,
        device_id=None,
        seed=_SEED,
    )
    def define() -> tuple:
        features = fn.readers.tfrecord(
            path=paths,
            index_path=index_paths,
            features={
                "image": tfrecord.FixedLenFeature((), tfrecord.string, ""),
                "label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            },
            random_shuffle=True,
            initial_fill=min(_SHUFFLE_BUFFER, len(patches)),
        )
        image = fn.reshape(features["image"], shape=schema.IMAGE_SHAPE)
        return image, features["label"]

    pipeline = define()
    pipeline.build()
    while True:
        image, label = pipeline.run()
        yield np.asarray(image.as_tensor()), np.asarray(label.as_tensor())


def ffcv(patches: patch_set.PatchSet) -> patch_set.Batches:
    """Beton of raw pixels; Loader, OrderOption.RANDOM, os_cache, 2 threads; batches
    are views of its buffers, valid until the next ones.
    """
    from ffcv import loader, transforms
    from ffcv.fields import decoders

    patches.write(_write_beton)
    batches = loader.Loader(
        patches.path("beton"),
        batch_size=patches.batch_size,
        num_workers=_NUM_WORKERS,
        order=loader.OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        pipelines={
            "image": [decoders.NDArrayDecoder(), transforms.ToTensor()],
            "label": [decoders.IntDecoder(), transforms.ToTensor()],
        },
    )
    while True:
        yield from batches


def _write_array_record(patches: patch_set.PatchSet) -> None:
    """Writes ArrayRecords of a byte of label and the pixels, one a group."""
    from array_record.python import array_record_module

    writer = array_record_module.ArrayRecordWriter(
        patches.path("array_record"), "group_size:1,uncompressed"
    )
    for image, label in zip(patches.images, patches.labels, strict=True):
        writer.write(bytes([label]) + image.tobytes())
    writer.close()


def _write_beton(patches: patch_set.PatchSet) -> None:
    """Writes a beton of raw pixels and labels."""
    from ffcv import fields, writer

    shape = tuple(schema.IMAGE_SHAPE)
    columns = {
        "image": fields.NDArrayField(np.dtype(np.uint8), shape),
        "label": fields.IntField(),
    }
    beton = writer.DatasetWriter(patches.path("beton"), columns, num_workers=1)
    images, labels = patches.images, patches.labels
    rows = torch_peers.Dataset(
        len(patches), lambda row: (np.array(images[row]), int(labels[row]))
    )
    beton.from_indexed_dataset(rows)
