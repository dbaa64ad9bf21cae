"""What is planted is found; what is not there is not reported."""

import csv
import io
import json
import pathlib
import shutil

import h5py
import numpy as np
import pytest
from conftest import convert_folder, make_clouds, run_pcam
from PIL import Image

from pcam_tfdata.audit import (
    audit_report,
    job,
    split_shifts,
    text_page,
)
from pcam_tfdata.audit.audit_report import Kind
from pcam_tfdata.images import tiff
from pcam_tfdata.records import manifest
from pcam_tfdata.system import csv_files

NUM_TRAIN, NUM_TEST = 60, 30
GRAVITIES = ("leak", "conflict", "duplicate", "note")


def write_records(
    root: pathlib.Path,
    train: list[tuple[np.ndarray, int]],
    test: list[np.ndarray] = (),
) -> str:
    """Converts patches whose names are no hashes, so that they may repeat."""
    tree = root / "kaggle"
    labels = [(f"train{n:03d}", label) for n, (_, label) in enumerate(train)]
    names = [name for name, _ in labels]
    _write_tiffs(tree / "train", names, [image for image, _ in train])
    csv_files.write_csv(str(tree / "train_labels.csv"), ("id", "label"), labels)
    if test:
        names = [f"test{n:03d}" for n in range(len(test))]
        _write_tiffs(tree / "test", names, test)
        rows = [(name, 0) for name in names]
        path = str(tree / "sample_submission.csv")
        csv_files.write_csv(path, ("id", "label"), rows)
    output_dir = str(root / "records")
    convert_folder(tree, output_dir, num_folds=2)
    return output_dir


def _write_tiffs(folder: pathlib.Path, names, images) -> None:
    folder.mkdir(parents=True)
    for name, image in zip(names, images, strict=True):
        (folder / f"{name}.tif").write_bytes(tiff.encode(image))


def write_official(root: pathlib.Path, **splits: np.ndarray) -> str:
    """Converts files in PCam's layout, each split with its patches."""
    root.mkdir()
    for split, images in splits.items():
        start = root / f"camelyonpatch_level_2_split_{split}"
        labels = np.ones((len(images), 1, 1, 1), np.uint8)
        with h5py.File(f"{start}_x.h5", "w") as file:
            file.create_dataset("x", data=images)
        with h5py.File(f"{start}_y.h5", "w") as file:
            file.create_dataset("y", data=labels)
    output_dir = str(root / "records")
    convert_folder(str(root), output_dir, source="hdf5")
    return output_dir


def copy_records(
    records_dir: str, target: pathlib.Path, change
) -> pathlib.Path:
    """Copies records and changes the rows of their sidecar, and its hash."""
    shutil.copytree(records_dir, target)
    path = target / "patches.csv"
    with open(path, newline="") as file:
        rows = change(list(csv.DictReader(file)))
    csv_files.write_csv(str(path), list(rows[0]), [r.values() for r in rows])
    content = json.loads((target / "manifest.json").read_text())
    content["file_sha256"]["patches.csv"] = manifest.hash_file(str(path))
    (target / "manifest.json").write_text(json.dumps(content))
    return target


def darken(image: np.ndarray) -> np.ndarray:
    """Half as dense again."""
    return restain(image, 1.5)


def restain(image: np.ndarray, strength: float) -> np.ndarray:
    """So many times as dense."""
    return (255 * (image / 255) ** strength).round().astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def move(image: np.ndarray, pixels: int, incoming: np.ndarray) -> np.ndarray:
    moved = incoming.copy()
    moved[pixels:] = image[:-pixels]
    return moved


@pytest.fixture(scope="module")
def patches() -> np.ndarray:
    return make_clouds(NUM_TRAIN + NUM_TEST, seed=4)


@pytest.fixture(scope="module")
def planted_dir(patches, tmp_path_factory) -> str:
    """Records with one of everything that an audit looks for."""
    train = [(image, n % 2) for n, image in enumerate(patches[:NUM_TRAIN])]
    white = np.full((96, 96, 3), 243, np.uint8)
    white[40:50, 40:50] = 242
    train += [
        (patches[0], 1),  # Equal pixels of another label.
        (patches[1], 1),  # Equal pixels.
        (white, 1),
        (jpeg(patches[3], 60), 1),
    ]
    test = [darken(image) for image in patches[NUM_TRAIN:]]
    test += [
        patches[2],
        darken(move(patches[4], 6, patches[5])),
        darken(np.rot90(patches[6])),
    ]
    return write_records(tmp_path_factory.mktemp("planted"), train, test)


@pytest.fixture(scope="module")
def planted(planted_dir) -> audit_report.Report:
    return audit(planted_dir, num_workers=2)


def audit(records_dir: str, *others: str, **options) -> audit_report.Report:
    # By one process: other tests run beside this one.
    options = {"num_workers": 1, **options}
    return job.audit_folders(records_dir, others, **options)


def found_of(report: audit_report.Report, kind: Kind) -> audit_report.Finding:
    (found,) = [f for f in report.findings if f.kind == kind]
    return found


def notes_of(report: audit_report.Report, kind: Kind) -> list[str]:
    return [example.note for example in found_of(report, kind).examples]


def names_of(report: audit_report.Report, kind: Kind) -> list[set[str]]:
    """Returns the source names of each example of a kind."""
    return [
        {patch.source_name for patch in example.patches}
        for example in found_of(report, kind).examples
    ]


def test_equal_pixels_across_splits_are_a_leak(planted):
    assert names_of(planted, Kind.EXACT_ACROSS) == [{"train002", "test030"}]
    assert found_of(planted, Kind.EXACT_ACROSS).gravity == "leak"


def test_near_duplicates_across_splits_are_a_leak(planted):
    found = names_of(planted, Kind.NEAR_ACROSS)
    assert {"train004", "test031"} in found
    assert {"train006", "test032"} in found
    # The JPEG's fold is dealt by its hash.
    assert len(found) <= 3
    assert found_of(planted, Kind.NEAR_ACROSS).gravity == "leak"


def test_notes_say_how_a_near_duplicate_was_moved(planted):
    notes = "; ".join(notes_of(planted, Kind.NEAR_ACROSS))
    assert "moved 6 by 0 pixels" in notes
    assert "turned 90 degrees" in notes or "turned 270 degrees" in notes


def test_recompressed_patch_is_a_near_duplicate(planted):
    found = [
        names
        for f in planted.findings
        if f.kind in (Kind.NEAR_ACROSS, Kind.NEAR_WITHIN)
        for names in names_of(planted, f.kind)
    ]
    assert {"train003", "train063"} in found
    assert len(found) == 3


def test_equal_pixels_with_different_labels_are_a_conflict(planted):
    assert names_of(planted, Kind.LABEL_CONFLICT) == [{"train000", "train060"}]


def test_equal_pixels_within_a_split_are_found(planted):
    found = names_of(planted, Kind.EXACT_WITHIN)
    assert sorted(map(sorted, found)) == [
        ["train000", "train060"],
        ["train001", "train061"],
    ]


def test_blank_patch_is_found_with_its_label(planted):
    found = found_of(planted, Kind.BLANK)
    assert names_of(planted, Kind.BLANK) == [{"train062"}]
    assert "label 0: 0 (0.00%), label 1: 1 (" in found.text


def test_stain_shift_of_a_split_is_found(planted):
    found = found_of(planted, Kind.STAIN_SHIFT)
    assert found.text.startswith("test differs")
    assert "Cohen's d +" in found.text


def test_gravest_findings_come_first(planted):
    places = [GRAVITIES.index(f.gravity) for f in planted.findings]
    assert places == sorted(places)
    assert planted.leaks


def test_nothing_is_found_where_nothing_is_wrong(patches, tmp_path):
    train = [(image, n % 2) for n, image in enumerate(patches)]
    report = audit(write_records(tmp_path, train))
    assert report.findings == []
    assert not report.leaks
    told = text_page.format_report(report)
    assert "Not found: equal pixels across splits" in told
    assert "LEAK" not in told
    assert "Not compared" not in told


def test_pairs_of_a_crowd_that_are_left_out_are_told(patches, tmp_path):
    crowd = [restain(patches[0], 0.8 + 0.01 * n) for n in range(40)]
    train = [(image, n % 2) for n, image in enumerate(crowd[:34])]
    report = audit(write_records(tmp_path, train, crowd[34:]))
    num_told = sum(f.count for f in report.findings if "near" in f.kind)
    num_left_out = report.num_pairs_left_out
    assert 0 < num_left_out <= 40 * 39 // 2 - num_told
    told = text_page.format_report(report)
    assert f"Not compared: at least {num_left_out:,} more pairs" in told
    assert f"at least {found_of(report, Kind.NEAR_ACROSS).count:,} p" in told
    assert not any("near dup" in kind for kind in report.not_found)


def test_overlap_with_another_folder_is_a_leak(patches, planted_dir, tmp_path):
    train = [(image, 0) for image in patches[10:14]]
    train += [(move(patches[20], 3, patches[21]), 0)]
    other = write_records(tmp_path, train)
    report = audit(planted_dir, other)
    exact = names_of(report, Kind.EXACT_OVERLAP)
    assert sorted(map(sorted, exact)) == [
        [f"train{n:03d}", f"train{n + 10:03d}"] for n in range(4)
    ]
    near = names_of(report, Kind.NEAR_OVERLAP)
    assert near == [{"train004", "train020"}]
    kinds = [f.kind for f in report.findings]
    assert Kind.TEST_SET not in kinds
    assert found_of(report, Kind.EXACT_OVERLAP).gravity == "leak"


def test_folders_without_a_common_patch_are_no_test_set(patches, tmp_path):
    images = [(image, n % 2) for n, image in enumerate(patches[:40])]
    kaggle = write_records(tmp_path / "k", images, list(patches[40:48]))
    official = write_official(tmp_path / "o", test=patches[57:70])
    report = audit(kaggle, official)
    assert Kind.TEST_SET not in [f.kind for f in report.findings]


@pytest.mark.parametrize("official_first", [False, True])
def test_official_test_set_beside_kaggles_is_named(
    patches, tmp_path, official_first
):
    images = [(image, n % 2) for n, image in enumerate(patches[:40])]
    kaggle = write_records(tmp_path / "k", images, list(patches[40:48]))
    official = write_official(
        tmp_path / "o", valid=patches[45:57], test=patches[57:70]
    )
    folders = (official, kaggle) if official_first else (kaggle, official)
    report = audit(*folders)
    found = report.findings[0]
    assert found.kind == Kind.TEST_SET
    assert found.count == 3
    name = "validation" if official_first else f"{official}:validation"
    assert found.text.startswith(f"{name} is Kaggle's test set with labels")
    assert found.gravity == "leak"


def test_folders_without_kaggles_test_are_no_test_set(patches, tmp_path):
    names = [f"{n}" for n in range(10)]
    _write_tiffs(tmp_path / "a" / "0", names, patches[:10])
    _write_tiffs(tmp_path / "a" / "1", names, patches[10:20])
    first = str(tmp_path / "records")
    convert_folder(str(tmp_path / "a"), first, source="folder")
    second = write_official(tmp_path / "b", valid=patches[:20])
    report = audit(first, second)
    assert Kind.TEST_SET not in [f.kind for f in report.findings]
    assert found_of(report, Kind.EXACT_OVERLAP).count == 20


def test_class_shift_needs_more_than_chance():
    here, others = np.arange(1000) >= 600, np.arange(1000) >= 500
    found = split_shifts.compare("share", here, others)
    assert (found.here, found.elsewhere) == (0.4, 0.5)
    assert found.effect == pytest.approx(-0.2014, abs=1e-4)
    assert split_shifts.compare("share", here[590:610], others).effect == 0


def test_effect_is_cohens_d():
    rng = np.random.default_rng(0)
    here, others = rng.normal(1, 2, 5000), rng.normal(0, 2, 5000)
    found = split_shifts.compare("x", here, others)
    assert found.effect == pytest.approx(0.5, abs=0.05)


def test_folder_beside_itself_is_refused(records_dir):
    with pytest.raises(ValueError, match="found the same folder twice"):
        audit(records_dir, f"{records_dir}/")


def test_slides_across_splits_are_a_leak(records_dir, tmp_path):
    def mix(rows):
        assert rows[0]["split"] == "fold0"
        rows[0]["slide"] = next(
            row["slide"] for row in rows if row["split"] == "fold1"
        )
        return rows

    copy = copy_records(records_dir, tmp_path / "copy", mix)
    report = audit(str(copy))
    found = found_of(report, Kind.SLIDE_ACROSS)
    with open(copy / "patches.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    slide = rows[0]["slide"]
    num_patches = sum(row["slide"] == slide for row in rows)
    assert (found.gravity, found.count) == ("leak", 1)
    assert f"1, with {num_patches:,} patches" in found.text
    assert found.where == {"fold0 - fold1": 1}
    assert notes_of(report, Kind.SLIDE_ACROSS) == [
        f"slide {slide}: fold0 1, fold1 {num_patches - 1:,}"
    ]
    told = text_page.format_report(report)
    assert "LEAK: slides across splits" in told
    assert f"e.g. fold0 row 0 {rows[0]['source_name']} of {slide}" in told


def test_slides_of_one_split_or_of_none_are_no_leak(records_dir, tmp_path):
    def name_test(rows):
        for row in rows:
            if row["split"] == "test":
                row["slide"] = rows[0]["slide"]
        return rows

    # Patches of the test set have no labels to learn by heart.
    with_slides = copy_records(records_dir, tmp_path / "copy", name_test)
    for folder in (records_dir, str(with_slides)):
        report = audit(folder)
        assert Kind.SLIDE_ACROSS not in [f.kind for f in report.findings]
        assert "slides across splits" in report.not_found


def test_unknown_slides_are_not_told_to_be_sound(planted):
    assert "slides across splits" not in planted.not_found


def test_slides_in_another_folder_are_a_leak(records_dir, tmp_path):
    def keep_one(rows):
        for row in rows:
            row["slide"] = row["slide"] and f"other {row['slide']}"
        rows[-10]["slide"] = slide
        return rows

    with open(pathlib.Path(records_dir) / "patches.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    slide = rows[0]["slide"]
    num_patches = sum(row["slide"] == slide for row in rows)
    other = copy_records(records_dir, tmp_path / "copy", keep_one)
    report = audit(records_dir, str(other))
    found = found_of(report, Kind.SLIDE_OVERLAP)
    assert (found.gravity, found.count) == ("leak", 1)
    assert f"{num_patches} patches here and 1 there" in found.text
    (example,) = found.examples
    folders = [patch.records_dir for patch in example.patches]
    assert folders == [records_dir, str(other)]
    assert Kind.SLIDE_ACROSS not in [f.kind for f in report.findings]


def cut(lines: list[str]) -> list[str]:
    return lines[:-3]


def change_label(lines: list[str]) -> list[str]:
    return [*lines[:-1], lines[-1].replace(",-1,", ",1,")]


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (cut, "patches.csv: found SHA-256 "),
        (change_label, "patches.csv: found SHA-256 "),
    ],
    ids=["cut", "changed"],
)
def test_spoilt_sidecar_is_told_before_the_work(
    planted_dir, tmp_path, spoil, found
):
    copy = pathlib.Path(shutil.copytree(planted_dir, tmp_path / "copy"))
    lines = (copy / "patches.csv").read_text().splitlines(keepends=True)
    assert spoil(lines) != lines
    (copy / "patches.csv").write_text("".join(spoil(lines)))
    result = run_pcam("audit", f"--records_dir={copy}")
    assert (result.returncode, result.stdout) == (1, "")
    assert found in result.stderr
    assert result.stderr.endswith("Run pcam verify.\n")
    assert len(result.stderr.strip().splitlines()) == 1


# The command.


def test_command_writes_text_json_and_table(planted_dir, tmp_path):
    output_dir = tmp_path / "made" / "here"
    result = run_pcam(
        "audit", f"--records_dir={planted_dir}", f"--output_dir={output_dir}"
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout == (output_dir / "audit.txt").read_text()
    assert result.stdout.index("LEAK: equal pixels across splits") > 0
    summary = json.loads((output_dir / "audit.json").read_text())
    assert summary["leaks"] is True
    assert [split["name"] for split in summary["splits"]] == [
        "fold0", "fold1", "test",
    ]  # fmt: skip
    with open(output_dir / "pairs.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    leaked = [
        r["source_name"] for r in rows if r["kind"] == "exact_across_splits"
    ]
    assert leaked == ["train002", "test030"]
    assert sorted(path.name for path in output_dir.iterdir()) == [
        "audit.json",
        "audit.txt",
        "pairs.csv",
    ]


def test_command_fails_on_leaks_where_asked(planted_dir):
    result = run_pcam(
        "audit", f"--records_dir={planted_dir}", "--fail_on=leaks"
    )
    assert (result.returncode, result.stderr) == (1, "")
    assert "LEAK" in result.stdout


@pytest.mark.parametrize(
    ("code", "arguments", "found"),
    [
        (1, ["--records_dir=nowhere"], "manifest.json: not found"),
        (1, ["--records_dir={d}", "--other_records_dir={d}"], "same folder"),
        (1, ["--records_dir={d}", "--other_records_dir=no"], "not found"),
        (1, ["--records_dir={d}", "--output_dir={d}"], "a records folder"),
        (1, ["--records_dir={d}", "--output_dir={d}/a/b"], "a records folder"),
        (1, ["--records_dir={d}", "--output_dir={d}/patches.csv"], "a file"),
        (2, ["--records_dir={d}", "--fail_on=all"], "--fail_on=all"),
        (2, ["--output_dir=x"], "--records_dir is missing"),
    ],
    ids=lambda value: "" if isinstance(value, list) else str(value),
)
def test_wrong_input_is_told_in_one_line(records_dir, code, arguments, found):
    filled = [argument.format(d=records_dir) for argument in arguments]
    result = run_pcam("audit", *filled)
    assert result.returncode == code, result.stderr
    assert found in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_cut_shard_is_told_and_nothing_written(planted_dir, tmp_path):
    copy = pathlib.Path(shutil.copytree(planted_dir, tmp_path / "copy"))
    shard = min(copy.glob("*.tfrecord-*"))
    shard.write_bytes(shard.read_bytes()[:-5])
    result = run_pcam(
        "audit", f"--records_dir={copy}", f"--output_dir={tmp_path / 'out'}"
    )
    assert result.returncode == 1
    assert f"{shard}: found" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
