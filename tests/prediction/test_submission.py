"""The rows of a submission: whose ids, in which order, each once."""

import numpy as np
import pandas as pd
import pytest
import tables

from pcam_tfdata.evaluation import operating_point
from pcam_tfdata.prediction import configuration, submission
from pcam_tfdata.records import records_folder
from pcam_tfdata.runs import calibration_file
from pcam_tfdata.system import csv_files

HASH = "a123456789abcdef0123456789abcdef01234567"


def test_sample_finds_names_of_any_kind(tmp_path):
    names = ["b", "äöü", "a" * 60, "a", "x.tif", "名前"]
    path = str(tmp_path / "sample.csv")
    csv_files.write_csv(
        path, ("id",), [(name,) for name in names if name != "x.tif"]
    )
    with pytest.raises(ValueError, match=r"1 patches without a row \(as .*tif"):
        submission.read_sample(path, names)
    del names[4]
    order = [3, 0, 4, 1, 2]
    csv_files.write_csv(path, ("id",), [(names[place],) for place in order])
    rows = submission.read_sample(path, names)
    assert rows.index.tolist() == order
    output = tmp_path / "out.csv"
    logit = np.array([-1, 0, 1, 2, 3], np.float32)
    options = configuration.PredictOptions("run", str(output))
    # Without the calibration the probability of 1 would be 0.73, not 0.59.
    point = operating_point.OperatingPoint(
        calibration_file.Calibration(2.75), threshold=0.6
    )
    assert submission.write(options, point, rows, {"logit": logit}) == 5
    labels = [0, 0, 0, 1, 1]
    assert tables.read_csv(str(output), ("id", "label")) == [
        (names[place], str(labels[place])) for place in order
    ]


@pytest.mark.parametrize(
    "ids",
    [
        [HASH, "b", "test/c.jpg"],
        [HASH.upper(), "b.tif", "test/c"],
        [f"{HASH.upper()}.TIF", "b", "test/c.png"],
        ["test/c.jpg", "b", "", HASH, "b.jpg", HASH.upper()],
    ],
    ids=["exact", "capitals", "suffixes", "repeated"],
)
def test_sample_may_spell_ids_otherwise(tmp_path, ids):
    names = ["b", "test/c.jpg", HASH]
    path = tmp_path / "sample.csv"
    path.write_text("".join(f"{name}, \n" for name in [" ID ,x", *ids]))
    rows = submission.read_sample(str(path), names)
    expected = [name for name in ids if name][:3]
    assert rows.tolist() == expected
    order = [expected[index] for index in np.argsort(rows.index)]
    assert [name[0].lower() for name in order] == ["b", "t", "a"]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("c,0", r"1 not among the patches \(as c\)"),
        (",0", r"1 not among the patches \(as \)"),
        ("a\0,0", r"1 not among the patches \(as a.x00\)"),
        ("a,0,x", "Expected 2 fields in line 4, saw 3"),
        ('"a,0', "found no table .EOF inside string starting at row 3"),
    ],
    ids=["other", "none", "NUL", "long", "quote"],
)
def test_sample_that_is_no_table_of_the_patches_is_refused(
    tmp_path, line, found
):
    path = tmp_path / "sample.csv"
    path.write_text(f"id,label\na,0\nb,0\n{line}\n")
    with pytest.raises(ValueError, match=found) as raised:
        submission.read_sample(str(path), ["a", "b"])
    assert str(raised.value).startswith(f"{path}: ")
    assert str(raised.value).isprintable()


def test_names_that_two_unequal_patches_share_are_refused(monkeypatch):
    hashes = [HASH, HASH, HASH[::-1], HASH]
    columns = {"split": ["test"] * 3 + ["fold0"], "source_name": [*"abab"]}
    records = records_folder.RecordsFolder("records", None, "")
    monkeypatch.setattr(
        records_folder.RecordsFolder,
        "read_sidecar",
        lambda *_: pd.DataFrame({**columns, "id": hashes}),
    )
    options = configuration.PredictOptions("run", "s.csv")
    with pytest.raises(ValueError, match=r"1 patches .* differ \(as a\)"):
        submission.list_rows(options, records)
