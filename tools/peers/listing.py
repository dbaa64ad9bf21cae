"""The peers, and the setting of each."""

import dataclasses

from pcam_tfdata.benchmark import machine

OWN = "pcam_tfdata mmap"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A way to feed patches.

    Attributes:
        name: In the table.
        module: Of the folder `peers`.
        read: Its function that gives batches.
        setting: Format and options.
        packages: Whose versions are told.
        write: Its function that writes the format, if it is one of its own.
        whole_epoch: Whether an epoch must pass before it is timed.
    """

    name: str
    module: str
    read: str
    setting: str
    packages: tuple[str, ...] = ("tensorflow",)
    write: str | None = None
    whole_epoch: bool = False


_LOADER = "2 worker processes, persistent, prefetch_factor 4, no pinned memory"
PEERS = (
    Peer(OWN, "own", "mmap", "records; --input=mmap, exact shuffle"),
    Peer(
        "pcam_tfdata stream",
        "own",
        "stream",
        "records; --input=stream, shuffled in a buffer of 128 MiB",
    ),
    Peer(
        "limit: .npy memmap gather",
        "own",
        "gather_npy",
        ".npy; in the main process, so nothing overlaps with a step",
        ("numpy",),
    ),
    Peer(
        "Keras ImageDataGenerator",
        "tensorflow_peers",
        "keras_generator",
        "TIFF; flow_from_dataframe, rescale 1/255: gives float32",
        ("keras",),
    ),
    Peer(
        "TFDS, PNG Examples",
        "tensorflow_peers",
        "read_tfds",
        "features of patch_camelyon; shuffle_files, shuffle(16,384) of encoded"
        " patches, parallel decode_png, batch, prefetch",
        ("tensorflow-datasets",),
        write="write_tfds",
    ),
    Peer(
        "TFRecordDataset.map(parse_single_example)",
        "tensorflow_peers",
        "parse_single",
        "records; parallel map, shuffle(16,384), batch, prefetch",
    ),
    Peer(
        "the same, cache()",
        "tensorflow_peers",
        "cache",
        "records; parallel map, cache in memory, shuffle(16,384), batch,"
        " prefetch",
        whole_epoch=True,
    ),
    Peer(
        "torch DataLoader, TIFF",
        "torch_peers",
        "read_tiffs",
        f"TIFF by Pillow; {_LOADER}",
        ("torch", "pillow"),
    ),
    Peer(
        "torch DataLoader, HDF5",
        "torch_peers",
        "read_hdf5",
        f"HDF5, opened for each patch as torchvision's PCAM does; {_LOADER}",
        ("torch", "h5py"),
        write="write_hdf5",
    ),
    Peer(
        "torch DataLoader, HDF5 kept open",
        "torch_peers",
        "read_open_hdf5",
        f"the same files, opened once by each worker; {_LOADER}",
        ("torch", "h5py"),
        write="write_hdf5",
    ),
    Peer(
        "torch DataLoader, .npy memmap",
        "torch_peers",
        "read_npy",
        f".npy; a batch gathered at once by __getitems__; {_LOADER}",
        ("torch", "numpy"),
    ),
    Peer(
        "Grain, ArrayRecord",
        "other_peers",
        "read_array_record",
        "ArrayRecord of raw pixels, group_size 1, uncompressed; exact shuffle,"
        " batch, mp_prefetch with 2 processes of 1 thread",
        ("grain", "array-record"),
        write="write_array_record",
    ),
    Peer(
        "MosaicML Streaming",
        "other_peers",
        "read_mds",
        f"MDS of raw pixels, uncompressed; {_LOADER}",
        ("mosaicml-streaming", "torch"),
        write="write_mds",
    ),
    Peer(
        "WebDataset",
        "other_peers",
        "read_tars",
        "8 tar files of raw pixels; shuffled by file and in a buffer of 8,192"
        f" a worker, batched in the workers; {_LOADER}",
        ("webdataset", "torch"),
        write="write_tars",
    ),
    Peer(
        "DALI on the CPU",
        "other_peers",
        "read_dali",
        "records; readers.tfrecord, random_shuffle in a buffer of 16,384,"
        " 2 threads, device_id None; batches are views of its buffers, valid"
        " until the next",
        ("nvidia-dali-cuda120",),
        write="write_dali_index",
    ),
    Peer(
        "FFCV",
        "ffcv_peer",
        "read_ffcv",
        "beton of raw pixels; Loader, OrderOption.RANDOM, os_cache, 2 threads;"
        " batches are views of its buffers, valid until the next ones",
        ("ffcv",),
        write="write_ffcv",
    ),
)


def describe(peer: Peer) -> str:
    """Returns the versions and the setting of a peer."""
    versions = ", ".join(
        f"{package} {machine.find_version(package) or 'not installed'}"
        for package in peer.packages
    )
    return f"{versions}; {peer.setting}"
