"""Datasets: found where they are said to be, and else a word on where to get them."""

import io
import urllib.request

import numpy as np
import pytest

from deepod import datasets


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPOD_DATA", str(tmp_path))
    (tmp_path / "tabular").mkdir()
    return tmp_path


def archive(X, y):
    contents = io.BytesIO()
    np.savez_compressed(contents, X=X, y=y)
    return contents.getvalue()


@pytest.fixture
def served(monkeypatch):
    """What a download gets, and what it asked for."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(20, 3)), (np.arange(20) < 2).astype(int)
    asked, contents = [], {"": archive(X, y)}

    def urlopen(url, timeout):
        asked.append(url)
        return io.BytesIO(contents[""])

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    known = (20, 3, 2, datasets.checksum(X, y))
    monkeypatch.setitem(datasets.ADBENCH_TABLES, "99_made", known)
    return asked, contents, X, y


# --- ADBench --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["made", "99_made"])
def test_adbench__there__read(name, home, served):
    asked, contents, X, y = served
    (home / "tabular" / "99_made.npz").write_bytes(contents[""])
    bunch = datasets.load_adbench(name)
    np.testing.assert_array_equal(bunch.data, X.astype(np.float32))
    np.testing.assert_array_equal(bunch.target, y)
    assert (bunch.name, bunch.feature_names) == ("99_made", ["0", "1", "2"])
    assert bunch.target_names.tolist() == ["normal", "anomaly"]
    data, target = datasets.load_adbench(name, data_home=home, return_X_y=True)
    np.testing.assert_array_equal(data, bunch.data)
    np.testing.assert_array_equal(target, bunch.target)
    assert not asked


def test_adbench__absent__says_where_to_get_it_and_where_to_put_it_and_loads_nothing(home, served):
    with pytest.raises(FileNotFoundError) as caught:
        datasets.load_adbench("made")
    for word in (f"{datasets.ADBENCH_FILES}99_made.npz", str(home / "tabular"), "download=True"):
        assert word in str(caught.value)
    assert not served[0]


def test_adbench__download__checked_and_kept(home, served):
    asked, _, X, _ = served
    for _ in range(2):
        bunch = datasets.load_adbench("made", download=True)
        np.testing.assert_array_equal(bunch.data, X.astype(np.float32))
    assert asked == [f"{datasets.ADBENCH_FILES}99_made.npz"]
    assert [p.name for p in (home / "tabular").iterdir()] == ["99_made.npz"]


@pytest.mark.parametrize("what", ["another table", "no archive", "cut", "other labels"])
def test_adbench__download_is_not_the_file__refused_and_not_kept(what, home, served):
    _, contents, X, y = served
    contents[""] = {
        "another table": archive(X + 1e-3, y),
        "no archive": b"<html>not found</html>",
        "cut": contents[""][:-100],
        "other labels": archive(X, 1 - y),
    }[what]
    with pytest.raises(ValueError, match="no file was written"):
        datasets.load_adbench("made", download=True)
    assert not list((home / "tabular").iterdir())


def test_adbench__no_checksum_known__not_downloaded(home, served):
    with pytest.raises(FileNotFoundError, match="has no checksum of it"):
        datasets.load_adbench("magic.gamma", download=True)
    assert not served[0]


def test_adbench__two_files_of_a_name__asks_for_the_whole(home, served):
    for name in ("1_made", "2_made"):
        (home / "tabular" / f"{name}.npz").write_bytes(served[1][""])
    with pytest.raises(ValueError, match="1_made, 2_made"):
        datasets.load_adbench("made")


def test_adbench__files_at_hand__have_the_checksums(request):
    from benchmarks import adbench

    try:
        found = {d.name: d for d in adbench.find("all")}
    except FileNotFoundError as error:
        pytest.skip(f"datasets are absent: {error}")
    for name in ("6_cardio", "14_glass", "20_letter", "31_satimage-2"):
        bunch = found[name].load()
        n, d, anomalies, checksum = datasets.ADBENCH_TABLES[name]
        assert (*bunch.data.shape, bunch.target.sum()) == (n, d, anomalies)
        assert datasets.checksum(bunch.data, bunch.target) == checksum


def test_home__argument_before_environment_before_home(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPOD_DATA", "/somewhere")
    assert datasets.get_data_home(tmp_path) == tmp_path
    assert str(datasets.get_data_home()) == "/somewhere"
    monkeypatch.delenv("DEEPOD_DATA")
    assert datasets.get_data_home().name == "deepod_data"


# --- tables ---------------------------------------------------------------------------------------

CARDS = "amount,hour,kind\n9.5,12,fine\n20000,3,fraud\n7,9,fine\n"


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_table__labels_of_any_kind__names_of_columns(suffix, tmp_path):
    pandas = pytest.importorskip("pandas")
    path = tmp_path / f"cards{suffix}"
    table = pandas.read_csv(io.StringIO(CARDS))
    table.to_csv(path, index=False) if suffix == ".csv" else table.to_parquet(path)
    bunch = datasets.load_table(path, label="kind", anomaly="fraud")
    np.testing.assert_array_equal(bunch.data, [[9.5, 12], [20000, 3], [7, 9]])
    assert bunch.target.tolist() == [0, 1, 0]
    assert bunch.feature_names == ["amount", "hour"]
    assert (bunch.name, bunch.filename) == ("cards", str(path))


def test_table__missing_values_and_large_numbers__kept(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("a,time,label\n1,1700000000.25,0\n,1700000000.5,1\n")
    bunch = datasets.load_table(path)
    np.testing.assert_array_equal(bunch.data, [[1, 1700000000.25], [np.nan, 1700000000.5]])


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (CARDS, {}, "there is no column label='label'; the columns are amount, hour, kind"),
        (
            CARDS,
            {"label": "kind"},
            r"no row has the label 1 \(int\); the labels are 'fine', 'fraud'",
        ),
        (CARDS, {"label": "amount", "anomaly": 7}, "row 1, column 'kind': .* number, got 'fine'"),
        (",amount,label\n0,9.5,0\n1,2e4,1\n", {}, r"a column has no name.*to_csv\(index=False\)"),
        ("", {}, "the file is empty"),
    ],
)
def test_table__not_usable__says_what_to_do(text, options, words, tmp_path):
    path = tmp_path / "cards.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        datasets.load_table(path, **options)
    assert str(path) in str(caught.value)


def test_table__no_file_and_other_kinds__refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        datasets.load_table(tmp_path / "nowhere.csv")
    (tmp_path / "a.txt").write_text(CARDS)
    with pytest.raises(ValueError, match=r"\.csv, \.parquet or \.npz"):
        datasets.load_table(tmp_path / "a.txt")
    np.savez(tmp_path / "a.npz", X=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="lacks the array y"):
        datasets.load_table(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", X=np.zeros((3, 2, 2)), y=[0, 0, 1])
    with pytest.raises(ValueError, match=r"shape \(3, 2, 2\)"):
        datasets.load_table(tmp_path / "b.npz")
    (tmp_path / "c.npz").write_bytes((tmp_path / "b.npz").read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"c\.npz"):
        datasets.load_table(tmp_path / "c.npz")


def test_table__labels_with_gaps__refused(tmp_path):
    (tmp_path / "a.csv").write_text("a,label\n1,0\n2,\n3,1\n")
    np.savez(tmp_path / "a.npz", X=np.ones((3, 1)), y=[0, np.nan, 1])
    for name in ("a.csv", "a.npz"):
        with pytest.raises(ValueError, match="1 missing labels, the first in row 2"):
            datasets.load_table(tmp_path / name)


def test_table__nullable_integers__gaps_are_nan(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    table = pd.DataFrame({"a": pd.array([1, None, 3], dtype="Int64"), "label": [0, 0, 1]})
    table.to_parquet(tmp_path / "a.parquet")
    data = datasets.load_table(tmp_path / "a.parquet").data
    np.testing.assert_array_equal(data, np.array([[1], [np.nan], [3]]))


def test_table__not_utf8__said(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"a,label\n\xe9,1\n")
    with pytest.raises(ValueError, match="UTF-8"):
        datasets.load_table(tmp_path / "a.csv")


def test_table__pickles_inside__not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", X=np.array([[object()]], dtype=object), y=[1])
    with pytest.raises(ValueError, match="pickle"):
        datasets.load_table(tmp_path / "a.npz")


def test_table__columns_that_are_called_unnamed__read(tmp_path):
    (tmp_path / "a.csv").write_text("Unnamed: price,label\n1,0\n2,1\n")
    assert datasets.load_table(tmp_path / "a.csv").feature_names == ["Unnamed: price"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"X": np.ones((4, 2)), "y": [0, 1]}, "X has 4 rows and y has 2"),
        ({"X": np.ones((4, 2)), "y": 1}, "X has 4 rows and y has 1"),
        ({"X": np.ones((0, 2)), "y": []}, "X has 0 rows and y has 0"),
    ],
)
def test_table__rows_and_labels_do_not_match__said(arrays, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=words):
        datasets.load_table(tmp_path / "a.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04damaged"])
@pytest.mark.parametrize("load", [datasets.load_table, datasets.load_images, datasets.load_series])
def test_npz__damaged__file_named_and_no_word_of_pickles(content, load, tmp_path):
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.npz: this is not an \.npz file, or it is damaged"):
        load(str(path))


# --- time series ----------------------------------------------------------------------------------


SERIES = {"train": np.zeros((5, 2)), "test": np.ones((4, 2), np.int16), "test_labels": [0, 1, 1, 0]}


def test_series__parts_in_their_order_and_the_folder_in_the_name(tmp_path):
    (tmp_path / "pumps").mkdir()
    path = tmp_path / "pumps" / "a-1.npz"
    train, test = np.arange(10.0).reshape(5, 2), np.arange(8).reshape(4, 2)
    np.savez(path, **SERIES | {"train": train, "test": test, "train_labels": [7]})
    bunch = datasets.load_series(path)
    np.testing.assert_array_equal(bunch.data, train)
    np.testing.assert_array_equal(bunch.test, test)
    assert bunch.data.dtype == bunch.test.dtype == np.float32
    assert bunch.test_target.tolist() == [0, 1, 1, 0]
    assert bunch.name == "pumps/a-1"
    with pytest.raises(FileNotFoundError, match=r"none\.npz"):
        datasets.load_series(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (
            {"train": None, "test_labels": None},
            "the file lacks the array test_labels and the array train",
        ),
        ({"train": np.zeros(5)}, r"train must be an array of numbers.*got shape \(5,\)"),
        ({"test": np.zeros((4, 2, 1))}, r"test must be an array of numbers.*got shape \(4, 2, 1\)"),
        ({"test": np.full((4, 2), "x")}, "test must be an array of numbers"),
        ({"train": np.zeros((0, 2))}, r"train must be .* shape \(0, 2\)"),
        ({"train": np.zeros((5, 3))}, "train has 3 channels and test has 2"),
        ({"test": [[0, 0], [0, 0], [0, np.nan], [np.inf, 0]]}, "2 values .* in row 3, column 2"),
        ({"test_labels": [0, 1, 1]}, r"for each of the 4 rows of test, got shape \(3,\)"),
        ({"test_labels": [0, 1, 1, -1]}, r"must be 0 or 1 .* with \[-1, 0, 1\]"),
        ({"test_labels": [[0], [1], [1], [0]]}, r"got shape \(4, 1\)"),
    ],
)
def test_series__not_such_a_file__refused(other, words, tmp_path):
    arrays = {name: value for name, value in (SERIES | other).items() if value is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz: .*{words}"):
        datasets.load_series(tmp_path / "a.npz")


# --- bundled sets and images ----------------------------------------------------------------------


@pytest.mark.parametrize("name", datasets.BUNDLED)
def test_bundled__one_class_is_the_anomaly(name):
    bunch = datasets.load_bundled(name)
    assert bunch.data.shape == (len(bunch.target), len(bunch.feature_names))
    assert 0 < bunch.target.mean() < 0.5
    X, y = datasets.load_bundled(name, anomaly=0, return_X_y=True)
    assert len(X) == len(y) == len(bunch.data)
    with pytest.raises(ValueError, match="anomaly must be one of"):
        datasets.load_bundled(name, anomaly=99)
    with pytest.raises(ValueError, match="breast_cancer"):
        datasets.load_bundled("boston")


def test_images__one_class_normal(home):
    (home / "images").mkdir()
    x = np.random.default_rng(0).integers(0, 255, (30, 8, 8, 3), np.uint8)
    arrays = {"x_train": x, "x_test": x[:10], "y_train": np.arange(30) % 3, "y_test": np.arange(10)}
    np.savez(home / "images" / "dots.npz", **arrays)
    bunch = datasets.load_images("dots", normal=1)
    np.testing.assert_array_equal(bunch.data, np.moveaxis(x[1::3], -1, 1))
    assert bunch.test_target.tolist() == [1, 0, *[1] * 8]
    raw = datasets.load_images("dots")
    assert raw.target.tolist() == arrays["y_train"].tolist()
    assert raw.test.shape == (10, 3, 8, 8)
    with pytest.raises(ValueError, match=r"normal must be one of \[0, 1, 2\]"):
        datasets.load_images("dots", normal=5)
    with pytest.raises(FileNotFoundError, match="DEEPOD_DATA"):
        datasets.load_images("faces")
    np.savez(home / "images" / "half.npz", x_train=x)
    with pytest.raises(ValueError, match=r"half\.npz: .*y_train"):
        datasets.load_images("half")
