"""Records: TensorFlow's own bytes, of fixed width, mappable."""

import math

import numpy as np
import pytest

from pcam_tfdata import schema
from pcam_tfdata.records import records_folder, tfrecord

PATCH_ID = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def patches() -> np.ndarray:
    shape = (3, *schema.IMAGE_SHAPE)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def encode(
    patch_id: str, image: np.ndarray, label: int, fraction: float
) -> bytes:
    """Returns one record."""
    return tfrecord.encode(
        np.array([patch_id], np.bytes_), image[np.newaxis], np.array([label]),
        np.array([fraction]),
    ).tobytes()  # fmt: skip


def shard_at(path, num_records: int) -> records_folder.ShardFile:
    return records_folder.ShardFile(str(path), "fold0", num_records, 0, True)


@pytest.mark.tensorflow
@pytest.mark.parametrize("label", [0, 1, -1])
@pytest.mark.parametrize("fraction", [0.25, math.nan])
def test_bytes_are_those_of_tensorflow(patches, label, fraction, tmp_path):
    tf = pytest.importorskip("tensorflow")
    record = encode(PATCH_ID, patches[0], label, fraction)

    def feature(**kind):
        return tf.train.Feature(**kind)

    example = tf.train.Example(
        features=tf.train.Features(
            feature={
                "id": feature(
                    bytes_list=tf.train.BytesList(value=[PATCH_ID.encode()])
                ),
                "image": feature(
                    bytes_list=tf.train.BytesList(value=[patches[0].tobytes()])
                ),
                "label": feature(int64_list=tf.train.Int64List(value=[label])),
                "tumor_fraction": feature(
                    float_list=tf.train.FloatList(value=[fraction])
                ),
            }
        )
    )
    path = str(tmp_path / "theirs.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(example.SerializeToString(deterministic=True))
    with open(path, "rb") as file:
        assert file.read() == record


@pytest.mark.parametrize(
    ("labeled", "record_bytes"), [(True, 27_787), (False, 27_796)]
)
def test_layout_is_fixed(labeled, record_bytes):
    layout = tfrecord.layout(labeled=labeled)
    assert layout.record_bytes == record_bytes
    assert (layout.id_offset, layout.image_offset) == (28, 91)


@pytest.mark.parametrize("label", [0, 1, -1])
def test_offsets_point_at_their_values(patches, label):
    layout = tfrecord.layout(labeled=label >= 0)
    record = np.frombuffer(encode(PATCH_ID, patches[0], label, 0.75), np.uint8)
    start = layout.tumor_fraction_offset
    assert record[start : start + 4].view(np.float32)[0] == 0.75
    assert record[layout.label_offset] == (label if label >= 0 else 255)


def test_mapped_shard_shows_the_patches(patches, tmp_path):
    layout = tfrecord.layout(labeled=True)
    path = tmp_path / "shard"
    path.write_bytes(b"".join(encode(PATCH_ID, p, 1, 0.0) for p in patches))
    mapped = shard_at(path, 3).map()
    images = tfrecord.view_images(mapped, layout)
    np.testing.assert_array_equal(images, patches)
    assert not images.flags.writeable


def test_shard_cut_short_is_refused(tmp_path):
    path = tmp_path / "shard"
    path.write_bytes(bytes(100))
    with pytest.raises(ValueError, match=r"shard: found 100 bytes, expected"):
        shard_at(path, 3).map()


@pytest.mark.parametrize(
    ("byte", "reason"),
    [(2, "length field"), (9, "length field"), (30, "CRC of the data"),
     (5000, "CRC of the data"), (-1, "CRC of the data")],
)  # fmt: skip
def test_flipped_bit_is_found(patches, byte, reason):
    patch_id = schema.hash_pixels(patches[0])
    record = bytearray(encode(patch_id, patches[0], 1, 0.0))
    layout = tfrecord.layout(labeled=True)
    assert tfrecord.find_frame_fault(bytes(record), layout) is None
    record[byte] ^= 4
    assert reason in tfrecord.find_frame_fault(bytes(record), layout)


@pytest.mark.parametrize("labels", [(0, 1, 1), (-1, -1, -1)])
def test_block_of_records_is_that_of_single_ones(patches, labels):
    ids = [PATCH_ID, PATCH_ID[::-1], "f" * 40]
    fractions = [0.25, math.nan, 1.0]
    block = tfrecord.encode(
        np.array(ids, np.bytes_), patches, np.array(labels), np.array(fractions)
    )
    expected = [
        encode(*patch)
        for patch in zip(ids, patches, labels, fractions, strict=True)
    ]
    assert block.tobytes() == b"".join(expected)
