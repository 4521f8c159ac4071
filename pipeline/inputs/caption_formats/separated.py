"""Comma- and tab-separated captions.

Arrow reads the file. An unclosed quote swallows all lines up to the next quote, and Arrow cannot tell this
from a caption with several lines. Therefore, if the numbers of rows and lines differ or Arrow fails, Python's
``csv`` reads the file again in strict mode, which is slow, and names the line.
"""

import csv

import pyarrow as pa
import pyarrow.csv

from pipeline.errors import UserError
from pipeline.inputs.caption_formats.opened import BLOCK, check_encoding, decoded, lines, opened, require
from pipeline.store.location import Location


def read_csv(file: Location, column: str, delimiter: str = ",") -> pa.ChunkedArray:
    """Read comma- or tab-separated values with a header, quoted as in RFC 4180."""
    check_encoding(file)
    try:
        with opened(file) as stream:
            header = next(csv.reader(decoded(stream), delimiter=delimiter, strict=True), None)
    except (csv.Error, UnicodeDecodeError):
        _check_rows(file, delimiter)
        raise
    if header is None:
        return pa.chunked_array([], pa.large_string())
    require(column, header, file)
    alone = len(header) == 1
    options = {
        "read_options": pyarrow.csv.ReadOptions(block_size=BLOCK),
        "parse_options": pyarrow.csv.ParseOptions(
            delimiter=delimiter, newlines_in_values=True, ignore_empty_lines=not alone
        ),
        "convert_options": pyarrow.csv.ConvertOptions(
            include_columns=[column], column_types={column: pa.large_string()}, strings_can_be_null=False
        ),
    }
    try:
        with opened(file) as stream:
            captions = pyarrow.csv.read_csv(stream, **options)[column]
    except pa.ArrowInvalid:
        _check_rows(file, delimiter)
        raise
    if not _a_row_a_line(file, len(captions), delimiter):
        _check_rows(file, delimiter)
    return captions


def _a_row_a_line(file: Location, rows: int, delimiter: str) -> bool:
    """Whether each row is exactly one line. If so, no unclosed quote has swallowed a line."""
    ends = returns = pairs = 0
    last = b""
    with opened(file) as stream:
        while block := stream.read(BLOCK):
            ends += block.count(b"\n")
            returns += block.count(b"\r")
            pairs += block.count(b"\r\n") + (last.endswith(b"\r") and block.startswith(b"\n"))
            last = (last if b"\n" not in block[:-1] else b"") + block[block.rfind(b"\n", 0, -1) + 1 :]
    lines = ends + (not last.endswith(b"\n"))
    try:
        [*csv.reader([last.decode(errors="replace")], delimiter=delimiter, strict=True)]
    except csv.Error:
        return False
    return rows + 1 == lines and returns == pairs


def _check_rows(file: Location, delimiter: str) -> None:
    """Raise an error for the first unclosed quote, or the first row with a wrong number of columns."""
    start, width = 1, None
    limit = csv.field_size_limit(BLOCK)
    try:
        with opened(file) as stream:
            rows = csv.reader(decoded(stream), delimiter=delimiter, strict=True)
            for row in rows:
                width = width or len(row)
                if row and len(row) != width:
                    raise UserError(
                        f"captions.file: {file}: line {start} has {len(row)} columns, the header has {width}"
                    )
                start = rows.line_num + 1
    except csv.Error as error:
        raise UserError(
            f"captions.file: {file}: a quote in the row that begins in line {start} is not closed, or text "
            f"follows the closing one ({error}); a quote within quotes is written twice"
        ) from None
    except UnicodeDecodeError:
        _check_utf8(file)
    finally:
        csv.field_size_limit(limit)


def _check_utf8(file: Location) -> None:
    with lines(file) as rows:
        for number, line in enumerate(rows, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                raise UserError(
                    f"captions.file: {file}: line {number} is not UTF-8: save the file as UTF-8"
                ) from None
