"""Records folders that become one."""

import collections
import json
import logging
import os
import pathlib
import shutil

import numpy as np
import pytest
import tables
from conftest import (
    FOLDS,
    NUM_TEST,
    NUM_TRAIN,
    convert_folder,
    make_clouds,
    run_pcam,
    small_disk,
    write_patches,
)
from PIL import Image

from pcam_tfdata.conversion import join, journal
from pcam_tfdata.records import manifest, records_folder, tfrecord, verify
from pcam_tfdata.system import csv_files

NUM_MORE = 30


@pytest.fixture(scope="module")
def other_records_dir(tmp_path_factory) -> str:
    """Records without a test split, from a slide more, one patch left out."""
    root = tmp_path_factory.mktemp("other")
    names = write_patches(root / "kaggle" / "train", make_clouds(NUM_MORE))
    rows = [(name, place % 2) for place, name in enumerate(names)]
    (root / "kaggle" / "train" / f"{names[0]}.tif").write_bytes(b"no image")
    csv_files.write_csv(
        str(root / "kaggle" / "train_labels.csv"), ("id", "label"), rows
    )
    slides = [(name, f"other_{place % 9}") for place, name in enumerate(names)]
    csv_files.write_csv(str(root / "slides.csv"), ("id", "wsi"), slides)
    convert_folder(
            str(root / "kaggle"), str(root / "records"),
            slide_csv=str(root / "slides.csv"), on_bad_patch="skip",
)  # fmt: skip
    return str(root / "records")


@pytest.fixture(scope="module")
def parts(records_dir, other_records_dir) -> list[str]:
    return [records_dir, other_records_dir]


def test_part_with_a_shard_without_patches_is_joined(tmp_path):
    folders = []
    for number in range(2):
        tree = tmp_path / f"tree{number}"
        for label in "01":
            (tree / "train" / label).mkdir(parents=True)
            (tree / "train" / label / "bad.png").write_bytes(b"no image")
        for place, image in enumerate(make_clouds(6, seed=number)):
            path = tree / "train" / str(place % 2) / f"p{place}.png"
            Image.fromarray(image).save(path)
        folders.append(str(tmp_path / f"records{number}"))
        convert_folder(
                str(tree), folders[-1], source="folder", num_workers=1,
                shard_megabytes=0.03, on_bad_patch="skip",
)  # fmt: skip
    shards = records_folder.open_folder(folders[0]).list_shards()
    assert 0 in [shard.num_records for shard in shards]
    join.join(folders, str(tmp_path / "joined"))
    assert verify.verify(str(tmp_path / "joined"), num_workers=1) == []


@pytest.fixture(scope="module")
def joined(parts, tmp_path_factory) -> str:
    output_dir = str(tmp_path_factory.mktemp("joined") / "records")
    join.join(parts, output_dir)
    return output_dir


def read_patches(records_dir: str, splits) -> list[tuple[bytes, int]]:
    """Returns pixels and label of each patch, in the order of the records."""
    patches = []
    for shard in records_folder.open_folder(records_dir).list_shards(splits):
        records, layout = shard.map(), shard.layout
        images = tfrecord.view_images(records, layout)
        labels = records[:, layout.label_offset].tolist()
        if not shard.labeled:
            labels = [-1] * len(images)
        patches += zip((i.tobytes() for i in images), labels, strict=True)
    return patches


def test_whole_is_sound_and_holds_every_patch_in_order(parts, joined):
    assert verify.verify(joined, num_workers=1) == []
    for fold in FOLDS:
        expected = [p for part in parts for p in read_patches(part, [fold])]
        assert read_patches(joined, [fold]) == expected
    assert len(read_patches(joined, FOLDS)) == NUM_TRAIN + NUM_MORE - 1
    assert len(read_patches(joined, ["test"])) == NUM_TEST


def test_rows_keep_what_they_say(parts, joined):
    kept = manifest.SIDECAR_COLUMNS[3:]
    rows = [
        tables.read_csv(f"{folder}/{manifest.SIDECAR_FILE}", kept)
        for folder in (*parts, joined)
    ]
    assert sorted(rows[0] + rows[1]) == sorted(rows[2])


def test_description_is_that_of_the_pixels(joined):
    for split in records_folder.open_folder(joined).content.splits:
        patches = read_patches(joined, [split.name])
        pixels = np.frombuffer(b"".join(p for p, _ in patches), np.uint8)
        pixels = pixels.reshape(-1, 3).astype(float)
        np.testing.assert_allclose(split.channel_mean, pixels.mean(0))
        np.testing.assert_allclose(split.channel_std, pixels.std(0))
        labels = [str(label) for _, label in patches]
        for label, count in split.class_counts.items():
            assert labels.count(label) == count


def test_shards_take_no_room_where_links_can_be_made(parts, joined):
    linked = {
        os.stat(path).st_ino
        for part in parts
        for path in pathlib.Path(part).glob("*tfrecord*")
    }
    shards = list(pathlib.Path(joined).glob("*tfrecord*"))
    assert {os.stat(path).st_ino for path in shards} == linked
    assert len(shards) == len(linked)


def test_parts_name_the_whole(parts, joined):
    options = records_folder.open_folder(joined).content.options
    assert options["source"] == "kaggle"
    assert "on_bad_patch" not in options  # They differ in it.
    names = [records_folder.open_folder(part).manifest_sha256 for part in parts]
    assert options["manifest_sha256_of_parts"] == names


@pytest.mark.tensorflow
def test_tensorflow_datasets_reads_the_whole(joined):
    tfds = pytest.importorskip("tensorflow_datasets")
    builder = tfds.builder_from_directory(joined)
    expected = NUM_TRAIN + NUM_MORE - 1
    assert sum(builder.info.splits[f].num_examples for f in FOLDS) == expected
    for fold in FOLDS:
        images = [
            (bytes(example["image"]), int(example["label"]))
            for example in tfds.as_numpy(builder.as_dataset(fold))
        ]
        assert sorted(images) == sorted(read_patches(joined, [fold]))


def test_slide_in_several_splits_is_told(
    kaggle_tree, records_dir, tmp_path, caplog
):
    convert_folder(
            str(kaggle_tree), str(tmp_path / "part"), num_folds=2,
            slide_csv=str(kaggle_tree / "slides.csv"),
)  # fmt: skip
    with caplog.at_level(logging.WARNING):
        join.join([records_dir, str(tmp_path / "part")], str(tmp_path / "all"))
    assert "slides are in several splits" in caplog.text
    whole = records_folder.open_folder(str(tmp_path / "all")).content
    assert whole.options["grouped_by_slide"] is False


def write_part(root: pathlib.Path, train, test, **options) -> str:
    """Converts patches, dealt into two folds."""
    names = write_patches(root / "train", train)
    write_patches(root / "test", test)
    rows = [(name, place % 2) for place, name in enumerate(names)]
    csv_files.write_csv(str(root / "train_labels.csv"), ("id", "label"), rows)
    output_dir = f"{root}_records"
    convert_folder(str(root), output_dir, num_folds=2, **options)
    return output_dir


def test_patches_that_parts_share_are_told(tmp_path, caplog):
    clouds = make_clouds(32)
    parts = [
        write_part(tmp_path / "a", clouds[:20], clouds[30:]),
        write_part(tmp_path / "b", clouds[12:30], clouds[30:], seed=5),
    ]
    splits_of = collections.defaultdict(list)
    for part in parts:
        path = f"{part}/{manifest.SIDECAR_FILE}"
        for split, patch_id in tables.read_csv(path, ("split", "id")):
            splits_of[patch_id].append(split)
    num_across = sum(
        len(splits) for splits in splits_of.values() if len(set(splits)) > 1
    )
    assert num_across  # Seeds deal the 8 patches otherwise.
    with caplog.at_level(logging.WARNING):
        join.join(parts, str(tmp_path / "all"))
    for told in (
        "8 patches of train have the pixels of another one there.",
        "2 patches of test have the pixels of another one there.",
        f"the pixels of {num_across} train patches are in several folds:",
    ):
        assert told in caplog.text


def test_command_joins_and_replaces(parts, tmp_path):
    command = (
        "join", f"--records_dirs={','.join(parts)}",
        f"--output_dir={tmp_path / 'all'}",
    )  # fmt: skip
    for more in ((), ("--overwrite",)):
        result = run_pcam(*command, *more)
        assert result.returncode == 0, result.stderr
        assert "test 7 patches in" in result.stdout
    result = run_pcam(*command)
    assert result.returncode == 1
    assert "found finished records. Pass --overwrite" in result.stderr
    assert os.listdir(tmp_path) == ["all"]


def leave(output_dir: pathlib.Path, name: str) -> pathlib.Path:
    """Makes what a killed process would leave beside an output."""
    path = pathlib.Path(f"{output_dir}.incomplete", "records", name)
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_killed_join_begins_anew(parts, joined, tmp_path):
    leave(tmp_path / "all", next(pathlib.Path(joined).glob("*tfrecord*")).name)
    join.join(parts, str(tmp_path / "all"))
    assert verify.verify(str(tmp_path / "all"), num_workers=1) == []


def test_unfinished_conversion_is_kept(parts, tmp_path):
    finished = leave(tmp_path / "all", f"shard{journal.ENDING}")
    with pytest.raises(FileExistsError, match="that is not finished"):
        join.join(parts, str(tmp_path / "all"))
    assert finished.exists()
    join.join(parts, str(tmp_path / "all"), overwrite=True)
    assert os.listdir(tmp_path) == ["all"]


def test_parts_whose_patches_were_left_out_are_told(parts, tmp_path, caplog):
    join.join(parts, str(tmp_path / "all"))
    assert f"patches were left out of {parts[1]}; skipped.csv" in caplog.text
    assert f"left out of {parts[0]}" not in caplog.text


@pytest.fixture
def spoiled(other_records_dir, tmp_path) -> pathlib.Path:
    """A part that a test may spoil."""
    return pathlib.Path(
        shutil.copytree(other_records_dir, tmp_path / "spoiled")
    )


def cut_shard(part: pathlib.Path) -> None:
    shard = next(part.glob("*tfrecord*"))
    shard.write_bytes(shard.read_bytes()[:-1])


def lose_shard(part: pathlib.Path) -> None:
    next(part.glob("*tfrecord*")).unlink()


def change_sidecar(part: pathlib.Path) -> None:
    path = part / manifest.SIDECAR_FILE
    path.write_text(path.read_text().replace("other_1", "other_2"))


def lose_columns(part: pathlib.Path) -> None:
    """As the version before wrote it."""
    path = part / manifest.SIDECAR_FILE
    rows = path.read_text().splitlines()
    path.write_text("".join(f"{r.rsplit(',', 2)[0]}\n" for r in rows))
    content = json.loads((part / manifest.MANIFEST_FILE).read_text())
    content["file_sha256"][path.name] = manifest.hash_file(str(path))
    (part / manifest.MANIFEST_FILE).write_text(json.dumps(content))


def name_it_test(part: pathlib.Path) -> None:
    path = part / manifest.MANIFEST_FILE
    path.write_text(path.read_text().replace('"fold0"', '"test"'))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (cut_shard, "tfrecord.*: found 166,721 bytes, expected 166,722"),
        (lose_shard, "tfrecord.*: not found, expected a shard of"),
        (change_sidecar, "its rows may not be those of the records"),
        (lose_columns, "patches.csv: found other columns, expected id, label"),
        (name_it_test, "Split test: found it with labels in some parts"),
    ],
)
def test_part_that_does_not_fit_is_refused(
    records_dir, spoiled, tmp_path, spoil, told
):
    spoil(spoiled)
    with pytest.raises((FileNotFoundError, ValueError), match=told):
        join.join([records_dir, str(spoiled)], str(tmp_path / "all"))
    assert os.listdir(tmp_path) == ["spoiled"]


def test_wrong_folders_end_in_a_line(parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = parts
    shutil.copytree(first, tmp_path / "copy")
    for records_dirs, output_dir, told in (
        ([first], "all", "two or more, with a comma between"),
        ([first, ""], "all", "two or more, with a comma between"),
        ([first, f"{first}/"], "all", "expected each once"),
        ([first, "copy"], "all", "found the same records twice"),
        ([first, "nowhere"], "all", "nowhere/manifest.json: not found"),
        ([first, "s3://bucket/part"], "all", "expected folders on a disk"),
        (parts, "s3://bucket/all", "expected folders on a disk"),
        (parts, second, "found finished records. Pass --overwrite"),
        (parts, f"{second}/all", "found a records folder"),
    ):
        result = run_pcam(
            "join", f"--records_dirs={','.join(records_dirs)}",
            f"--output_dir={output_dir}",
        )  # fmt: skip
        assert result.returncode == 1
        assert told in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert os.listdir(tmp_path) == ["copy"]


def test_one_of_the_parts_may_become_the_whole(parts, spoiled, tmp_path):
    join.join([parts[0], str(spoiled)], str(spoiled), overwrite=True)
    assert verify.verify(str(spoiled), num_workers=1) == []
    assert len(read_patches(str(spoiled), FOLDS)) == NUM_TRAIN + NUM_MORE - 1
    assert os.listdir(tmp_path) == ["spoiled"]


def test_parts_of_links_without_slides(kaggle_tree, tmp_path, caplog):
    parts = []
    for seed in (0, 1):
        real = tmp_path / f"real{seed}"
        convert_folder(str(kaggle_tree), str(real), seed=seed)
        parts.append(tmp_path / f"part{seed}")
        parts[-1].mkdir()
        for path in real.iterdir():
            (parts[-1] / path.name).symlink_to(path)
    caplog.clear()
    join.join(list(map(str, parts)), str(tmp_path / "all"))
    assert "slides are in several splits" not in caplog.text
    shards = list((tmp_path / "all").glob("*tfrecord*"))
    assert shards and not any(path.is_symlink() for path in shards)
    assert verify.verify(str(tmp_path / "all"), num_workers=1) == []


def test_blank_parts_have_a_deviation_of_none():
    layout = tfrecord.layout(labeled=True)
    for value in (0.1, 77.7, 254.9):
        splits = [
            manifest.Split(
                "a", True, layout, (manifest.Shard("s", count, 1, ""),),
                {"0": count, "1": 0}, (value,) * 3, (0.0,) * 3,
            )
            for count in (3, 7, 11)
        ]  # fmt: skip
        whole = join.merge_splits(splits)
        assert whole.channel_std == pytest.approx((0, 0, 0), abs=1e-5)


def test_full_disk_costs_one_line_and_leaves_nothing(parts, tmp_path):
    with small_disk(tmp_path / "disk", "2m") as disk:
        result = run_pcam(
            "join", f"--records_dirs={','.join(parts)}",
            f"--output_dir={disk / 'all'}",
        )  # fmt: skip
        assert result.returncode == 1
        assert "No space left on device" in result.stderr
        assert len(result.stderr.splitlines()) == 1
        assert os.listdir(disk) == []


def test_disk_of_its_own_gets_copies(parts, tmp_path):
    with small_disk(tmp_path / "disk", "10m") as disk:
        join.join(parts, str(disk / "all"))
        assert verify.verify(str(disk / "all"), num_workers=1) == []
