"""Columns of CSV files as people have them: read by pandas, with row numbers."""

from collections.abc import Sequence

import pandas

from pcam_tfdata.system import faults, files

_NO_TABLE = pandas.errors.ParserError, pandas.errors.EmptyDataError
_START = "Error tokenizing data. C error: "  # Of a message that names the row.


def read(
    path: str, *, optional: Sequence[str] = (), **wanted: Sequence[str]
) -> pandas.DataFrame:
    """Reads columns of a CSV file.

    Args:
        path: UTF-8, with or without a byte order mark; lines end in LF, CR LF
            or CR; fields may be quoted, and spaces may stand around them.
        optional: Columns that are left out where the file has none.
        **wanted: For each column the names that it may have, in lower case.
            The header may write them in any case; the first that is there is
            read.

    Returns:
        A column of str for each that was asked for, without spaces around it;
        rows without any text are left out. The index numbers the rows of the
        file from 1, that of the header: of a file without line ends in quotes
        these are its lines.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no UTF-8 text or no CSV, a row is longer than the
            header, or a column is not there once.
    """
    rows = _parse(path)
    header = rows.iloc[0].str.strip()
    present = header.str.casefold().tolist()
    rows = rows.iloc[1:]
    rows = rows[(rows != "").any(axis=1)]
    columns = {}
    for column, names in wanted.items():
        name = next((name for name in names if name in present), names[-1])
        if present.count(name) == 1:
            columns[column] = rows[present.index(name)].str.strip()
        elif name in present or column not in optional:
            raise ValueError(
                f"{path}: found columns {faults.show(','.join(header))},"
                f" expected {name!r} among them, once. Mend the first line."
            )
    return pandas.DataFrame(columns)


def _parse(path: str) -> pandas.DataFrame:
    if files.size(path) is None:
        raise FileNotFoundError(f"{path}: not found, expected a CSV file.")
    try:
        with files.open_file(path, encoding="utf-8-sig") as file:
            rows = pandas.read_csv(
                file,
                header=None,
                dtype=str,
                na_filter=False,
                skip_blank_lines=False,
                skipinitialspace=True,
            )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: {_find_undecodable(path)}") from error
    except _NO_TABLE as error:
        reason = faults.one_line(error).removeprefix(_START)
        raise ValueError(
            f"{path}: found no table ({reason}), expected rows no longer"
            " than the header, and quotes that are closed. Mend the file."
        ) from error
    return rows.set_axis(rows.index + 1)


def _find_undecodable(path: str) -> str:
    start = 0
    with files.open_file(path, "rb") as file:
        data = file.read()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        start = error.start
    line = len(data[: start + 1].splitlines())
    return (
        f"line {line:,}: found bytes that are no UTF-8 text"
        f" ({data[start : start + 4]!r}), expected a CSV file. Save it again as"
        " UTF-8."
    )
