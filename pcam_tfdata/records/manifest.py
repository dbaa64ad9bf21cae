"""The files beside the shards of a records folder: JSON and the sidecar.

`dataset_info.json` and `features.json` are what `tfds.builder_from_directory`
reads. `manifest.json` is ours: where the parts of a record lie, and the size,
hash and statistics of what was written. It holds no date and no path, so its
hash names the data. `patches.csv`, the sidecar, has a row for each record.
"""

import dataclasses
import hashlib
import json
import os
import typing
from collections.abc import Sequence
from typing import Any

from pcam_tfdata import schema
from pcam_tfdata.records import tfrecord
from pcam_tfdata.system import files

FORMAT_VERSION = 1
DATASET_INFO_FILE = "dataset_info.json"
FEATURES_FILE = "features.json"
MANIFEST_FILE = "manifest.json"
SIDECAR_FILE = "patches.csv"
SKIPPED_FILE = "skipped.csv"
FILES = (
    DATASET_INFO_FILE, FEATURES_FILE, MANIFEST_FILE, SIDECAR_FILE, SKIPPED_FILE,
)  # fmt: skip
SIDECAR_COLUMNS = (
    "row", "split", "shard", "id", "label", "slide", "source_name", "x", "y",
)  # fmt: skip
_TFDS_FEATURES = "tensorflow_datasets.core.features."


@dataclasses.dataclass(frozen=True)
class Shard:
    """A shard file: its name, records, size and SHA-256 (hex)."""

    name: str
    num_records: int
    num_bytes: int
    sha256: str


@dataclasses.dataclass(frozen=True)
class Split:
    """A split: its shards, and what is in them.

    Attributes:
        name: `fold0`, `test` and so on.
        labeled: Whether labels are 0 or 1; if not, all are -1.
        layout: Where the parts of its records lie.
        shards: In order; rows go on from one to the next.
        class_counts: Patches of label "0" and "1", or of "-1".
        channel_mean: Mean of red, green, blue over all pixels, in [0, 255].
        channel_std: Standard deviation of the same pixels, as a population.
    """

    name: str
    labeled: bool
    layout: tfrecord.Layout
    shards: tuple[Shard, ...]
    class_counts: dict[str, int]
    channel_mean: tuple[float, ...]
    channel_std: tuple[float, ...]

    @property
    def num_records(self) -> int:
        """Patches in the split."""
        return sum(shard.num_records for shard in self.shards)


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a records folder holds.

    Attributes:
        splits: In the order of the sidecar's rows.
        options: What the data was made from and how: source, seed, folds.
        versions: Versions of the programs that made it.
        file_sha256: SHA-256 (hex) of the files beside the shards, by name.
    """

    splits: tuple[Split, ...]
    options: dict[str, object]
    versions: dict[str, str]
    file_sha256: dict[str, str] = dataclasses.field(default_factory=dict)

    def select(self, names: Sequence[str]) -> list[Split]:
        """Returns the splits of these names.

        Raises:
            ValueError: a name is unknown or repeated, or there is none.
        """
        known = {split.name: split for split in self.splits}
        for name in names:
            if name not in known:
                raise ValueError(
                    f"found no split {name!r} in the records, expected one of"
                    f" {', '.join(known)}. Check the flags that name splits."
                )
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"found splits {','.join(names)!r}, expected at least one, and"
                " each once."
            )
        return [known[name] for name in names]

    def summarize(self) -> str:
        """Returns how many patches each split has, for a line of a log."""
        splits = ", ".join(
            f"{split.name} {split.num_records:,}" for split in self.splits
        )
        num_shards = sum(len(split.shards) for split in self.splits)
        return f"{splits} patches in {num_shards} shards"

    def first_row(self, name: str) -> int:
        """Returns the sidecar's row at which the split begins."""
        (split,) = self.select([name])
        before = self.splits[: self.splits.index(split)]
        return sum(split.num_records for split in before)


def write(records_dir: str, manifest: Manifest) -> Manifest:
    """Writes the three JSON files; the sidecar must be there.

    Returns:
        The manifest with `file_sha256` filled in, as it was written.
    """

    def write_json(name: str, content: object) -> None:
        files.write_json(os.path.join(records_dir, name), content)

    write_json(DATASET_INFO_FILE, _dataset_info(manifest))
    write_json(FEATURES_FILE, _features())
    file_sha256 = {
        name: hash_file(os.path.join(records_dir, name))
        for name in (DATASET_INFO_FILE, FEATURES_FILE, SIDECAR_FILE)
    }
    manifest = dataclasses.replace(manifest, file_sha256=file_sha256)
    version = {"format_version": FORMAT_VERSION}
    write_json(MANIFEST_FILE, version | dataclasses.asdict(manifest))
    return manifest


def list_files(manifest: Manifest) -> set[str]:
    """Returns the names of all files that a records folder may hold."""
    shards = {s.name for split in manifest.splits for s in split.shards}
    return {MANIFEST_FILE, SKIPPED_FILE, *manifest.file_sha256, *shards}


def is_records_folder(folder: str) -> bool:
    """Returns whether a folder on a disk has the files of a records folder."""
    return all(
        os.path.isfile(os.path.join(folder, name))
        for name in (MANIFEST_FILE, SIDECAR_FILE)
    )


def parse(data: bytes, path: str) -> Manifest:
    """Returns what a manifest says.

    Args:
        data: The bytes of its file.
        path: Its file, for the message.

    Raises:
        ValueError: it is damaged or of another format.
    """
    try:
        content = json.loads(data)
        _require(content["format_version"] == FORMAT_VERSION, "format_version")
        manifest = _decode(Manifest, content, "content")
        _check(manifest)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: found a manifest that cannot be used ({error}), expected"
            f" one of format {FORMAT_VERSION}. Convert again."
        ) from error
    return manifest


def hash_file(path: str) -> str:
    """Returns the SHA-256 (hex) of a file."""
    with files.open_file(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
    return digest.hexdigest()


def _decode(kind: Any, content: Any, name: str) -> Any:
    """Returns JSON as a value of a type, such as a dataclass of tuples.

    Raises:
        ValueError: the part of this name is missing, or of another type.
    """
    if kind is object:
        return content
    origin, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
    is_record = dataclasses.is_dataclass(kind)
    json_type = dict if is_record else list if origin is tuple else origin
    # No `isinstance`: it says of True, too, that it is an int.
    _require(type(content) is json_type, name)
    if is_record:
        parts = {
            key: _decode(part, content.get(key), f"{name}.{key}")
            for key, part in typing.get_type_hints(kind).items()
        }
        return kind(**parts)
    if json_type is list:
        return tuple(_decode(arguments[0], part, name) for part in content)
    if json_type is dict:
        return {
            key: _decode(arguments[1], part, f"{name}.{key}")
            for key, part in content.items()
        }
    return content


def _check(manifest: Manifest) -> None:
    """Refuses contents that nothing else could be computed from.

    Raises:
        ValueError: there are such ones.
    """
    names = [*manifest.file_sha256]
    for split in manifest.splits:
        names += [split.name, *(shard.name for shard in split.shards)]
        layout = tfrecord.layout(labeled=split.labeled)
        labels = {"0", "1"} if split.labeled else {str(schema.UNLABELED)}
        statistics = (*split.channel_mean, *split.channel_std)
        _require(split.layout == layout, f"layout of {split.name}")
        _require(
            all(
                shard.num_bytes == shard.num_records * layout.record_bytes
                for shard in split.shards
            ),
            f"size of a shard of {split.name}",
        )
        _require(
            split.class_counts.keys() == labels
            and min(split.class_counts.values()) >= 0
            and sum(split.class_counts.values()) == split.num_records,
            f"class_counts of {split.name}",
        )
        _require(
            len(statistics) == 2 * schema.NUM_CHANNELS
            and all(0 <= value <= 255 for value in statistics),
            f"statistics of {split.name}",
        )
    are_plain = all(
        name == os.path.basename(name) and name.strip(".") for name in names
    )
    _require(are_plain and len(set(names)) == len(names), "name of a file")
    _require(manifest.splits, "splits")


def _require(is_right: object, what: str) -> None:
    if not is_right:
        raise ValueError(f"{what} is missing or wrong")


def _dataset_info(manifest: Manifest) -> dict[str, object]:
    return {
        "name": "pcam",
        "version": "1.0.0",
        "description": "PatchCamelyon patches, 96 x 96 RGB.",
        "fileFormat": "tfrecord",
        "moduleName": "pcam_tfdata",
        "splits": [
            {
                "name": split.name,
                "shardLengths": [
                    str(shard.num_records) for shard in split.shards
                ],
                "numBytes": str(
                    split.num_records * split.layout.record_bytes
                ),
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
            for split in manifest.splits
        ],
    }  # fmt: skip


def _features() -> dict[str, object]:
    dimensions = {"dimensions": [str(size) for size in schema.IMAGE_SHAPE]}
    image = {"shape": dimensions, "dtype": "uint8", "encoding": "bytes"}
    classes = {"numClasses": str(len(schema.CLASS_NAMES))}
    number = {"shape": {}, "dtype": "float32", "encoding": "none"}
    kinds = {
        "id": ("text_feature.Text", "text", {}),
        "image": ("tensor_feature.Tensor", "tensor", image),
        "label": ("class_label_feature.ClassLabel", "classLabel", classes),
        "tumor_fraction": ("scalar.Scalar", "tensor", number),
    }
    features = {
        name: {"pythonClassName": _TFDS_FEATURES + kind, field: content}
        for name, (kind, field, content) in kinds.items()
    }
    return {
        "pythonClassName": _TFDS_FEATURES + "features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }
