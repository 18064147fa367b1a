"""What files of tables can have that is rare: each is read right, or refused in our words."""

import datetime

import numpy as np
import pytest

from deepod import sources
from deepod._inputs import tables
from deepod._inputs.tables import Dialect, open_table

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def read(path, **options):
    """Numbers of a table, and its values by kind, which have to agree."""
    table = open_table(path, **options)
    rows = np.concatenate(list(table.numbers()))
    found = pa.Table.from_batches(list(table.batches()))
    for i, name in enumerate(table.names):
        values = found[name].cast(pa.float64()).to_pandas().to_numpy()
        np.testing.assert_array_equal(values, rows[:, i])
    return table.names, rows.tolist()


def write(folder, name, contents):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents if isinstance(contents, bytes) else contents.encode())
    return path


READ = {
    "blanks above the names": ("\n  \na,b\n1,2\n", (["a", "b"], [[1, 2]])),
    "blanks between": ("a,b\n1,2\n  \n\n3,4\n", (["a", "b"], [[1, 2], [3, 4]])),
    "utf-32": ("a,ü\n1,2\n".encode("utf-32"), (["a", "ü"], [[1, 2]])),
    "ends of lines of others in a name": (
        "a\x0b\u2028c,b\n1,2\n",
        (["a\x0b\u2028c", "b"], [[1, 2]]),
    ),
    "Macintosh": ("a,b\r1,2\r3,4\r", (["a", "b"], [[1, 2], [3, 4]])),
    "name of two lines": ('"a\nc",b\n1,2\n', (["a\nc", "b"], [[1, 2]])),
}


@pytest.mark.parametrize(("contents", "expected"), READ.values(), ids=READ)
def test_csv__rare_but_clear__read(contents, expected, tmp_path):
    assert read(write(tmp_path, "x.csv", contents)) == expected


def test_csv__line_of_names_longer_than_what_is_looked_at_first__read(tmp_path):
    names = [f"a_column_with_a_rather_long_name_{i}" for i in range(6_000)]
    row = [f"{i}.125" for i in range(6_000)]
    path = write(tmp_path, "x.csv", "\n".join([",".join(names), ",".join(row), ",".join(row)]))
    table = open_table(path)
    assert table.names == names
    rows = np.concatenate(list(table.numbers()))
    assert rows.tolist() == [[float(cell) for cell in row]] * 2


def test_csv__cell_longer_than_python_takes__text(tmp_path):
    path = write(tmp_path, "x.csv", f"a,b\n{'x' * 200_000},1\n")
    assert open_table(path).kinds == {"a": "text", "b": "number"}


REFUSED = {
    "row numbers of pandas": (",0,1\n0,5,6\n1,7,8\n", {}, r"no name.*to_csv\(index=False\)"),
    "comma after all": ("a;b\n" + "1;2\n" * 300 + "1,5;2\n", {}, "'a'.*decimal=','"),
    "comma and point": ("a;b\n1,5;2.5\n", {}, "'a'.*decimal=','"),
    "comma in quotes": ('a,b\n"1,5",2\n', {}, "'a'.*decimal=','"),
    "base64": ("a,b\n1,2\n", {"encoding": "base64"}, "'base64' is not a text encoding"),
    "no mark": ("a,b\n1,2\n", {"encoding": "utf-16"}, "it is not in utf-16"),
    "another separator": ("a,b\n1,2\n", {"sep": ";"}, "column 'a,b': expected a number"),
}


@pytest.mark.parametrize(("contents", "known", "said"), REFUSED.values(), ids=REFUSED)
def test_csv__what_would_be_a_guess__refused_for_all_uses(contents, known, said, tmp_path):
    path = write(tmp_path, "x.csv", contents)
    with pytest.raises(ValueError, match=said):
        list(open_table(path, dialect=Dialect(**known)).numbers())
    if "decimal" in said:
        with pytest.raises(ValueError, match=said):
            _ = open_table(path).kinds
        assert open_table(path, dialect=Dialect(decimal=".")).kinds["a"] == "text"


def test_csv__files_of_a_folder__each_looked_at_on_its_own(tmp_path):
    write(tmp_path, "1.csv", "a,b\n1,2\n")
    write(tmp_path, "2.csv", "a;b\n1,5;2\n")
    assert read(tmp_path) == (["a", "b"], [[1, 2], [1.5, 2]])


def test_csv__folders_that_say_values__refused(tmp_path):
    write(tmp_path, "year=2023/1.csv", "a,b\n1,2\n")
    with pytest.raises(ValueError, match=r"folders hold values \(year=2023\)"):
        open_table(tmp_path)


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        ("2024-01-15T10:00:00Z", "2024-01-15T10:00:00+02:00", "time"),
        ("2024-01-15T10:00:00Z", "2024-01-15T10:00:00", "text"),
        ("2024-01-15", "2024-01-15 10:00:00.123456789", "time"),
        ("2024-01-15", "2024-02-30", "text"),
        ("10:00", "10:05", "text"),
    ],
)
@pytest.mark.parametrize("cells", [2, 10**6])
def test_csv__times__one_clock_in_the_whole_column(
    first, second, kind, cells, tmp_path, monkeypatch
):
    """A column is no time because each batch for itself is one."""
    monkeypatch.setattr(tables, "_CELLS", cells)  # the first are a batch of one row
    table = open_table(write(tmp_path, "x.csv", f"n,when\n1,{first}\n1,{second}\n"))
    assert table.kinds == {"n": "number", "when": kind}
    found = pa.Table.from_batches(list(table.batches()))["when"]
    assert found.type == (pa.timestamp("us") if kind == "time" else pa.string())
    if second.endswith("+02:00"):
        assert found[-1].as_py() == datetime.datetime(2024, 1, 15, 8)


KINDS = {
    "timestamp": (pa.array([1], pa.timestamp("ns")), "time"),
    "zone": (pa.array([1], pa.timestamp("us", "Europe/Berlin")), "time"),
    "date": (pa.array([datetime.date(2024, 1, 1)]), "time"),
    "time of day": (pa.array([datetime.time(1)]), "other"),
    "duration": (pa.array([1], pa.duration("s")), "other"),
    "text": (pa.array(["x"]), "text"),
    "large text": (pa.array(["x"], pa.large_string()), "text"),
    "category": (pa.array(["x"]).dictionary_encode(), "text"),
    "list": (pa.array([[1]]), "other"),
    "gaps": (pa.nulls(1), "number"),
}


@pytest.mark.parametrize(("column", "kind"), KINDS.values(), ids=KINDS)
def test_parquet__types__kinds_and_what_comes_of_them(column, kind, tmp_path):
    pq.write_table(pa.table({"a": [1.0], "c": column}), tmp_path / "x.parquet")
    table = open_table(tmp_path / "x.parquet")
    assert table.kinds == {"a": "number", "c": kind}
    (batch,) = table.batches()
    expected = {"time": pa.timestamp("us"), "text": pa.string(), "number": pa.float64()}
    assert batch.schema.types[1] == expected.get(kind, column.type)
    if kind != "number":
        with pytest.raises(ValueError, match=r"column 'c' holds .*drop=\["):
            list(table.numbers())


FILES = {
    "integers and floats": ({"a": [1]}, {"a": [1.5]}, [[1], [1.5]]),
    "true and numbers": ({"a": [True]}, {"a": [2]}, [[1], [2]]),
    "text in the second": ({"a": [1]}, {"a": ["x"]}, "'a' is int64 in some files and string in"),
    "lacking in the second": ({"a": [1], "b": [1]}, {"a": [2]}, r"2\.parquet has no column 'b'"),
    "lacking in the first": ({"a": [1]}, {"a": [2], "b": [1]}, r"1\.parquet has no column 'b'"),
}


@pytest.mark.parametrize(("first", "second", "expected"), FILES.values(), ids=FILES)
def test_parquet__files_that_differ__as_one_or_refused(first, second, expected, tmp_path):
    for name, columns in (("1.parquet", first), ("2.parquet", second)):
        pq.write_table(pa.table(columns), tmp_path / name)
    if isinstance(expected, list):
        assert read(tmp_path) == (["a"], expected)
        return
    for use in (lambda table: list(table.numbers()), lambda table: list(table.batches())):
        with pytest.raises(ValueError, match=expected):
            use(open_table(tmp_path))
    if "b" in second or "b" in first:
        assert read(tmp_path, drop=["b"])[1] == [[1], [2]]


def test_parquet__a_name_twice__refused_in_our_words(tmp_path):
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2])], ["a", "a"])
    pq.write_table(table, tmp_path / "x.parquet")
    for opened in (open_table, sources.parquet):
        with pytest.raises(ValueError, match="the same name; rename one"):
            opened(tmp_path / "x.parquet")
