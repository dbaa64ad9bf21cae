"""Peers with loaders of their own: Grain, Streaming, WebDataset, DALI, FFCV.

Each has its own format of raw pixels: none has to decode an image.
"""

import os

import numpy as np

from pcam_tfdata import schema
from pcam_tfdata.records import records_folder
from peers import consumer, patch_set

NUM_WORKERS = 2
NUM_SHARDS = 8
SHUFFLE_BUFFER = 16_384  # Patches, where order is shuffled in a buffer.
_SEED = 0


def write_array_record(patches: patch_set.PatchSet) -> None:
    """Writes ArrayRecords of a byte of label and the pixels, one a group."""
    from array_record.python import array_record_module

    path = patches.place("patches.array_record")
    writer = array_record_module.ArrayRecordWriter(
        path, "group_size:1,uncompressed"
    )
    images = patches.map_images()
    for image, label in zip(images, patches.labels, strict=True):
        writer.write(bytes([label]) + image.tobytes())
    writer.close()


def read_array_record(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads ArrayRecords with Grain, in worker processes."""
    import grain

    source = grain.sources.ArrayRecordDataSource(
        patches.place("patches.array_record")
    )
    ds = grain.MapDataset.source(source).seed(_SEED).shuffle().repeat()
    ds = ds.map(_split).batch(patches.batch_size, drop_remainder=True)
    ds = ds.to_iter_dataset(
        grain.ReadOptions(num_threads=1, prefetch_buffer_size=4)
    )
    ds = ds.mp_prefetch(
        grain.MultiprocessingOptions(
            num_workers=NUM_WORKERS, per_worker_buffer_size=2
        )
    )
    return iter(ds)


def write_mds(patches: patch_set.PatchSet) -> None:
    """Writes Mosaic Data Shards, uncompressed."""
    import streaming

    columns = {"image": "ndarray:uint8:96,96,3", "label": "int"}
    with streaming.MDSWriter(out=patches.place("mds"), columns=columns) as out:
        images = patches.map_images()
        for image, label in zip(images, patches.labels, strict=True):
            out.write({"image": np.asarray(image), "label": label})


def read_mds(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads Mosaic Data Shards by StreamingDataset and DataLoader."""
    import streaming
    from torch.utils import data as torch_data

    dataset = streaming.StreamingDataset(
        local=patches.place("mds"),
        shuffle=True,
        batch_size=patches.batch_size,
        num_canonical_nodes=1,
    )
    loader = torch_data.DataLoader(
        dataset,
        batch_size=patches.batch_size,
        drop_last=True,
        num_workers=NUM_WORKERS,
        persistent_workers=True,
        prefetch_factor=4,
    )
    while True:
        for batch in loader:
            yield batch["image"], batch["label"]


def write_tars(patches: patch_set.PatchSet) -> None:
    """Writes tar files of raw pixels and labels."""
    import webdataset

    os.makedirs(patches.place("tars"))
    images = patches.map_images()
    for shard in range(NUM_SHARDS):
        path = os.path.join(patches.place("tars"), f"{shard}.tar")
        with webdataset.TarWriter(path) as writer:
            for place in range(shard, patches.num_patches, NUM_SHARDS):
                writer.write(
                    {
                        "__key__": patches.ids[place],
                        "rgb": images[place].tobytes(),
                        "cls": patches.labels[place],
                    }
                )


def read_tars(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads tar files with WebDataset, shuffled by file and in a buffer."""
    import webdataset

    folder = patches.place("tars")
    paths = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    buffer = min(SHUFFLE_BUFFER, patches.num_patches) // NUM_WORKERS
    dataset = (
        webdataset.WebDataset(paths, shardshuffle=NUM_SHARDS, seed=_SEED)
        .repeat()
        .shuffle(buffer)
        .map(_decode_tar_member)
        .batched(patches.batch_size, partial=False)
    )
    return iter(
        webdataset.WebLoader(
            dataset,
            batch_size=None,
            num_workers=NUM_WORKERS,
            persistent_workers=True,
            prefetch_factor=4,
        )
    )


def write_dali_index(patches: patch_set.PatchSet) -> None:
    """Writes DALI's index of the shards: offset and size of each record."""
    os.makedirs(patches.place("dali"))
    content = records_folder.open_folder(patches.data.records_dir).content
    for split in content.select(patches.data.splits):
        size = split.layout.record_bytes
        for shard in split.shards:
            path = os.path.join(patches.place("dali"), shard.name)
            with open(path, "w", encoding="utf-8") as file:
                file.writelines(
                    f"{record * size} {size}\n"
                    for record in range(shard.num_records)
                )


def read_dali(patches: patch_set.PatchSet) -> consumer.Batches:
    """Reads the project's own shards with DALI on the CPU."""
    from nvidia import dali
    from nvidia.dali import fn, tfrecord

    names = sorted(os.listdir(patches.place("dali")))
    records_dir = patches.data.records_dir

    @dali.pipeline_def(
        batch_size=patches.batch_size,
        num_threads=NUM_WORKERS,
        device_id=None,
        seed=_SEED,
    )
    def read() -> tuple:
        features = fn.readers.tfrecord(
            path=[os.path.join(records_dir, name) for name in names],
            index_path=[
                os.path.join(patches.place("dali"), name) for name in names
            ],
            features={
                "image": tfrecord.FixedLenFeature((), tfrecord.string, ""),
                "label": tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            },
            random_shuffle=True,
            initial_fill=min(SHUFFLE_BUFFER, patches.num_patches),
        )
        image = fn.reshape(features["image"], shape=schema.IMAGE_SHAPE)
        return image, features["label"]

    pipeline = read()
    pipeline.build()
    while True:
        image, label = pipeline.run()
        yield np.asarray(image.as_tensor()), np.asarray(label.as_tensor())


def _split(record: bytes) -> tuple[np.ndarray, int]:
    image = np.frombuffer(record, np.uint8, offset=1)
    return image.reshape(schema.IMAGE_SHAPE), record[0]


def _decode_tar_member(sample: dict) -> tuple[np.ndarray, int]:
    image = np.frombuffer(sample["rgb"], np.uint8)
    return image.reshape(schema.IMAGE_SHAPE), int(sample["cls"])
