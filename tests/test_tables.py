"""The reader of tables: one file, one verdict, whoever reads it."""

import re
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepod import bench, datasets
from deepod._inputs import tables
from deepod.cli import main
from deepod.cli.tables import Reading, open_rows
from deepod.cli.wording import translate

BAD = {
    "comma at the end": (
        b"label,weekend,amount\n1,0,3.2,\n0,1,2.5,\n",
        "row 1 has 4 values, .* 3 columns",
    ),
    "one row longer": (b"a,b,label\n1,2,0\n1,2,1,4\n", "row 2 has 4 values, .* 3 columns"),
    "one row shorter": (b"a,b,label\n1,2,0\n\n1,2\n", "row 2 has 2 values, .* 3 columns"),
    "longer, with quotes": (b'a,b,label\n1,2,0\n"1",2,1,4\n', "row 2 has 4 values, .* 3 columns"),
    "names longer": (b"a,b,c,label\n1,2,1\n", "row 1 has 3 values, .* 4 columns"),
    "row numbers of R": (b'"a","b","label"\n"1",5,6,1\n', "row 1 has 4 values, .* 3 columns"),
    "no name": (b",a,label\n0,5,0\n1,5,1\n", "a column has no name"),
    "no name at the end": (b"a,b,label,\n1,2,0,\n1,2,1,\n", "a column has no name"),
    "a name twice": (b"a,b,a,label\n1,2,3,0\n1,2,3,1\n", "2 columns have the name 'a'"),
    "twice but for blanks": (b'a,label," a"\n1,1,2\n', "2 columns have the name 'a'"),
    "text": (b"a,b,label\n1,2,0\n1,x,1\n", "row 2, column 'b': expected a number, got 'x'"),
    "text in quotes": (b'a,b,label\n1,"x, y",0\n', "row 1, column 'b': .* got 'x, y'"),
    "NA": (b"a,b,label\n1,NA,0\n1,2,1\n", "row 1, column 'b': .* got 'NA'"),
    "None": (b"a,b,label\n1,None,0\n1,2,1\n", "row 1, column 'b': .* got 'None'"),
    "month": (b"a,b,label\n1,2021_03,0\n1,2021_04,1\n", "row 1, column 'b': .* got '2021_03'"),
    "comma for point": (b'a,b,label\n1,"2,5",0\n', "row 1, column 'b': .* got '2,5'"),
    "quote without its other": (
        b'a,b,label\n1,2,0\n1,"2,1\n3,4,0\n',
        "row 2: the file ends within quotes",
    ),
    "quote in the last column": (b'a,b,label\n1,2,0\n1,2,"0\n', "the file ends within quotes"),
    "quote that takes all rows": (b'a,label,b\n1,0,"2\n2,1,3\n', "the file ends within quotes"),
    "letters behind a quote": (b'a,b,label\n1,"2"x,0\n', "row 1, column 'b': .* '2x'"),
    "quote among the names": (
        b'a,"b,label\n1,2,0\n',
        "the line of names cannot be read",
    ),
    "name not in UTF-8": ("größe,b,label\n1,2,0\n".encode("latin1"), "it is not in UTF-8"),
    "cell not in UTF-8": (b"a,b,label\n1,2,0\n\xe9,2,1\n", "it is not in UTF-8"),
    "UTF-16 without a mark": ("a,b,label\n1,2,0\n".encode("utf-16-le"), "it is not in UTF-8"),
    "empty": (b"", "the file is empty"),
    "blank lines": (b"\n \n", "the file is empty"),
    "names alone": (b"a,b,label\n", "there are no rows"),
    "no names": (b"1,2,0\n3,4,1\n", "the first line must hold the names of the columns"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model of columns without names, so that new rows are read whole."""
    folder = tmp_path_factory.mktemp("model")
    np.save(folder / "train.npy", np.random.default_rng(0).normal(size=(20, 3)))
    quick = ["--detector", "AutoEncoder", "--set", "epochs=1"]
    assert main(["fit", str(folder / "train.npy"), "--out", str(folder / "model"), *quick]) == 0
    return str(folder / "model")


@pytest.mark.parametrize(("contents", "said"), BAD.values(), ids=BAD)
def test_csv__bad_file__refused_by_all_readers_for_the_same_reason(
    contents, said, model, tmp_path, capsys
):
    path = tmp_path / "x.csv"
    path.write_bytes(contents)
    commands = {
        # Or text would be encoded.
        "fit": [
            *("fit", str(path), "--out", str(tmp_path / "m")),
            *("--set", "categorical_features=None"),
        ],
        "score": ["score", model, str(path), "--out", str(tmp_path / "s.npy")],
    }
    if find_spec("matplotlib"):
        commands["plot"] = ["plot", model, str(path), "--out", str(tmp_path / "p.png")]
    found = {}
    for name, command in commands.items():
        assert main(command) == 1
        found[name] = capsys.readouterr().err
    for name, load in {
        "load_table": lambda: datasets.load_table(path),
        "find_data": lambda: bench.find_data([path])[0].load(),
    }.items():
        with pytest.raises(ValueError, match=r"x\.csv: ") as caught:
            load()
        found[name] = str(caught.value)
    # In the words of one command.
    found = {key: translate(text, "score") for key, text in found.items()}
    found = {key: text.replace("deepod fit --", "--") for key, text in found.items()}
    reasons = {text.partition("x.csv: ")[2].strip() for text in found.values()}
    assert len(reasons) == 1, found
    assert re.match(said, reasons.pop()), found
    assert [p.name for p in tmp_path.iterdir()] == ["x.csv"]


ROWS = [[1.5, np.nan, 1], [-2e3, 0, 0], [np.nan, 7, 1]]
GOOD = {
    "plain": b"a,b c,flag,label\n1.5,,1,0\n-2e3,0,0,1\n,7,1,0\n",
    "quotes": b'"a","b c",flag,"label"\n"1.5","",1,0\n-2e3,0,"0",1\n"","7",1,"0"\n',
    "byte order mark": b"\xef\xbb\xbfa,b c,flag,label\n1.5,,1,0\n-2e3,0,0,1\n,7,1,0\n",
    "blanks": b" a , b c,flag ,label \n 1.5 , ,1, 0\n -2e3,0 ,0,1\n , 7,1,0\n",
    "ends of lines": b"a,b c,flag,label\r\n1.5,,1,0\r\n\r\n-2e3,0,0,1\r\n,7,1,0",
    "true and false": b"a,b c,flag,label\n1.5,,True,0\n-2e3,0,False,1\n,7,TRUE,0\n",
    "spelled NaN": b"a,b c,flag,label\n1.5,nan,1,0\n-2e3,0,0,1\nNaN,7,1,0\n",
}


@pytest.mark.parametrize("contents", GOOD.values(), ids=GOOD)
def test_csv__good_file__the_same_numbers_for_all_readers(contents, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(contents)
    rows, names = open_rows(path, tmp_path, Reading(drop=["label"]))
    table, found = datasets.load_table(path), bench.find_data([path])[0].load()
    for values in (rows, table.data, found.data):
        np.testing.assert_array_equal(values, ROWS)
    assert names == table.feature_names == found.feature_names == ["a", "b c", "flag"]
    assert table.target.tolist() == found.target.tolist() == [0, 1, 0]


@pytest.mark.parametrize("cells", [5, 9, 10**6])
def test_csv__cell_that_goes_on_in_the_next_line__one_cell(cells, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CELLS", cells)
    path = tmp_path / "x.csv"
    path.write_text('a,note,b\n1,"x\ny, z\n",2\n3,,4\n5,"\n""no""",6\n7,no,8\n')
    table = tables.open_table(path, as_text=["note"])
    np.testing.assert_array_equal(read(table, ["a", "b"]), [[1, 2], [3, 4], [5, 6], [7, 8]])
    assert table.values("note") == ["x\ny, z\n", None, '\n"no"', "no"]
    rows, _ = open_rows(path, tmp_path, Reading(drop=["note"]))
    np.testing.assert_array_equal(rows, [[1, 2], [3, 4], [5, 6], [7, 8]])


def test_csv__long_file__a_block_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CELLS", 30)
    path = tmp_path / "x.csv"
    path.write_text("a,b,c\n" + "1,2,3\n" * 20 + "1,,3\n" * 5)
    blocks = tables.open_table(path, columns=["c", "a"]).numbers()
    assert max(map(len, blocks)) == 10


def test_csv__bad_row_of_a_later_block__its_number_in_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_CELLS", 30)
    path = tmp_path / "x.csv"
    for row, said in (("1,2", "row 18 has 2 values"), ("1,x,3", "row 18, column 'b'")):
        path.write_text("a,b,c\n" + "1,2,3\n" * 17 + row + "\n1,2,3\n")
        with pytest.raises(ValueError, match=said):
            read(tables.open_table(path))


def read(table, names=None):
    return np.concatenate(list(table.numbers(names)))


def verdict(path):
    try:
        return read(tables.open_table(path)).tolist()
    except ValueError as error:
        return str(error)


SPELLED = ["", " ", "1", " 2.5 ", "-0", "+1e5", ".5", "1.", "1e400", "nan", "-NaN", "inf", "True"]
SPELLED += ["1_0", "0x10", "１", "\xa01", "1d5", "1 2", "NA", "1j", "None", "#1", "(1)", "false"]
CELLS = (
    st.sampled_from(SPELLED) | st.floats().map(repr) | st.text("0123456789.e-+ _\t٣nai", max_size=6)
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_csv__cells__as_one_by_one(tmp_path_factory, rows):
    """What Arrow takes for numbers is what the grammar does, with and without quotes."""
    folder = tmp_path_factory.getbasetemp()
    for name, cell in (("plain.csv", "{}"), ("quoted.csv", '"{}"')):
        lines = [",".join(map(cell.format, row)) for row in rows]
        (folder / name).write_text("\n".join(["a,b", *lines]), encoding="utf-8")
    plain, quoted = verdict(folder / "plain.csv"), verdict(folder / "quoted.csv")
    assert repr(plain) == repr(quoted)
    try:
        expected = [[tables.number(cell) for cell in row] for row in rows]
    except ValueError:
        assert "expected a number" in plain
    else:
        np.testing.assert_array_equal(plain, expected)


@pytest.mark.parametrize("name", ["x.csv", "x.parquet"])
def test_table__without_pyarrow__says_what_to_install(name, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / name
    path.write_bytes(GOOD["plain"])
    with pytest.raises(ImportError, match=r'x\.\w+ needs .*pip install "deepod\[data\]"'):
        datasets.load_table(path)


@pytest.mark.parametrize(
    ("labels", "anomaly", "target"),
    [
        (["fine", "None", "NA", "None"], "None", [0, 1, 0, 1]),
        (["NA", "nan", "1", "NaN"], "nan", [0, 1, 0, 0]),
        (["0", "1", "2", "1"], 1, [0, 1, 0, 1]),
        (["0.0", "1.0", " 1", "-1"], 1, [0, 1, 1, 0]),
        (["False", "True", "False", "True"], 1, [0, 1, 0, 1]),
        (["false", "true", "false", "true"], True, [0, 1, 0, 1]),
        (["ok", "fraud, late", " fraud", "ok"], "fraud, late", [0, 1, 0, 0]),
    ],
)
def test_table__labels__numbers_if_all_are_and_else_text(labels, anomaly, target, tmp_path):
    lines = [f'{i},"{label}"' for i, label in enumerate(labels)]
    (tmp_path / "x.csv").write_text("\n".join(["a, label", *lines]))
    table = datasets.load_table(tmp_path / "x.csv", anomaly=anomaly)
    assert table.target.tolist() == target


@pytest.mark.parametrize("gap", ["", " ", '""', "nan"])
def test_table__number_missing_among_labels__refused(gap, tmp_path):
    (tmp_path / "x.csv").write_text(f"a,label\n1,0\n2,{gap}\n3,1\n")
    with pytest.raises(ValueError, match="column 'label' has 1 missing labels, the first in row 2"):
        datasets.load_table(tmp_path / "x.csv")
