"""Rows in memory as people have them: used, or refused in a sentence that says what to do."""

import datetime as dt
import decimal
import functools
import re

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

import deepod
from deepod._inputs.containers import as_rows
from deepod._inputs.frames import columns_of

from .cases import fast

pa = pytest.importorskip("pyarrow")
N = 20
X = np.random.default_rng(0).normal(size=(N, 3)).astype(np.float32)
WIDE = X[:, :2].astype(np.float64)
DAY = dt.datetime(2024, 1, 2, 3)


@functools.cache
def fitted(shape=(3,), **params):
    X = np.random.default_rng(0).normal(size=(N, *shape)).astype(np.float32)
    return fast("AutoEncoder", epochs=1, calibration_fraction=0.2, **params).fit(X)


def consumers():
    """Everything that is given rows, by name."""
    detector = fitted()
    ensemble = deepod.Consensus([deepod.Neighbors()], random_state=0).fit(X)
    adapter = deepod.SklearnOutlierAdapter(deepod.Neighbors()).fit(X)
    return {
        "fit": deepod.Neighbors().fit,
        "decision_function": detector.decision_function,
        "predict": detector.predict,
        "predict_proba": detector.predict_proba,
        "p_values": detector.p_values,
        "explain": detector.explain,
        "calibrate": fitted(random_state=1).calibrate,
        "score_batches": lambda X: next(detector.score_batches(iter([X]))),
        "ensemble's fit": deepod.Consensus([deepod.Neighbors()]).fit,
        "ensemble's decision_function": ensemble.decision_function,
        "ensemble's explain": ensemble.explain,
        "adapter's fit": deepod.SklearnOutlierAdapter(deepod.Neighbors()).fit,
        "adapter's predict": adapter.predict,
        "adapter's score_samples": adapter.score_samples,
    }


CONSUMERS = list(consumers())
every_consumer = pytest.mark.parametrize("consumer", CONSUMERS)


# --- columns of tables ----------------------------------------------------------------------------


def pandas_with(**columns):
    return pd.DataFrame({"a": WIDE[:, 0], "b": WIDE[:, 1], **columns})


def polars_with(**columns):
    pl = pytest.importorskip("polars")
    new = [pl.Series(name, values) for name, values in columns.items()]
    return pl.DataFrame({"a": WIDE[:, 0], "b": WIDE[:, 1]}).with_columns(new)


def arrow_with(**columns):
    return pa.table({"a": WIDE[:, 0], "b": WIDE[:, 1], **columns})


def array_with(**columns):
    return np.column_stack(
        [X[:, :2].astype(object), *(np.array(v, object) for v in columns.values())]
    )


def arrow_in_pandas(values):
    return pd.Series(values, dtype=pd.ArrowDtype(values.type))


DATES, TEXT = [DAY.date()] * N, ["x"] * N
ARROW_TIMES = {
    "date32": pa.array(DATES),
    "timestamp": pa.array([DAY] * N),
    "time64": pa.array([DAY.time()] * N),
    "duration": pa.array([dt.timedelta(1)] * N),
}
TIMES = {
    "pandas datetime64": lambda: pandas_with(c=pd.to_datetime(DATES)),
    "pandas time zone": lambda: pandas_with(c=pd.to_datetime(DATES).tz_localize("UTC")),
    "pandas timedelta64": lambda: pandas_with(c=pd.to_timedelta(range(N), unit="h")),
    "pandas Period": lambda: pandas_with(c=pd.period_range("2024-01", periods=N, freq="M")),
    "pandas date": lambda: pandas_with(c=DATES),
    "pandas date, gaps": lambda: pandas_with(c=pd.Series([*DATES[1:], None], dtype=object)),
    "pandas time": lambda: pandas_with(c=[DAY.time()] * N),
    "pandas Timestamp": lambda: pandas_with(c=pd.Series([pd.Timestamp(DAY)] * N, dtype=object)),
    "pandas timedelta": lambda: pandas_with(c=pd.Series([dt.timedelta(1)] * N, dtype=object)),
    "pandas Period objects": lambda: pandas_with(
        c=pd.Series([pd.Period("2024")] * N, dtype=object)
    ),
    "pandas NumPy objects": lambda: pandas_with(
        c=pd.Series([np.datetime64("2024-01-01", "ns")] * N, dtype=object)
    ),
    "array of dates": lambda: array_with(c=DATES),
    "array of NumPy objects": lambda: array_with(c=list(np.array(DATES, "M8[ns]"))),
    "array of durations": lambda: array_with(c=[np.timedelta64(1, "ns")] * N),
    "list of dates": lambda: array_with(c=DATES).tolist(),
    "polars Date": lambda: polars_with(c=DATES),
    "polars Datetime": lambda: polars_with(c=[DAY] * N),
    "polars Duration": lambda: polars_with(c=[dt.timedelta(1)] * N),
    "polars Time": lambda: polars_with(c=[DAY.time()] * N),
}
TIMES |= {f"arrow {k}": functools.partial(arrow_with, c=v) for k, v in ARROW_TIMES.items()}
TIMES |= {
    f"arrow {k} in pandas": lambda v=v: pandas_with(c=arrow_in_pandas(v))
    for k, v in ARROW_TIMES.items()
}
NO_NUMBERS = {
    "pandas text": (lambda: pandas_with(c=TEXT), "'x'.*OneHotEncoder"),
    "pandas text, gaps": (lambda: pandas_with(c=["x", np.nan] * 10), "'x'.*OneHotEncoder"),
    "pandas category": (lambda: pandas_with(c=pd.Categorical(TEXT)), "'x'.*OneHotEncoder"),
    "pandas lists": (lambda: pandas_with(c=[[1]] * N), r"\[1\].*one number"),
    "pandas bytes": (lambda: pandas_with(c=[b"x"] * N), "b'x'.*decode"),
    "pandas mixed": (lambda: pandas_with(c=[1, "x"] * 10), "'x'.*one number"),
    "pandas complex": (lambda: pandas_with(c=np.ones(N) * 1j), "1j.*real and imaginary"),
    "pandas interval": (lambda: pandas_with(c=pd.interval_range(0, N)), "interval"),
    "polars text": (lambda: polars_with(c=TEXT), "String.*'x'.*OneHotEncoder"),
    "polars list": (lambda: polars_with(c=[[1]] * N), "List.*one number"),
    "polars binary": (lambda: polars_with(c=[b"x"] * N), "Binary.*decode"),
    "polars struct": (lambda: polars_with(c=[{"q": 1}] * N), "Struct.*one number"),
    "arrow text": (lambda: arrow_with(c=pa.array(TEXT)), "string.*'x'.*OneHotEncoder"),
    "arrow dictionary": (
        lambda: arrow_with(c=pa.array(TEXT).dictionary_encode()),
        "dictionary.*'x'.*OneHotEncoder",
    ),
    "arrow list": (lambda: arrow_with(c=pa.array([[1]] * N)), r"list.*\[1\].*one number"),
    "arrow binary": (lambda: arrow_with(c=pa.array([b"x"] * N)), "binary.*decode"),
}
NUMBERS = {
    "pandas bool": lambda: pandas_with(c=[True, False] * 10),
    "pandas Int64": lambda: pandas_with(c=pd.array([1, 0] * 10, "Int64")),
    "pandas sparse": lambda: pandas_with(c=pd.arrays.SparseArray([1.0, 0.0] * 10)),
    "pandas decimal": lambda: pandas_with(c=[decimal.Decimal(1), decimal.Decimal(0)] * 10),
    "pandas objects": lambda: pandas_with(c=[1, 0] * 10).astype(object),
    "pandas categories of numbers": lambda: pandas_with(c=pd.Categorical([1, 0] * 10)),
    "pandas arrow": lambda: pandas_with(c=arrow_in_pandas(pa.array([1, 0] * 10))),
    "polars int": lambda: polars_with(c=[1, 0] * 10),
    "polars bool": lambda: polars_with(c=[True, False] * 10),
    "polars decimal": lambda: polars_with(c=[decimal.Decimal(1), decimal.Decimal(0)] * 10),
    "arrow bool": lambda: arrow_with(c=pa.array([True, False] * 10)),
    "arrow decimal": lambda: arrow_with(c=pa.array([decimal.Decimal(1), decimal.Decimal(0)] * 10)),
    "arrow dictionary": lambda: arrow_with(c=pa.array([1, 0] * 10).dictionary_encode()),
    "arrow batch": lambda: arrow_with(c=pa.array([1, 0] * 10)).to_batches()[0],
}


def refuse(given, match, methods=("fit", "decision_function", "explain")):
    for name in methods:
        with pytest.raises((ValueError, TypeError), match=match):
            consumers_once()[name](given)


@functools.cache
def consumers_once():
    return consumers()


@pytest.mark.parametrize("case", TIMES)
def test_times__any_table__refused_by_name(case):
    where = "column 2" if case.startswith(("array", "list")) else "column 'c'"
    refuse(TIMES[case](), rf"X holds times in {where} \(.*, first value .*\).*or drop")


@pytest.mark.parametrize("case", NO_NUMBERS)
def test_no_numbers__any_table__refused_by_name(case):
    make, match = NO_NUMBERS[case]
    given = make()
    refuse(given, match)
    refuse(given, r"column 'c' \(.*, first value .*or drop")


@every_consumer
@pytest.mark.parametrize("case", ["polars Date", "pandas NumPy objects", "arrow date32"])
def test_times__any_method__refused_by_name(consumer, case):
    refuse(TIMES[case](), "X holds times in column 'c'", [consumer])


@pytest.mark.parametrize("case", NUMBERS)
@pytest.mark.filterwarnings("error::UserWarning")
def test_numbers__any_table__as_the_array(case):
    table = NUMBERS[case]()
    array = np.column_stack([WIDE, [1.0, 0.0] * 10])
    detector = deepod.Neighbors().fit(table)
    assert detector.feature_names_in_.tolist() == ["a", "b", "c"]
    expected = deepod.Neighbors().fit(array)
    np.testing.assert_array_equal(detector.decision_scores_, expected.decision_scores_)
    np.testing.assert_array_equal(
        detector.decision_function(table), expected.decision_function(array)
    )
    np.testing.assert_array_equal(detector.explain(table), expected.explain(array))


def test_many_bad_columns__five_named_and_others_counted():
    frame = pd.DataFrame({f"c{i}": TEXT for i in range(9)})
    refuse(frame, "'c0' .*'c4' .* and 4 more; ")


@pytest.mark.parametrize("make", [pandas_with, polars_with, arrow_with])
def test_columns_of__name_type_and_kind(make):
    table = make(t=[DAY] * N, s=TEXT, f=[True, False] * 10)
    columns = columns_of(table)
    assert [c.name for c in columns] == ["a", "b", "t", "s", "f"]
    assert [c.kind for c in columns] == ["number", "number", "time", "text", "boolean"]
    assert [c.numeric for c in columns] == [True, True, False, False, True]
    assert columns_of(X) is None


@pytest.mark.parametrize(
    "series", [deepod.series.RidgeAR, deepod.series.WindowNeighbors], ids=lambda c: c.__name__
)
def test_series__times_among_objects__not_numbers_of_nanoseconds(series):
    times = np.array([[np.datetime64("2024-01-01", "ns"), 1.0]] * 50, dtype=object)
    with pytest.raises(ValueError, match="X holds times"):
        series().fit(times)
    with pytest.raises(ValueError, match="X holds times"):
        series().fit(times[:, :1])


# --- tensors and other containers -----------------------------------------------------------------


class Rows(Dataset):
    def __len__(self):
        return N

    def __getitem__(self, i):
        return torch.from_numpy(X[i]), 0


T = torch.from_numpy(X)
TENSORS = {
    "gradient": T.clone().requires_grad_(),
    "bfloat16": T.bfloat16(),
    "float16": T.half(),
    "transposed": T.T.contiguous().T,
    "list": list(T.clone().requires_grad_()),
}


@pytest.mark.parametrize("case", TENSORS)
def test_tensor__as_its_array(case):
    given = TENSORS[case]
    array = torch.stack(given).detach() if isinstance(given, list) else given.detach().float()
    detector, expected = deepod.Neighbors().fit(given), deepod.Neighbors().fit(array.numpy())
    np.testing.assert_array_equal(detector.decision_scores_, expected.decision_scores_)
    for name in ("decision_function", "explain", "predict"):
        found, right = (getattr(d, name)(x) for d, x in ((detector, given), (expected, array)))
        np.testing.assert_array_equal(found, right)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_tensor__on_the_gpu__as_its_array():
    np.testing.assert_array_equal(
        deepod.Neighbors(device="cpu").fit(T.cuda()).decision_scores_,
        deepod.Neighbors(device="cpu").fit(X).decision_scores_,
    )


# What is given, what the error says, and whether its remedy is an expression for the rows.
CONTAINERS = {
    "TensorDataset": (lambda: TensorDataset(T, T), "pass its rows, {}.$", "X.tensors[0]"),
    "DataLoader": (
        lambda: DataLoader(TensorDataset(T)),
        "pass its rows, {}. To score",
        "torch.cat([batch[0] for batch in X])",
    ),
    "Dataset": (Rows, "pass its rows, {}.$", "torch.stack([X[i][0] for i in range(len(X))])"),
    "sparse tensor": (lambda: T.to_sparse(), "pass {}.$", "X.to_dense()"),
    "dict": (lambda: dict(zip("abc", X.T, strict=True)), "pass {}.$", "pandas.DataFrame(X)"),
    "list of dicts": (
        lambda: pd.DataFrame(X, columns=list("abc")).to_dict("records"),
        "pass {}.$",
        "pandas.DataFrame(X)",
    ),
    "generator": (lambda: (row for row in X), "pass {} if it yields rows", "numpy.stack(list(X))"),
    "records": (
        lambda: pd.DataFrame(X, columns=list("abc")).to_records(index=False),
        "pass {}.$",
        "pandas.DataFrame(X)",
    ),
    "meta": (lambda: T.to("meta"), "no values", None),
    "None": (lambda: None, "X is None; pass an array", None),
    "path": (lambda: "x.csv", "X is the name 'x.csv', not the rows.*read_csv", None),
    "list of paths": (lambda: ["a.png", "b.png"], "list of str, such as 'a.png'", None),
    "windows of several lengths": (
        lambda: [X[:4], X[:5]],
        r"several shapes, \(4, 3\) at index 0 and \(5, 3\) at index 1.*deepod.series",
        None,
    ),
    "rows of several lengths": (lambda: [[1, 2], [3]], "several shapes", None),
    "text among numbers": (lambda: [[1, "x"]] * 3, "column 1 .*'x'.*OneHotEncoder", None),
    "object": (object, "X is an object of the class object, which holds no rows", None),
    "one column": (lambda: pd.Series(X[:, 0]), "pandas.DataFrame", None),
}


@pytest.mark.parametrize("case", CONTAINERS)
def test_container__refused_with_a_remedy_that_works(case):
    make, match, remedy = CONTAINERS[case]
    for name in ("fit", "decision_function", "explain", "ensemble's fit", "score_batches"):
        with pytest.raises((ValueError, TypeError)) as caught:
            consumers_once()[name](make())
        text = str(caught.value)
        if remedy is None:
            assert re.search(match, text), text
            continue
        before, _, after = match.partition("{}")
        assert before + remedy + after.rstrip("$") in text
    if remedy is not None:
        space = {"torch": torch, "numpy": np, "pandas": pd, "X": make()}
        found = deepod.Neighbors().fit(eval(remedy, space)).decision_scores_
        expected = deepod.Neighbors().fit(X).decision_scores_
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # Python's numbers are float64


def test_polars_lazy_frame__to_be_collected():
    refuse(polars_with(c=X[:, 2]).lazy(), r"X.collect\(\)")


def test_dask__computed():
    dask = pytest.importorskip("dask.dataframe")
    frame = pd.DataFrame(X, columns=list("abc"))
    found = deepod.Neighbors().fit(dask.from_pandas(frame, npartitions=2))
    assert found.feature_names_in_.tolist() == list("abc")
    expected = deepod.Neighbors().fit(X).decision_scores_
    np.testing.assert_array_equal(found.decision_scores_, expected)


def test_xarray__array_taken_and_dataset_refused():
    xarray = pytest.importorskip("xarray")
    found = deepod.Neighbors().fit(xarray.DataArray(X)).decision_scores_
    np.testing.assert_array_equal(found, deepod.Neighbors().fit(X).decision_scores_)
    refuse(xarray.Dataset({"a": ("n", X[:, 0])}), r"X.to_dataframe\(\)")


# --- shapes ---------------------------------------------------------------------------------------

PHOTOS = np.random.default_rng(0).integers(0, 256, (N, 12, 12, 3), dtype=np.uint8)
LAYOUTS = {
    "array": (PHOTOS, "numpy.moveaxis(X, -1, 1)"),
    "floats": (PHOTOS / 255, "numpy.moveaxis(X, -1, 1)"),
    "list": (list(PHOTOS), "numpy.moveaxis(X, -1, 1)"),
    "tensor": (torch.from_numpy(PHOTOS), "torch.moveaxis(X, -1, 1)"),
    "grey": (PHOTOS[..., 0], "X[:, None]"),
    "list of grey": (list(PHOTOS[..., 0]), "numpy.asarray(X)[:, None]"),
}


def mended(text, remedy, given):
    assert remedy in text
    return eval(remedy, {"torch": torch, "numpy": np, "X": given})


@pytest.mark.parametrize("case", LAYOUTS)
def test_layout_of_photos__refused_unless_input_shape_says_so(case):
    given, remedy = LAYOUTS[case]
    new = fast("AutoEncoder", epochs=1)
    with pytest.raises(ValueError, match=r"X has shape \(20, 12, 12.*set input_shape") as caught:
        new.fit(given)
    right = mended(str(caught.value), remedy, given)
    detector = new.fit(right)
    with pytest.raises(ValueError, match="X has shape") as caught:
        detector.decision_function(given)
    right = mended(str(caught.value), remedy, given)
    assert detector.decision_function(right).shape == (N,)
    shape = np.shape(given)[1:]
    assert fast("AutoEncoder", epochs=1, input_shape=shape).fit(given).input_shape_ == shape


def test_layout__lists_of_photos__refused_with_the_remedy():
    image = pytest.importorskip("PIL.Image")
    photos = [image.fromarray(photo) for photo in PHOTOS]
    for given, match in (
        (photos, r"numpy.moveaxis\(X, -1, 1\)"),
        ([photo.convert("P") for photo in photos], "palette.*convert"),
        ([photos[0], photos[1].resize((9, 9))], "photos of several shapes.*resize"),
        (photos[0], "X is a single photo"),
    ):
        with pytest.raises(ValueError, match=match):
            fast("AutoEncoder").fit(given)


@pytest.mark.parametrize("shape", [(4, 3), (6, 1), (3, 8, 8), (1, 8, 8)])
def test_one_sample__refused_with_the_expression_that_mends_it(shape):
    detector = fitted(shape)
    sample = np.zeros(shape, np.float32)
    forms = {"X[None]": sample}
    if shape[-1] == 1:
        forms["X[None, ..., None]"] = sample[:, 0]
    if shape[0] == 1:
        forms["X[None, None]"] = sample[0]
    if len(shape) == 3 and shape[0] == 3:
        forms["numpy.moveaxis(X, -1, 0)[None]"] = np.moveaxis(sample, 0, -1)
    forms[f"X.reshape{(1, *shape)}"] = sample.ravel()
    if shape[-1] == 1:
        del forms[f"X.reshape{(1, *shape)}"]  # the same values in the same shape
    for remedy, given in forms.items():
        for name in ("decision_function", "predict", "explain", "p_values"):
            with pytest.raises(ValueError, match="One") as caught:
                getattr(detector, name)(given)
            right = mended(str(caught.value), remedy, given)
            assert len(getattr(detector, name)(right)) == 1


def test_one_row__and_other_widths__both_numbers_named():
    with pytest.raises(ValueError, match=r"One sample\? X\[None\]\. Reshape your data"):
        fitted().decision_function(X[0])
    with pytest.raises(ValueError, match=r"X\[:, None\] if these are rows of one feature"):
        fast("AutoEncoder").fit(X[0])
    with pytest.raises(ValueError, match="X has 2 features, but AutoEncoder is expecting 3"):
        fitted().decision_function(X[:, :2])
    with pytest.raises(ValueError, match=r"shape \(20, 5, 3\).*expected \(n, 4, 3\)"):
        fitted((4, 3)).decision_function(np.zeros((N, 5, 3)))


def test_numbers_in_an_array__not_copied():
    assert as_rows(X) is X
