"""Tables of ids, labels and slides, good and bad."""

import collections
import csv
import io
import pathlib
import random
import re
import tempfile

import conftest
import numpy as np
import pandas
import pytest
import searches

from pcam_tfdata.sources import label_table
from pcam_tfdata.system import name_arrays

HASH = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def table(tmp_path):
    """Writes text or bytes as a table, and returns its path."""

    def write(content: str | bytes) -> str:
        path = tmp_path / "train_labels.csv"
        if isinstance(content, str):
            content = content.encode()
        path.write_bytes(content)
        return str(path)

    return write


def pairs(found: label_table.IdTable) -> list[tuple[str, int]]:
    names = [name.decode() for name in found.names]
    return list(zip(names, found.values.tolist(), strict=True))


GOOD = [("a", 1), ("b", 0), ("c d", 1)]


@pytest.mark.parametrize(
    "content",
    [
        "id,label\na,1\nb,0\nc d,1\n",
        "\ufeffid,label\na,1\nb,0\nc d,1\n",
        "id,label\r\na,1\r\nb,0\r\nc d,1\r\n",
        "id,label\ra,1\rb,0\rc d,1",
        '"id","label"\n"a","1"\n"b",0\n"c d","1"',
        ' id , label\n a , 1\n b, "0" \n "c d" ,1 \n',
        "label,x,id\n1,,a\n0,y,b\n1,y,c d\n",
        "ID,Label\na,1\nb,0\nc d,1\n",
        "id,label\na,1.0\nb,0.0\nc d,1.\n",
        "id,label\n\na,1\n , \nb,0\nc d,1\n\n\n",
        'id,label,note\na,1,"x\ny"\nb,0\nc d,1,"z, ""z"""\n',
    ],
    ids=[
        "plain", "bom", "crlf", "cr", "quotes", "spaces", "order", "case",
        "float", "blank", "notes",
    ],
)  # fmt: skip
def test_tables_that_say_the_same_read_the_same(table, content):
    found = label_table.read_labels(table(content))
    assert pairs(found) == GOOD
    assert found.faults == []
    assert (found.names.dtype, found.values.dtype) == ("S3", np.int8)


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ("x,2", "line 3: found label '2' for x, expected 0 or 1"),
        ("x,0.5", "found label '0.5' for x"),
        ("x,nan", "found label 'nan' for x"),
        ("x,", "found label '' for x"),
        ("x", "found label '' for x"),
        ("x,tumor", "found label 'tumor' for x"),
        ("x,1e0", "found label '1e0' for x"),
        ("x,\u0661", "found label '\u0661' for x"),
        (f"x,{'1' * 90}", "' and more for x"),
        ("../x,1", "found id '../x', expected a plain name"),
        ("/etc/passwd,1", "found id '/etc/passwd', expected a plain name"),
        ("a\\b,1", "expected a plain name"),
        ("..,1", "found id '..', expected a plain name"),
        (",1", "found id '', expected a plain name"),
        ("a\0,1", r"found id 'a\\x00', expected a plain name"),
        ("a\x1b[2J,1", r"found id 'a\\x1b\[2J', expected a plain name"),
        ("\ufeffa,1", r"found id '\\ufeffa', expected a plain name"),
        (f"{'a' * 256},1", "of at most 255 bytes"),
        ('"x\ny",1', r"found id 'x\\ny', expected a plain name"),
        ("ok,0", "conflicting labels for ok: 0 here and 1 in line 2"),
        (" ok.TIF ,0.0", "conflicting labels for ok.TIF: 0.0 here and 1 in"),
    ],
)  # fmt: skip
def test_bad_row_is_a_fault_of_its_line(table, row, found):
    path = table(f"id,label\nok,1\n{row}\nlast,0\n")
    result = label_table.read_labels(path)
    (fault,) = result.faults
    assert re.search(found, fault.reason)
    assert fault.reason.startswith(f"{path}: line 3: found ")
    assert "\n" not in fault.reason + fault.name
    good = [("ok", 1), ("last", 0)]
    assert pairs(result) == good[1:] if "conflict" in found else good


@pytest.mark.parametrize(
    "row",
    ["ok,1", " ok ,1.0", "ok.tif,1", '"ok.TIFF",1.', "ok.png,1"],
)
def test_row_that_says_the_same_again_is_warned_of(table, caplog, row):
    path = table(f"id,label\nok,1\nx,0\n{row}\nx,0\n")
    found = label_table.read_labels(path)
    assert pairs(found) == [("ok", 1), ("x", 0)]
    assert (found.faults, len(found.bad_names)) == ([], 0)
    (line,) = caplog.messages
    said = f"{path}: found 2 rows that repeat an id (line 4 repeats"
    assert said in line


def test_suffix_of_an_image_and_capitals_of_a_hash_are_no_part_of_an_id(table):
    names = [f"{HASH.upper()}.tif", "Patch.JPG", "patch", "a.tif.tif", "b.2"]
    rows = "".join(f"{name},{k % 2}\n" for k, name in enumerate(names))
    found = label_table.read_labels(table(f"id,label\n{rows}"))
    expected = [HASH, "Patch", "patch", "a", "b.2"]
    assert [name for name, _ in pairs(found)] == expected
    assert found.faults == []


def test_names_of_bad_rows_are_left_out_and_told(table, caplog):
    found = label_table.read_labels(
        table("id,label\nb,1\na,2\na,1\nc,0\nc,1\nc,0\nd,0\nd,0\n../e,1\n")
    )
    assert pairs(found) == [("b", 1), ("d", 0)]
    assert found.bad_names.tolist() == [b"a", b"c"]
    assert "found 1 rows that repeat an id" in caplog.text
    names = [fault.name for fault in found.faults]
    assert names == ["a", "c", "../e"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("", "found no table"),
        ("\n \n,\n", "found no table"),
        ("id,class\na,1\n", "found columns 'id,class', expected 'label' among"),
        ("a,1\n", "found columns 'a,1', expected 'id' among"),
        ("id,label,ID\n", "expected 'id' among them, once"),
        ("id,label\na,1\nx,1,0\n", "Expected 2 fields in line 3, saw 3"),
        ("id,label\na,1,0\nx,1\n", "Expected 2 fields in line 2, saw 3"),
        ('id,label\na,1\nb,"0\nc,1\n', "EOF inside string starting at row 2"),
        ('"id,label\na,1\n', "EOF inside string starting at row 0"),
        ('id,label\na,1\n"', "EOF inside string starting at row 2"),
        (b"id,label\na,1\n\xff,0\n", r"line 3: .* no UTF-8 text \(b'\\xff,0"),
        ("id,label\na,1\n".encode("utf-16"), "line 1: .* no UTF-8 text"),
    ],
    ids=[
        "empty", "blank", "no_label", "no_header", "twice", "long_row",
        "long_first_row", "quote", "quote_in_header", "quote_at_end", "latin",
        "utf16",
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_in_one_line(table, content, found):
    path = table(content)
    with pytest.raises(ValueError, match=found) as caught:
        label_table.read_labels(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert len(message) < 300


def test_missing_file_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.csv: not found"):
        label_table.read_labels(str(tmp_path / "none.csv"))


def test_header_alone_has_no_rows(table):
    found = label_table.read_labels(table("id,label"))
    assert (pairs(found), found.faults) == ([], [])
    assert len(found.bad_names) == 0


def test_ids_alone_are_unlabelled(table, caplog):
    found = label_table.read_names(table("label,id\n0.5,b\n,a\nx,b\n"))
    assert pairs(found) == [("b", -1), ("a", -1)]
    assert "found 1 rows that repeat an id (line 4 repeats b)" in caplog.text


def test_id_alone_that_repeats_in_another_spelling_is_one(table, caplog):
    text = f"id\n{HASH.upper()}\na.tif\n{HASH}\na\n{HASH}.tif\n"
    found = label_table.read_names(table(text))
    assert pairs(found) == [(HASH, -1), ("a", -1)]
    assert found.faults == []
    assert "found 3 rows that repeat an id (line 4" in caplog.text


def test_lines_of_spreadsheets_that_hold_nothing_are_passed_over(table):
    found = label_table.read_names(table("Id,Label,\na,0\n,\n\n ,  ,\n ,0\n"))
    assert pairs(found) == [("a", -1)]
    (fault,) = found.faults
    assert "line 6: found id '', expected a plain name" in fault.reason


@pytest.mark.parametrize("column", ["wsi", "slide", " WSI "])
def test_slides_are_read_in_the_order_of_the_table(table, column):
    content = "c,s2\na,s1\nb,s2\nc,s2\nd,s10\n"
    found, _ = label_table.read_slides(table(f"id,{column}\n{content}"))
    assert found.names.tolist() == [b"c", b"a", b"b", b"d"]
    assert found.values.tolist() == [b"s2", b"s1", b"s2", b"s10"]
    assert found.faults == []


def test_wsi_is_read_where_both_are_there(table):
    found, _ = label_table.read_slides(table("slide,id,wsi\nx,a,s1\n"))
    assert found.values.tolist() == [b"s1"]


def test_slides_that_contradict_each_other_are_faults(table):
    path = table("id,wsi\nb,s3\na,s1\na,s2\nc,t/u\nd,s1\n")
    found, _ = label_table.read_slides(path)
    assert found.names.tolist() == [b"b", b"d"]
    assert found.values.tolist() == [b"s3", b"s1"]
    assert found.bad_names.tolist() == [b"a", b"c"]
    reasons = [fault.reason for fault in found.faults]
    assert (
        "line 4: found conflicting slides for a: s2 here and s1" in reasons[0]
    )
    assert "line 5: found slide 't/u' for c, expected a plain" in reasons[1]
    with pytest.raises(ValueError, match="'id,place', expected 'slide'"):
        label_table.read_slides(table("id,place\na,b\n"))


def test_tumor_fractions_are_read_beside_slides(table, caplog):
    content = "b,1,s3,0.25\na,0,s1,0\na,0,s1,0\nc,1,s1,1.0\n"
    path = table(f"id,label,slide,tumor_fraction\n{content}")
    slides, fractions = label_table.read_slides(path)
    assert (
        slides.names.tolist() == fractions.names.tolist() == [b"b", b"a", b"c"]
    )
    assert fractions.values.tolist() == [0.25, 0, 1]
    assert fractions.values.dtype == np.float32
    assert slides.faults == fractions.faults == []
    assert len(caplog.messages) == 1


@pytest.mark.parametrize("text", ["", "x", "nan", "-0.1", "1.5"])
def test_what_is_no_tumor_fraction_is_a_fault(table, text):
    path = table(f"id,slide,tumor_fraction\na,s1,{text}\n/,s1,0\n")
    slides, fractions = label_table.read_slides(path)
    (fault,) = fractions.faults
    assert f"line 2: found tumor fraction {text!r} for a, exp" in fault.reason
    assert len(slides.faults) == 1  # That of the id is told once.


def test_faults_of_all_kinds_are_told_by_line(table):
    rows = [f"n{k},{'x' if k % 2 else 0}" for k in range(3_000)]
    more = [f"n{k},{'x' if k % 2 else 1}" for k in range(3_000)]
    found = label_table.read_labels(
        table("\n".join(["id,label", *rows, *more]))
    )
    assert len(found.names) == 0
    assert collections.Counter(fault.kind for fault in found.faults) == {
        "bad labels": 3_000,
        "conflicts": 1_500,
    }
    lines = [
        int(re.search(r"line ([\d,]+)", fault.reason)[1].replace(",", ""))
        for fault in found.faults
    ]
    assert lines == sorted(lines)


@pytest.mark.parametrize("storage", ["python", "auto"])
def test_many_rows_of_any_width_keep_their_order_and_lines(table, storage):
    rng = np.random.default_rng(3)
    names = [rng.bytes(20).hex() if k % 3 else f"n{k}" for k in range(30_000)]
    slides = [f"slide_{rng.integers(99)}" for _ in names]
    rows = [f"{n},,{s}" for n, s in zip(names, slides, strict=True)]
    path = table("\r\n".join(["id,x,wsi", *rows, "late,,a/b"]))
    with pandas.option_context("mode.string_storage", storage):
        found, _ = label_table.read_slides(path)
    assert [name.decode() for name in found.names] == names
    assert [name.decode() for name in found.values] == slides
    (fault,) = found.faults
    assert "line 30,002: found slide 'a/b' for late" in fault.reason


# A slow, plain twin of the reader.


class NoTableError(Exception):
    """What cannot be read at all."""


def rows_of(text: str) -> list[tuple[int, list[str]]]:
    """Returns the header and the rows that are not blank, numbered from 1."""

    def count(text: str) -> int:
        return len(list(csv.reader(io.StringIO(text, newline=""), **options)))

    options = {"skipinitialspace": True}
    gap = "" if not text or text[-1] in "\r\n" else "\n"
    if count(f"{text}{gap}x") != count(text) + 1:
        raise NoTableError("a quote is open at the end")
    rows = list(csv.reader(io.StringIO(text, newline=""), **options))
    if any(len(row) > len(rows[0]) for row in rows):
        raise NoTableError("a row is longer than the header")
    return [
        (line, row) for line, row in enumerate(rows, 1) if line == 1 or any(row)
    ]


def read_slowly(data: bytes) -> tuple[list, set, list[tuple[int, str]]]:
    """Returns usable rows, bad names, and lines and kinds of faults."""
    try:
        rows = rows_of(data.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise NoTableError from error
    header = [name.strip().casefold() for name in rows[0][1]] if rows else []
    if header.count("id") != 1 or header.count("label") != 1:
        raise NoTableError(f"columns {header}")
    told, of_name = [], {}
    for line, row in rows[1:]:
        fields = [field.strip() for field in row] + [""] * len(header)
        name = fields[header.index("id")]
        text = fields[header.index("label")]
        if not name_arrays.is_plain(name):
            told.append((line, "plain name"))
            continue
        while (stem := re.sub(r"(?i)\.tif$", "", name)) and stem != name:
            name = stem
        if re.fullmatch("[0-9a-fA-F]{40}", name):
            name = name.lower()
        is_label = text[:1] in ("0", "1") and text[1:].strip("0") in ("", ".")
        is_label &= text[1:2] in ("", ".")
        label = int(text[0]) if is_label else None
        if label is None:
            told.append((line, "expected 0 or 1"))
        of_name.setdefault(name, []).append((line, label))
    good, bad = [], set()
    for name, found in of_name.items():
        _, first = found[0]
        for line, label in found[1:]:
            if None not in (first, label) and label != first:
                told.append((line, "conflicting"))
        if len({label for _, label in found} | {None}) > 2 or None in {
            label for _, label in found
        }:
            bad.add(name)
        else:
            good.append((found[0][0], name, first))
    return [row[1:] for row in sorted(good)], bad, sorted(told)


FIELDS = (
    "a", "a.tif", "a.tif.TIF", ".tif", "b", "b", "c.d", "ü", HASH, HASH.upper(), "0", "1", "1.0", "0.0", "2",
    "nan", "", " ", " a", "b ", "../x", "..", "\0", "\t", '"', '""', '"a"', '"1"',
    ' "0" ', '"x,y"', '"x\ny"', '"x', 'y"', 'end"', "x" * 256,
)  # fmt: skip
HEADERS = (
    *("id,label",) * 4,
    *("label,id", " ID ,Label", "x,id,label", '"id","label"', "id", "\n"),
)
LINE_ENDS = (("\n",), ("\r\n",), ("\r", "\n", "\r\n"))


def random_table(draw: random.Random) -> bytes:
    """A table with some accidents."""

    def line() -> str:
        if draw.random() < 0.5:
            return f"{draw.choice('abcdefgh')},{draw.choice('01')}"
        return ",".join(draw.choices(FIELDS, k=draw.randint(0, 4)))

    ends = draw.choice(LINE_ENDS)
    lines = [draw.choice(HEADERS)]
    lines += [line() for _ in range(draw.randint(0, 12))]
    text = "".join(line + draw.choice(ends) for line in lines)
    data = draw.choice(["", "", "\ufeff"]).encode() + text.encode()
    if draw.random() < 0.5:
        data = data.rstrip(b"\r\n")
    for _ in range(draw.randint(0, 2)):
        place = draw.randint(0, len(data))
        byte = draw.choice([b'"', b",", b"\n", b"\r", b" ", b"\xff", b"1"])
        data = data[:place] + byte + data[place + draw.randint(0, 1) :]
    return data


def reads_like_its_twin(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "t.csv"
        path.write_bytes(data)
        try:
            rows, bad, told = read_slowly(data)
        except NoTableError:
            with pytest.raises(ValueError, match=r"t\.csv: "):
                label_table.read_labels(str(path))
            return
        found = label_table.read_labels(str(path))
    assert pairs(found) == rows
    assert found.bad_names.tolist() == sorted(name.encode() for name in bad)
    for fault, (line, kind) in zip(found.faults, told, strict=True):
        assert f"t.csv: line {line}: " in fault.reason
        assert kind in fault.reason


def test_any_table_reads_like_its_slow_twin():
    searches.hold(reads_like_its_twin, random_table, range(400))


@pytest.mark.long
def test_many_tables_read_like_their_slow_twins():
    searches.hold(reads_like_its_twin, random_table, range(400, 20_400))


READ_AND_MEASURE = """
import resource, sys
from pcam_tfdata.sources import label_table
found = label_table.read_labels(sys.argv[1])
memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
print(len(found.names), len(found.faults), memory)
"""


@pytest.mark.long
def test_ten_million_rows_fit_into_memory(tmp_path):
    path = tmp_path / "labels.csv"
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("id,label\n")
        for _ in range(100):
            text = rng.bytes(20 * 100_000).hex()
            file.writelines(
                f"{text[40 * k : 40 * k + 40]},{k % 2}\n"
                for k in range(100_000)
            )
    num_rows, num_faults, megabytes = map(
        int, conftest.measure_alone(READ_AND_MEASURE, path)
    )
    assert (num_rows, num_faults) == (10_000_000, 0)
    # 2,712 measured; the file alone has 430, and pandas holds it twice.
    assert megabytes < 4_000
