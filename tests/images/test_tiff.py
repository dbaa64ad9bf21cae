"""Kaggle's TIFF layout, and everything that is not it."""

import concurrent.futures
import io
import itertools
import pathlib
import random
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
import searches
import tiff_files
from PIL import Image
from tiff_files import LONG, SHORT, make_tiff

from pcam_tfdata import schema
from pcam_tfdata.images import tiff

RNG = np.random.default_rng(5)
NOISE = RNG.integers(0, 256, (96, 96, 3), np.uint8)


def save(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def test_round_trip_restores_pixels(random_patch):
    data = tiff.encode(random_patch)
    assert len(data) == 27_935
    np.testing.assert_array_equal(tiff.decode(data, "p"), random_patch)


def test_layout_is_that_of_the_real_files(kaggle_sample):
    for path in sorted((kaggle_sample / "train").iterdir())[:50]:
        real = path.read_bytes()
        image = tiff.decode(real, str(path))
        ours = tiff.encode(image)
        assert (ours[:267], ours[287:]) == (real[:267], real[287:])
        assert schema.hash_pixels(image) == path.stem


def test_pillow_reads_our_files_alike(random_patch):
    with Image.open(io.BytesIO(tiff.encode(random_patch))) as image:
        np.testing.assert_array_equal(np.asarray(image), random_patch)


@pytest.mark.parametrize(
    ("format", "options"),
    [("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}), ("PNG", {})],
    ids=["tiff", "lzw", "png"],
)
def test_slow_path_gives_the_same_pixels(random_patch, format, options):
    data = save(Image.fromarray(random_patch), format, **options)
    decoded = tiff.decode(data, "p")
    np.testing.assert_array_equal(decoded, random_patch)
    assert schema.hash_pixels(decoded) == schema.hash_pixels(random_patch)


def two_pages() -> bytes:
    page = Image.new("RGB", (96, 96))
    return save(page, "TIFF", save_all=True, append_images=[page])


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "0 bytes"),
        (b"no image at all", "15 bytes"),
        (tiff.encode(np.zeros((96, 96, 3), np.uint8))[:9000], "9000 bytes"),
        (save(Image.new("L", (96, 96)), "TIFF"), "L 96 x 96"),
        (save(Image.new("RGBA", (96, 96)), "PNG"), "RGBA 96 x 96"),
        (save(Image.new("RGB", (97, 96)), "PNG"), "RGB 97 x 96"),
        (two_pages(), "a TIFF of more pages than one"),
    ],
    ids=["empty", "text", "truncated", "grey", "rgba", "wide", "pages"],
)
def test_anything_else_is_refused_in_one_line(data, found):
    with pytest.raises(ValueError, match=found) as caught:
        tiff.decode(data, "some/patch.tif")
    message = str(caught.value)
    assert message.startswith("some/patch.tif: found")
    assert "\n" not in message


def read_with_pillow(data: bytes) -> np.ndarray | None:
    """Returns what Pillow gives without complaint, if it is one RGB patch."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            with Image.open(io.BytesIO(data)) as image:
                if (image.mode, image.size) != ("RGB", (96, 96)):
                    return None
                if getattr(image, "n_frames", 1) != 1:
                    return None
                pixels = np.asarray(image)
        except Exception:
            return None
    told = [w for w in told if not issubclass(w.category, DeprecationWarning)]
    return None if told else pixels


def padded(size: int) -> np.ndarray:
    image = np.zeros((size, size, 3), np.uint8)
    image[:96, :96] = NOISE
    return image


def tiles(size: int) -> dict:
    starts = range(0, 96, size)
    image = padded(size * len(starts))
    return {
        "changes": {322: (SHORT, [size]), 323: (SHORT, [size])},
        "parts": [
            image[row : row + size, column : column + size].tobytes()
            for row, column in itertools.product(starts, starts)
        ],
    }


def planes() -> dict:
    parts = [NOISE[..., channel].tobytes() for channel in range(3)]
    return {"changes": {284: (SHORT, [2])}, "parts": parts}


def strips(rows: int) -> dict:
    parts = [NOISE[row : row + rows].tobytes() for row in range(0, 96, rows)]
    return {"changes": {278: (LONG, [rows])}, "parts": parts}


def fourth_channel(kind: int) -> dict:
    pixels = np.dstack([NOISE, NOISE[..., 0]])
    changes = {258: (SHORT, [8] * 4), 277: (SHORT, [4]), 338: (SHORT, [kind])}
    return {"changes": changes, "parts": [pixels.tobytes()]}


def transparent_png() -> bytes:
    return save(Image.fromarray(NOISE), "PNG", transparency=(1, 2, 3))


@pytest.mark.parametrize(
    "data",
    [
        make_tiff(NOISE, order=">"),
        make_tiff(NOISE, big=True),
        make_tiff(NOISE, **planes()),
        make_tiff(NOISE, **strips(10)),
        make_tiff(NOISE, **strips(96), order=">"),
        make_tiff(NOISE, **tiles(32)),
        make_tiff(NOISE, **tiles(64)),
        make_tiff(NOISE, **tiles(128)),
        make_tiff(NOISE, **fourth_channel(0)),
        make_tiff(NOISE, {266: (SHORT, [1])}),
        make_tiff(NOISE) + b"more",
        *(
            save(Image.fromarray(NOISE), "TIFF", compression=compression)
            for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits")
        ),
        transparent_png(),
        save(Image.fromarray(NOISE), "BMP"),
    ],
    ids=[
        "big_endian", "bigtiff", "planes", "strips", "one_strip", "tiles",
        "tiles_beyond_edge", "one_tile", "rgbx", "fill_order", "trailing",
        "lzw", "deflate", "packbits", "transparent_png", "bmp",
    ],
)  # fmt: skip
def test_every_lossless_way_to_store_a_patch_is_read(data):
    np.testing.assert_array_equal(tiff.decode(data, "p"), NOISE)


def lossy(format: str, **options) -> bytes:
    smooth = np.linspace(0, 255, NOISE.size).reshape(NOISE.shape)
    image = Image.fromarray(smooth.astype(np.uint8))
    return save(image, format, **options)


@pytest.mark.parametrize(
    "data",
    [
        lossy("JPEG"),
        lossy("JPEG", keep_rgb=True),
        lossy("JPEG", progressive=True, quality=30),
        lossy("TIFF", compression="jpeg"),
        lossy("WEBP"),
    ],
    ids=["jpeg", "rgb_jpeg", "progressive", "jpeg_in_tiff", "webp"],
)
def test_lossy_files_give_the_pixels_of_pillow(data):
    np.testing.assert_array_equal(
        tiff.decode(data, "p"), read_with_pillow(data)
    )


def with_orientation(format: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lossy(format, exif=exif)


def test_orientation_is_that_of_the_stored_pixels_unless_in_a_tiff():
    upright = tiff.decode(lossy("JPEG"), "p")
    turned = tiff.decode(with_orientation("JPEG", 6), "p")
    np.testing.assert_array_equal(turned, upright)
    turned = tiff.decode(make_tiff(NOISE, {274: (SHORT, [6])}), "p")
    np.testing.assert_array_equal(turned, np.rot90(NOISE, -1))


def deep_png() -> bytes:
    rows = b"".join(b"\0" + bytes(96 * 6) for _ in range(96))
    header = (96).to_bytes(4, "big") * 2 + bytes([16, 2, 0, 0, 0])
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big")
        + name + body + zlib.crc32(name + body).to_bytes(4, "big")
        for name, body in chunks
    )  # fmt: skip


def twice(tag: int) -> bytes:
    """A TIFF with a second value of a tag, after a larger one."""
    data = make_tiff(NOISE, {301: (SHORT, [1])})
    return data.replace(struct.pack("<H", 301), struct.pack("<H", tag), 1)


DEEP = {258: (SHORT, [16] * 3)}
BLACK = Image.new("RGB", (96, 96))


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (make_tiff(NOISE, DEEP, parts=[bytes(55_296)]), "16/16/16 bits"),
        (make_tiff(NOISE, DEEP | {284: (SHORT, [2])}), "16/16/16 bits"),
        (save(Image.new("I;16", (96, 96)), "TIFF"), "16 bits"),
        (deep_png(), "RGB 96 x 96, more than 8 bits a channel"),
        (save(BLACK, "PPM"), "cannot identify image file"),
        (save(Image.new("P", (96, 96)), "TIFF"), "P 96 x 96"),
        (save(Image.new("1", (96, 96)), "TIFF"), "a TIFF .* 1 bits"),
        (save(Image.new("RGBA", (96, 96)), "TIFF"), "RGBA 96 x 96"),
        (make_tiff(NOISE, **fourth_channel(2)), "RGBA 96 x 96"),
        (save(Image.new("CMYK", (96, 96)), "TIFF"), "CMYK 96 x 96"),
        (save(Image.new("CMYK", (96, 96)), "JPEG"), "CMYK 96 x 96"),
        (save(Image.new("L", (96, 96)), "JPEG"), "L 96 x 96"),
        (save(Image.new("LA", (96, 96)), "PNG"), "LA 96 x 96"),
        (save(Image.new("P", (96, 96)), "PNG"), "P 96 x 96"),
        (save(BLACK, "GIF"), "P 96 x 96"),
        (save(BLACK, "EPS"), "cannot identify image file"),
        (
            save(BLACK, "PNG", save_all=True, append_images=[Image.new("RGB", (96, 96), "red")]),
            "2 pages",
        ),
        (make_tiff(NOISE, {262: (SHORT, [6])}), "YCbCr 96 x 96"),
        (make_tiff(NOISE, {339: (SHORT, [2, 2, 2])}), "do not decode"),
        (make_tiff(NOISE, {259: (SHORT, [34_925])}), "do not decode"),
        (make_tiff(NOISE, {259: (SHORT, [999])}), "compression 999"),
        (make_tiff(NOISE, order=">", big=True), "ends before its tags"),
        (make_tiff(NOISE, **strips(10) | {"parts": strips(10)["parts"][:9]}), "9 strips for 10"),
        (make_tiff(NOISE, {278: (LONG, [10])}), "1 strips for 10"),
        (make_tiff(NOISE, {278: (LONG, [0])}), "strips of 96 x 0"),
        (make_tiff(NOISE, {258: (SHORT, [8, 8, 16])}), "8/8/16 bits"),
        (lossy("JPEG")[:-400], "truncated"),
        (lossy("PNG")[:-400], "do not decode"),
        (lossy("TIFF", compression="tiff_lzw")[:-3000], "ends before its tags"),
        (twice(277), "tags that are there twice"),
        (make_tiff(NOISE, {340: (SHORT, [0])}, next_page=8), "more pages"),
    ],
    ids=[
        "rgb16", "rgb16_planes", "grey16", "png16", "ppm", "palette",
        "bilevel", "rgba", "rgba_unassociated", "cmyk", "cmyk_jpeg",
        "grey_jpeg", "grey_alpha_png", "palette_png", "gif", "eps", "apng",
        "ycbcr", "signed", "zstd_lie", "unknown_compression",
        "big_endian_bigtiff", "strip_missing", "rows_of_strip_lie",
        "no_rows_in_strip", "unequal_depth", "cut_jpeg", "cut_png", "cut_lzw",
        "tag_twice", "loop",
    ],
)  # fmt: skip
def test_what_is_no_patch_is_refused_with_what_was_found(data, found):
    with pytest.raises(ValueError, match=found):
        tiff.decode(data, "p")


def test_warning_of_pillow_refuses_the_file():
    data = make_tiff(NOISE, {700: (tiff_files.BYTE, [0] * 8)})
    assert read_with_pillow(data) is not None
    place = data.index((700).to_bytes(2, "little"))
    data = (
        data[: place + 8] + (30_000).to_bytes(4, "little") + data[place + 12 :]
    )
    assert read_with_pillow(data) is None
    with pytest.raises(ValueError, match="Truncated File Read"):
        tiff.decode(data, "p")


@pytest.mark.parametrize("num_bytes", [tiff.MAX_FILE_BYTES + 1, 10**10])
def test_large_file_is_refused_unread(tmp_path, num_bytes):
    path = tmp_path / "large.tif"
    with path.open("wb") as file:
        file.write(tiff.encode(NOISE))
        file.truncate(num_bytes)
    expected = "found more than 1,048,576 bytes, expected a TIFF, PNG,"
    with pytest.raises(ValueError, match=rf"large.tif: {expected}"):
        tiff.read(str(path))
    with pytest.raises(ValueError, match=expected):
        tiff.decode(bytes(tiff.MAX_FILE_BYTES + 1), "p")


def test_endless_file_is_refused():
    with pytest.raises(
        ValueError, match="/dev/zero: found more than 1,048,576"
    ):
        tiff.read("/dev/zero")


def test_file_just_within_the_bound_is_read(tmp_path):
    path = tmp_path / "notes.tif"
    path.write_bytes(make_tiff(NOISE).ljust(tiff.MAX_FILE_BYTES, b"n"))
    np.testing.assert_array_equal(tiff.read(str(path)), NOISE)


def test_file_is_read_like_its_bytes(tmp_path):
    path = tmp_path / "patch.tif"
    for data in (tiff.encode(NOISE), make_tiff(NOISE), lossy("PNG")):
        path.write_bytes(data)
        np.testing.assert_array_equal(
            tiff.read(str(path)), tiff.decode(data, "p")
        )
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"patch\.tif: found 0 bytes"):
        tiff.read(str(path))


def test_filters_of_warnings_outlive_threads_that_decode():
    filters = list(warnings.filters)
    data = lossy("PNG")

    def decode(number: int) -> np.ndarray:
        return tiff.decode(data, str(number))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(decode, range(400)))) == 400
    assert warnings.filters == filters


# Files of 1 MiB at most that take Pillow alone a gigabyte, a minute, or lines
# on the screen. Run in a process of its own, whose memory is that of a worker.
BOMBS = """
import resource, struct, time, zlib
import numpy as np
from PIL import Image
from tiff_files import LONG, SHORT, make_tiff
from pcam_tfdata.images import tiff

Image.init()
image = np.zeros((96, 96, 3), np.uint8)
huge = [2**32 - 1]
first = len(make_tiff(image))
pages = b"".join(
    bytes(2) + (first + 6 * number).to_bytes(4, "little")
    for number in range(1, 150_000)
)
side = 8192
packer = zlib.compressobj(1)
packed = [packer.compress(bytes(side * 3)) for _ in range(side)]
packed = b"".join([*packed, packer.flush()])
header = (20_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
png = b"\\x89PNG\\r\\n\\x1a\\n" + b"".join(
    struct.pack(">I", len(body)) + name + body
    + struct.pack(">I", zlib.crc32(name + body))
    for name, body in ((b"IHDR", header), (b"IDAT", packed), (b"IEND", b""))
)
overlap = make_tiff(image, {1000 + n: (LONG, [0]) for n in range(900)})
for n in range(900):
    entry = struct.pack("<HHI", 1000 + n, 4, 1)
    assert entry in overlap
    overlap = overlap.replace(entry, struct.pack("<HHI", 1000 + n, 1, 10**6))
overlap = overlap.ljust(10**6, b"x")
bombs = {
    "size": make_tiff(image, {256: (LONG, huge), 257: (LONG, huge)}),
    "large": make_tiff(image, {256: (LONG, [13_500]), 257: (LONG, [13_500])}),
    "png": png,
    "pages": make_tiff(image, next_page=first) + pages,
    "loop": make_tiff(image, next_page=first) + pages[:600] + bytes(2)
    + first.to_bytes(4, "little"),
    "tile": make_tiff(
        image,
        {259: (SHORT, [8]), 322: (LONG, [side]), 323: (LONG, [side])},
        parts=[packed],
    ),
    "hidden": make_tiff(
        image,
        {259: (SHORT, [8]), 322: (LONG, [side]), 323: (LONG, [side]),
         324: None, 325: None, 273: (LONG, [152]), 279: (LONG, [len(packed)])},
        parts=[],
    ) + packed,
    "strips": make_tiff(image, parts=[b""] * 100_000),
    "tags": make_tiff(
        image,
        {1000 + n: (LONG, [0]) for n in range(20_000)},
    ),
    "channels": make_tiff(image, {277: (LONG, huge)}),
    "overlap": overlap,
    "values": make_tiff(image, {700: (1, [0] * 900_000), 701: (1, [0])}),
}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, data in bombs.items():
    assert len(data) <= tiff.MAX_FILE_BYTES, name
    start = time.process_time()
    try:
        tiff.decode(data, name)
        text = "accepted"
    except ValueError as error:
        text = str(error)
    print(f"{name} {time.process_time() - start:.3f} {text}")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, "KB more")
"""


def test_bombs_cost_neither_memory_nor_time():
    result = subprocess.run(
        [sys.executable, "-c", BOMBS],
        cwd=pathlib.Path(tiff_files.__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stderr == ""
    *lines, memory = result.stdout.splitlines()
    found = {}
    for line in lines:
        name, seconds, found[name] = line.split(" ", 2)
        assert float(seconds) < 0.5, line
    assert int(memory.split()[0]) < 30_000, memory
    assert found.pop("values") == "accepted"
    for name, text in {
        "size": "a TIFF of 4294967295 x 4294967295",
        "large": "a TIFF of 13500 x 13500",
        "png": "400000000 pixels",
        "pages": "a TIFF of more pages than one",
        "loop": "a TIFF of more pages than one",
        "tile": "tiles of 8,192 x 8,192",
        "hidden": "not either strips or tiles",
        "strips": "100,000 strips for 1",
        "tags": "20,009 tags",
        "overlap": "a TIFF of 900,000,0",
        "channels": "a TIFF of 96 x 96, 4294967295 channels",
    }.items():
        assert text in found.pop(name)
    assert not found


FIELDS = [10 + 12 * tag for tag in range(15)]
TELLING = [
    0, 1, 2, 3, 4, 5, 8, 10, 95, 96, 97, 100, 200, 266, 273, 284, 287, 288,
    322, 324, 338, 27_648, 27_647, 27_935, 32_773, 34_925, 65_535, 2**31,
    2**32 - 1,
]  # fmt: skip


def mutated_file(draw: random.Random) -> bytes:
    """A file laid out like Kaggle's after some accidents."""
    data = bytearray(tiff.encode(NOISE))
    if draw.random() < 0.5:
        data[267:287] = draw.randbytes(20)
    for _ in range(draw.randint(0, 3)):
        place = draw.randint(0, draw.choice([300, len(data)]))
        kind = draw.choice(["flip", "field", "cut", "insert", "end"])
        if kind == "flip" and place < len(data):
            data[place] ^= draw.randint(1, 255)
        elif kind == "field":
            start, width = draw.choice([(0, 2), (2, 2), (4, 4), (8, 4), (8, 2)])
            start += draw.choice(FIELDS)
            value = draw.choice(TELLING) % 256**width
            data[start : start + width] = value.to_bytes(width, "little")
        elif kind == "cut":
            del data[place : place + draw.randint(1, 20)]
        elif kind == "insert":
            data[place:place] = draw.randbytes(draw.randint(1, 20))
        elif kind == "end":
            del data[place:]
    return bytes(data)


def agrees_with_pillow(data: bytes) -> None:
    """Holds that decoding gives Pillow's pixels, or refuses for a reason."""
    expected = read_with_pillow(data)
    try:
        found = tiff.decode(data, "some/p.tif")
    except ValueError as error:
        message = str(error)
        assert message.startswith("some/p.tif: found ")
        assert "\n" not in message
        # What Pillow gives is refused for the file's own claims alone.
        assert expected is None or ": found a TIFF of " in message
    else:
        np.testing.assert_array_equal(found, expected)


def test_mutated_file_gives_the_pixels_of_pillow_or_none():
    searches.hold(agrees_with_pillow, mutated_file, range(1_000))


@pytest.mark.long
def test_many_mutated_files_give_the_pixels_of_pillow_or_none():
    searches.hold(agrees_with_pillow, mutated_file, range(1_000, 100_000))


def test_tag_of_any_type_gives_the_pixels_of_pillow_or_none():
    line_feeds = int.from_bytes(b"\n" * 4, "little")
    for field, type_, count, value in itertools.product(
        FIELDS, range(21), (None, 20), (None, 267, line_feeds)
    ):
        data = bytearray(tiff.encode(NOISE))
        data[267:287] = b"\x08\n" * 10
        changes = {2: (type_, 2), 4: (count, 4), 8: (value, 4)}
        for place, (number, width) in changes.items():
            if number is not None:
                start = field + place
                data[start : start + width] = number.to_bytes(width, "little")
        agrees_with_pillow(bytes(data))


def test_each_byte_of_the_header_counts(monkeypatch):
    slow = []
    by_pillow = tiff._decode_with_pillow

    def decode_slowly(data: bytes) -> np.ndarray:
        slow.append(data)
        return by_pillow(data)

    monkeypatch.setattr(tiff, "_decode_with_pillow", decode_slowly)
    for place in range(287):
        for change in (1, 128, 255):
            data = bytearray(tiff.encode(NOISE))
            data[place] ^= change
            agrees_with_pillow(bytes(data))
    assert len(slow) == 3 * 267  # All but the DateTime's 20 bytes.


def test_date_and_time_may_be_any_bytes():
    for value in range(256):
        data = bytearray(tiff.encode(NOISE))
        data[267:287] = bytes([value]) * 20
        np.testing.assert_array_equal(tiff.decode(bytes(data), "p"), NOISE)
        np.testing.assert_array_equal(read_with_pillow(bytes(data)), NOISE)


def test_compressed_files_with_flipped_bytes_do_not_crash():
    rng = np.random.default_rng(11)
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        original = lossy("TIFF", compression=compression)
        for _ in range(100):
            data = bytearray(original)
            for place in rng.integers(0, len(data), 3):
                data[place] ^= rng.integers(1, 256)
            agrees_with_pillow(bytes(data))
