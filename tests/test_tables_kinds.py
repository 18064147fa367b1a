"""Tables as people have them: dialects, indexes of pandas, labels; one verdict for all readers."""

import gzip
import json
import warnings
from decimal import Decimal

import numpy as np
import pytest

from deepod import bench, datasets, sources
from deepod._inputs.tables import Dialect, open_table
from deepod.cli import main
from deepod.cli.tables import Reading, open_rows
from deepod.cli.wording import translate

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pd = pytest.importorskip("pandas")

PLAIN = "a,b,label\n1.5,2,0\n-3.25,4,1\n0.5,6,0\n"
ROWS = [[1.5, 2], [-3.25, 4], [0.5, 6]]
COMMA = PLAIN.replace(",", ";").replace(".", ",")
WRITTEN = {
    "plain.csv": PLAIN.encode(),
    "upper.CSV": PLAIN.encode(),
    "packed.csv.gz": gzip.compress(PLAIN.encode()),
    "semicolon.csv": PLAIN.replace(",", ";").encode(),
    "comma.csv": COMMA.encode(),
    "tab.csv": PLAIN.replace(",", "\t").encode(),
    "bar.csv": PLAIN.replace(",", "|").encode(),
    "utf16.csv": PLAIN.encode("utf-16"),
    "blank.csv": PLAIN.replace("label", '" label"').encode(),
}


@pytest.mark.parametrize(("name", "contents"), WRITTEN.items(), ids=WRITTEN)
def test_csv__any_dialect__the_same_rows_for_all_readers(name, contents, tmp_path):
    path = tmp_path / name
    path.write_bytes(contents)
    rows, names = open_rows(path, tmp_path, Reading(drop=["label"]))
    found = [datasets.load_table(path), bench.find_data([path])[0].load()]
    for values in (rows, *(table.data for table in found)):
        np.testing.assert_array_equal(values, ROWS)
    assert names == ["a", "b"]
    assert all(table.target.tolist() == [0, 1, 0] for table in found)
    assert found[0].name == name.partition(".")[0]


@pytest.mark.parametrize(
    ("contents", "said", "way"),
    [
        (
            b"a,b;c\n1,2;3\n4,5;6\n",
            "separator of cells may be ',' or ';'",
            {"sep": ";", "decimal": ","},
        ),
        (b"a;b\n1,234;5\n2,345;6\n", "comma in '1,234'", {"decimal": ","}),
        ("größe,b\n1,2\n".encode("latin-1"), "not in UTF-8", {"encoding": "latin-1"}),
    ],
)
def test_csv__dialect_is_a_guess__refused_and_the_option_helps(contents, said, way, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(contents)
    with pytest.raises(ValueError, match=said) as caught:
        open_table(path)
    message = translate(str(caught.value), "fit")
    assert any(f"--{name} " in message for name in way)
    assert sum(map(len, open_table(path, dialect=Dialect(**way)).numbers())) > 0


def test_csv__folder__one_table_of_one_header(tmp_path):
    folder = tmp_path / "cards.csv"
    folder.mkdir()
    (folder / "1.csv").write_text(PLAIN)
    (folder / "2.csv").write_text(COMMA)
    for table in (datasets.load_table(folder), bench.find_data([folder])[0].load()):
        np.testing.assert_array_equal(table.data, ROWS * 2)
    (folder / "2.csv").write_text("a,c,label\n1,2,0\n")
    with pytest.raises(
        ValueError, match=r"2\.csv has the columns a, c, label, but 1\.csv has a, b"
    ):
        datasets.load_table(folder)


@pytest.mark.parametrize(("header", "ok"), [("0,1,2", True), ("1,2,3", False), ("0,1", False)])
def test_csv__numbers_for_names__only_as_pandas_counts_columns(header, ok, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(f"{header}\n{','.join('5' * len(header.split(',')))}\n")
    if ok:
        assert open_table(path).names == header.split(",")
    else:
        with pytest.raises(ValueError, match="add a line of names above it"):
            open_table(path)


def test_kinds__by_all_rows_and_keys_as_written(tmp_path):
    path = tmp_path / "x.csv"
    lines = ["n,flag,day,late,id,none", *["1,True,2024-01-15,2,0012345,"] * 99]
    path.write_text("\n".join([*lines, ",,2024-01-16T10:00:00,x,12345678901234567890,"]))
    table = open_table(path, as_text=["id"])
    kinds = ["number", "boolean", "time", "text", "text", "number"]
    assert list(table.kinds.values()) == kinds
    batch = pa.Table.from_batches(table.batches())
    types = [pa.float64(), pa.bool_(), pa.timestamp("us"), pa.string(), pa.string(), pa.float64()]
    assert batch.schema.types == types
    assert batch.column(4)[0].as_py() == "0012345"
    assert batch.column(4)[99].as_py() == "12345678901234567890"


INDEXES = {
    "range": pd.RangeIndex(3),
    "unnamed": pd.Index([7, 8, 9]),
    "named": pd.Index([7, 8, 9], name="key"),
    "several": pd.MultiIndex.from_tuples([(1, 2), (3, 4), (5, 6)], names=["p", None]),
}


@pytest.mark.parametrize("index", INDEXES.values(), ids=INDEXES)
@pytest.mark.parametrize("folder", [False, True])
def test_parquet__index_of_pandas__no_column(index, folder, tmp_path):
    path = tmp_path / "x.parquet"
    place = path / "part.parquet" if folder else path
    place.parent.mkdir(exist_ok=True)
    frame = pd.DataFrame(ROWS, columns=["a", "b"], index=index).assign(label=[0, 1, 0])
    frame.to_parquet(place)
    assert sources.parquet(path).feature_names == open_table(path).names == ["a", "b", "label"]
    np.testing.assert_array_equal(datasets.load_table(path).data, ROWS)


def test_parquet__decimals_dictionaries_and_partitions__read(tmp_path):
    table = pa.table(
        {
            "money": pa.array([Decimal("1.50"), None, Decimal("0.25")]),
            "code": pa.array([5, 6, 5]).dictionary_encode(),
            "year": [2023, 2024, 2024],
        }
    )
    pq.write_to_dataset(table, tmp_path / "x", partition_cols=["year"])
    expected = [[1.5, 5, 2023], [np.nan, 6, 2024], [0.25, 5, 2024]]
    source = sources.parquet(tmp_path / "x")
    np.testing.assert_array_equal(source.read(0, 3), expected)
    (numbers,) = open_table(tmp_path / "x").numbers()
    np.testing.assert_array_equal(numbers, expected)


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
@pytest.mark.parametrize("values", [["x", "y", "z"], pd.date_range("2024-01-01", periods=3)])
def test_table__text_or_time__refused_by_name_and_drop_helps(suffix, values, tmp_path, capsys):
    path = tmp_path / f"x{suffix}"
    frame = pd.DataFrame(ROWS, columns=["a", "b"]).assign(when=values, label=[0, 1, 0])
    frame.to_csv(path, index=False) if suffix == ".csv" else frame.to_parquet(path)
    with pytest.raises(ValueError, match=r"column 'when'.*drop=\["):
        datasets.load_table(path)
    as_numbers = ["--set", "categorical_features=None"]  # or it would be encoded
    assert main(["fit", str(path), "--out", str(tmp_path / "m"), *as_numbers]) == 1
    said = capsys.readouterr().err
    assert "column 'when'" in said
    assert "--drop when" in said
    assert datasets.load_table(path, drop=["when"]).feature_names == ["a", "b"]


def write_labels(path, labels):
    path.write_text("\n".join(["a,label", *(f"{i},{label}" for i, label in enumerate(labels))]))


@pytest.mark.parametrize("labels", [[-1, 1, 1, 1], [1, 2, 1, 1], [0, 1, 2, 1]])
def test_labels__meaning_is_a_guess__refused_until_said(labels, tmp_path):
    write_labels(tmp_path / "x.csv", labels)
    for load in (datasets.load_table, lambda path: bench.find_data([path])[0].load()):
        with pytest.raises(
            ValueError, match="is not clear which of them stand for anomalies; give anomaly="
        ):
            load(tmp_path / "x.csv")
    anomaly = labels[0]
    found = datasets.load_table(tmp_path / "x.csv", anomaly=[anomaly, labels[0]])
    assert found.target.tolist() == [int(label == anomaly) for label in labels]


def test_labels__several_names_and_normal__share_said(tmp_path):
    path = tmp_path / "x.csv"
    write_labels(path, ["fine", "a", "b", "fine", "fine"])
    for options in ({"anomaly": ["a", "b"]}, {"normal": "fine"}):
        found = datasets.load_table(path, **options)
        assert found.target.tolist() == [0, 1, 1, 0, 0]
        assert "2 of 5 rows are anomalies (40.0%)" in found.DESCR
        assert bench.find_data([path], **options)[0].load().target.sum() == 2
    write_labels(path, [1, 1, 1, 0])
    with pytest.warns(UserWarning, match=r"3 of 4 rows are anomalies \(75\.0%\)"):
        datasets.load_table(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert datasets.load_table(path, anomaly=0).target.sum() == 1


def test_bench__table_that_cannot_be_read__code_1_and_retried_when_mended(tmp_path, capsys):
    path, out = tmp_path / "x.csv", tmp_path / "r.jsonl"
    lines = [f"{i},{i % 7},{int(i % 10 == 0)}" for i in range(60)]
    path.write_text("\n".join(["a,b,label", *lines, "1,oops,0"]))
    command = ["bench", "--data", str(path), "--detectors", "pyod:ECOD", "--out", str(out)]
    command += ["--seeds", "1", "--quiet"]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "x could not be read" in said.err
    assert "--drop b" in said.out
    path.write_text("\n".join(["a,b,label", *lines]))
    assert main([*command, "--retry-errors"]) == 0
    *_, last = map(json.loads, out.read_text().splitlines())
    assert "error" not in last
    assert "unread" not in last


@pytest.mark.parametrize(
    ("message", "command", "expected"),
    [
        ("fit with missing='impute', or", "score", "fit with deepod fit --set missing=impute, or"),
        ("leave it out with columns=[...].", "fit", "leave it out with --columns a,b,c."),
        ("set calibration_fraction=0.2 or", "fit", "set --set calibration_fraction=0.2 or"),
        ("say it by anomaly=-1 if", "bench", "say it by --anomaly=-1 if"),
        (
            "filled: deepod fit --set missing=impute",
            "fit",
            "filled: deepod fit --set missing=impute",
        ),
    ],
)
def test_remedies__on_the_command_line__are_options(message, command, expected):
    assert translate(message, command) == expected
