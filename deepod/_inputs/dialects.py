"""Reading of CSV files with Arrow, and detection of separator, decimal point and encoding."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUFFIXES = {".csv": None, ".csv.gz": "gzip", ".csv.bz2": "bz2", ".csv.zst": "zstd"}
_SEPARATORS = (",", ";", "\t", "|")
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # must come before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_HEAD = 1 << 16  # bytes from which the dialect is detected
_MOST = 1 << 26  # the same if the line of names is very long
_BLOCK = 1 << 20  # bytes that Arrow parses at once
_ROW = 256  # additional bytes per column
_LINES = 200  # lines from which the dialect is detected
_WORDS = {"true": 1.0, "false": 0.0}
_END = "\x03the end of deepod's table"  # added as the last line, to detect an unclosed quote
_COMMA = re.compile(r"[+-]?\d+,\d+([eE][+-]?\d+)?")
_POINT = re.compile(r"[+-]?\d+\.\d+([eE][+-]?\d+)?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_UNCLOSED = "the file ends within quotes; check that every opening quote has a closing one"


@dataclass(frozen=True)
class Dialect:
    """The format of a CSV file. What is None is detected from its first lines.

    Attributes
    ----------
    sep : str or None
        The character between two cells. Detected are ``,``, ``;``, tab and ``|``.
    decimal : {".", ","} or None
        The decimal point.
    encoding : str or None
        Python's name of the encoding, such as "latin-1". Detected are byte order marks; without
        one, it is UTF-8.
    """

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None

    def __post_init__(self) -> None:
        if self.sep is not None and (len(self.sep) != 1 or not self.sep.isascii()):
            raise ValueError(f"sep must be one character, such as ';', got {self.sep!r}.")
        if self.decimal not in (None, ".", ","):
            raise ValueError(f"decimal must be '.' or ',', got {self.decimal!r}.")
        if self.decimal == "," and self.sep == ",":
            raise ValueError("sep and decimal are both ','; give one of them another character.")
        if self.encoding is not None:
            try:
                "".encode(self.encoding)  # refuses base64, which does not encode text
            except LookupError as error:
                raise ValueError(
                    f"encoding={self.encoding!r} is not a text encoding that Python knows; use "
                    "'utf-8' or 'latin-1', for example."
                ) from error


UNKNOWN = Dialect()


def number(cell: str, decimal: str = ".") -> float:
    """Return the number in a cell, or NaN if the cell is blank.

    Raises
    ------
    ValueError
        If the cell holds text. "2021_03" (which Python reads as 202103), "None" and "NA" are text.
    """
    word = cell.strip() or "nan"
    if decimal != ".":
        word = "x" if "." in word else word.replace(decimal, ".")
    if "_" in word or not word.isascii():
        raise ValueError(f"expected a number, got {cell!r}.")
    try:
        return float(word)
    except ValueError:
        if word.lower() not in _WORDS:
            raise
        return _WORDS[word.lower()]


class CsvFile:
    """A CSV file whose dialect has been detected from its first lines.

    Attributes
    ----------
    path : Path
    header : list of str
        Names of the columns, without surrounding blanks.
    sep, decimal, encoding : str
    """

    def __init__(self, path: Path, dialect: Dialect) -> None:
        self.path = path
        head, whole = self._head()
        self.encoding = dialect.encoding or _encoding(head)
        records = _Head(head, self.encoding, whole)
        self.sep = dialect.sep or records.separator()
        header, rows = records.split(self.sep)
        self.header = [name.strip() for name in header]
        self.decimal_is_known = dialect.decimal is not None
        self.decimal = dialect.decimal or _decimal(self.sep, self.header, rows)
        _check_names(self.header)

    def _head(self) -> tuple[bytes, bool]:
        """Return the first bytes, at least two lines, and whether they are the whole file."""
        head, whole = b"", False
        with closing(self._stream()) as stream:
            while not whole and len(head) < _MOST and (not head or head.count(b"\n") < 2):
                more = stream.read(max(_HEAD, len(head)))
                head, whole = head + more, not more
            return head, whole or not stream.read(1)

    def _stream(self) -> Any:
        import pyarrow as pa

        name = self.path.name.lower()
        # At most one suffix matches.
        compression = next(c for suffix, c in SUFFIXES.items() if name.endswith(suffix))
        return pa.input_stream(str(self.path), compression=compression)

    def batches(self, places: Sequence[int], rows: int) -> Iterator[Any]:
        """Yield Arrow batches with the cells of some columns as text; empty cells are null."""
        import pyarrow as pa
        import pyarrow.csv as pac

        width = len(self.header)
        wanted = [f"f{place}" for place in places]
        last = f"f{width - 1}"
        bad = _BadRows()
        with closing(self._stream()) as stream:
            lines = _WithEnd(stream, self.encoding, self.sep.join([_END] * width))
            try:
                reader = pac.open_csv(
                    pa.PythonFile(lines, mode="r"),
                    pac.ReadOptions(
                        use_threads=False,
                        column_names=[f"f{i}" for i in range(width)],
                        block_size=max(_BLOCK, _ROW * width),
                    ),
                    pac.ParseOptions(
                        delimiter=self.sep, newlines_in_values=True, invalid_row_handler=bad
                    ),
                    pac.ConvertOptions(
                        column_types={f"f{i}": pa.string() for i in range(width)},
                        include_columns=list(dict.fromkeys([*wanted, last])),
                        null_values=[""],
                        strings_can_be_null=True,
                    ),
                )
                yield from self._without_ends(reader, wanted, last, rows)
            except (pa.ArrowInvalid, UnicodeError) as error:
                raise ValueError(self._said(error, bad.first)) from error

    def _without_ends(self, reader: Any, wanted: list[str], last: str, rows: int) -> Iterator[Any]:
        """Yield the batches without the line of names and the added last line."""
        left_out, held = 0, None
        for batch in reader:
            if not left_out:
                left_out = min(1, len(batch))
                batch = batch.slice(left_out)
            if not len(batch):
                continue
            if held is not None:
                yield from _cut(held.select(wanted), rows)
            held = batch
        if held is None or held.column(last)[-1].as_py() != _END:
            raise ValueError(_UNCLOSED)
        yield from _cut(held.slice(0, len(held) - 1).select(wanted), rows)

    def _said(self, error: Exception, bad: tuple[int, int, str] | None) -> str:
        if bad is not None:
            row, values, text = bad
            if _END in text:
                return f"row {row}: {_UNCLOSED}"
            return f"row {row} has {values} values, but there are {len(self.header)} columns."
        text = str(error)
        if isinstance(error, UnicodeError) or "UTF8" in text:
            return _not_in(self.encoding, text)
        if "straddl" in text:
            return (
                f"a row is longer than {_BLOCK:,} bytes; check that every opening quote has a "
                "closing one."
            )
        return text


class _BadRows:
    """Arrow's handler of rows with a wrong number of cells, which remembers the first one.

    Blank lines are skipped.
    """

    def __init__(self) -> None:
        self.first: tuple[int, int, str] | None = None  # row number, number of cells, text
        self._blank = 0

    def __call__(self, row: Any) -> str:
        if not row.text.strip():
            self._blank += 1
            return "skip"
        if self.first is None:
            # Arrow counts the line of names as the first row.
            self.first = row.number - 1 - self._blank, row.actual_columns, row.text
        return "error"


class _WithEnd(io.RawIOBase):
    """A stream of a file in UTF-8 with an added last line, which an unclosed quote would hide."""

    def __init__(self, stream: Any, encoding: str, end: str) -> None:
        super().__init__()
        self._stream = stream
        plain = codecs.lookup(encoding).name == "utf-8"  # which Arrow validates
        self._decoder = None if plain else codecs.getincrementaldecoder(encoding)()
        self._end: bytes | None = f"\n{end}\n".encode()

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while self._end is not None:
            contents = self._stream.read(_BLOCK if size < 0 else size)
            final = not contents
            if self._decoder is not None:
                contents = self._decoder.decode(contents, final).encode()
            if final:
                contents, self._end = contents + self._end, None
            if contents:
                return contents
        return b""


class _Head:
    """The first lines of a CSV file."""

    def __init__(self, head: bytes, encoding: str, whole: bool) -> None:
        decoder = codecs.getincrementaldecoder(encoding)()
        try:
            text = decoder.decode(head, whole)
        except UnicodeError as error:
            raise ValueError(_not_in(encoding, str(error))) from error
        if "\0" in text:
            raise ValueError(_not_in(encoding, "it has bytes of zero"))
        lines = list(io.StringIO(text, newline=""))  # splitlines also ends them at \v and others
        if not whole:
            lines = lines[:-1] or lines
        self._lines = [line for line in lines if line.strip()]
        if not self._lines:
            raise ValueError("the file is empty; expected a line of names, and rows below it.")

    def split(self, sep: str) -> tuple[list[str], list[list[str]]]:
        """Return the line of names and the rows below it."""
        try:
            header = next(csv.reader(self._lines, delimiter=sep, strict=True))
        except csv.Error as error:
            raise ValueError(
                f"the line of names cannot be read ({error}); check that every opening quote has a "
                "closing one."
            ) from error
        return header, self._records(sep)[1:]

    def separator(self) -> str:
        """Return the separator that divides all lines into the same number of cells."""
        there, fitting = [], []
        for sep in _SEPARATORS:
            records = self._records(sep)
            width = len(records[0]) if records else 0
            if width > 1:
                there.append(sep)
                if len(records) > 1 and all(len(cells) == width for cells in records):
                    fitting.append(sep)
        if len(fitting) > 1:
            raise ValueError(
                f"the separator of cells may be {' or '.join(map(repr, fitting))}; give the right "
                f"one, such as sep={fitting[-1]!r}."
            )
        return (fitting or there or [","])[0]

    def _records(self, sep: str) -> list[list[str]]:
        # An unclosed quote within these lines swallows the last record.
        records: list[list[str]] = []
        with suppress(csv.Error):  # longer than Python takes a cell to be
            records.extend(csv.reader(self._lines[:_LINES], delimiter=sep))
        return records[:-1] if len(records) > 2 else records


def _encoding(head: bytes) -> str:
    return next((encoding for mark, encoding in _MARKS if head.startswith(mark)), "utf-8")


def _not_in(encoding: str, why: str) -> str:
    name = "UTF-8" if codecs.lookup(encoding).name.startswith("utf-8") else encoding
    return (
        f"it is not in {name} ({why}); say what it is in, such as encoding='latin-1' or "
        "encoding='utf-16', or save it in UTF-8."
    )


def _decimal(sep: str, header: list[str], rows: list[list[str]]) -> str:
    """Return the decimal point that the first rows use."""
    if sep == "," or any("," in name for name in header):  # it may separate cells there
        return "."
    cells = [cell.strip() for row in rows for cell in row]
    commas = [cell for cell in cells if _COMMA.fullmatch(cell)]
    if not commas or any(_POINT.fullmatch(cell) for cell in cells):
        return "."
    if all(_THOUSANDS.fullmatch(cell) for cell in commas):
        raise ValueError(
            f"the comma in {commas[0]!r} may be a decimal point or a thousands separator; give "
            "decimal=',' if it is the decimal point, and otherwise write the numbers without it."
        )
    return ","


def _check_names(header: list[str]) -> None:
    """Raise an error if all names are numbers, except for pandas' names 0, 1, 2 and so on."""
    try:
        numbers = [number(name) for name in header]
    except ValueError:
        return
    rest = [name for name in header if name]
    # An empty first name is that of pandas' row numbers, so that the others are names too.
    if len(header) > 2 and rest == [str(i) for i in range(len(rest))]:
        return
    if any(name for name in header) and numbers:
        raise ValueError(
            "the first line must hold the names of the columns, but it holds only numbers "
            f"({', '.join(header[:5])}); add a line of names above it. If these numbers are the "
            "names, rename the columns so that one begins with a letter."
        )


def _cut(batch: Any, rows: int) -> Iterator[Any]:
    for start in range(0, len(batch), rows):
        yield batch.slice(start, rows)
