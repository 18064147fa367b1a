"""The validator of series: what is accepted, in which form values come back, what is refused."""

import warnings
from datetime import date
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from deepod import sources
from deepod._inputs.series import as_series, split_at_gaps
from deepod._inputs.validation import validate_rows

pd = pytest.importorskip("pandas")

rng = np.random.default_rng(0)
A = rng.normal(size=(10, 3))
HOURS = pd.date_range("2024-01-01", periods=10, freq="h")
FRAME = pd.DataFrame(A, columns=["a", "b", "c"])
TIMED = FRAME.set_axis(HOURS)
WHEN = FRAME.assign(when=HOURS)


@pytest.fixture(autouse=True)
def no_warnings():
    """Only gaps are warned of, and tests of them say so."""
    with warnings.catch_warnings(action="error"):
        yield


# --- forms ----------------------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(3, 9), min_size=1, max_size=5),
    form=st.sampled_from(["series", "list", "episodes"]),
    extra=st.sampled_from([(), (2,), (2, 3)]),
    flat=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_shaped__values_of_the_points__in_the_same_form(lengths, form, extra, flat):
    width = 1 if flat else 2
    if form == "series":
        lengths = lengths[:1]
    elif form == "episodes":
        lengths = [lengths[0]] * len(lengths)
    parts = [rng.normal(size=(length, width)) for length in lengths]
    X = {
        "series": lambda: parts[0][:, 0] if flat else parts[0],
        "list": lambda: [part[:, 0] for part in parts] if flat else parts,
        "episodes": lambda: np.stack(parts),
    }[form]()

    found = as_series(X)

    assert (found.form, found.lengths, len(found)) == (form, tuple(lengths), sum(lengths))
    np.testing.assert_array_equal(found.rows, np.concatenate(parts))
    np.testing.assert_array_equal(found.starts, [sum(lengths[:i]) for i in range(len(lengths))])
    values = rng.normal(size=(len(found), *extra))
    shaped = found.shaped(values)
    if form == "series":
        assert shaped.shape == (len(X), *extra)
    elif form == "list":
        assert [part.shape for part in shaped] == [(length, *extra) for length in lengths]
    else:
        assert shaped.shape == (len(X), lengths[0], *extra)
    back = np.concatenate(shaped) if form == "list" else shaped.reshape(len(found), *extra)
    np.testing.assert_array_equal(back, values)
    # The rows themselves come back as X.
    for one, other in zip(
        np.atleast_1d(X) if form != "list" else X, as_series(X).shaped(found.rows), strict=True
    ):
        np.testing.assert_array_equal(np.ravel(one), np.ravel(other))


ONE = {
    "list of numbers": A[:, 0].tolist(),
    "tuple of numbers": tuple(A[:, 0]),
    "(T,)": A[:, 0],
    "(T, 1)": A[:, :1],
    "tensor": torch.tensor(A[:, 0], requires_grad=True),
    "tensors": list(torch.tensor(A[:, 0])),
    "objects": A[:, 0].astype(object),
    "pandas Series": pd.Series(A[:, 0], name="a"),
    "timed pandas Series": TIMED["a"],
    "DataFrame": FRAME[["a"]],
    "its own column of time": WHEN[["a", "when"]],
    "has to_pandas": SimpleNamespace(to_pandas=lambda: FRAME["a"]),
}


@pytest.mark.parametrize("X", ONE.values(), ids=ONE)
def test_as_series__one_series_of_any_kind__the_same_rows(X):
    found = as_series(X, time="when" if X is ONE["its own column of time"] else None)
    assert (found.form, found.lengths) == ("series", (10,))
    np.testing.assert_array_equal(np.asarray(found.rows), A[:, :1])
    assert as_series(found) is found


def test_as_series__array__no_copy():
    for X in (A, A[:, 0], np.stack([A, A])):
        assert np.shares_memory(as_series(X).rows, X)


def test_as_series__values_missing__left_to_the_other_validator():
    masked = np.ma.masked_greater(A, 1.0)
    nullable = pd.Series([1, None, 3], dtype="Int64")
    for X, missing in (
        (masked, masked.mask),
        ([masked], masked.mask),
        ([1.0, None, np.inf], [[False], [True], [False]]),
        (nullable, [[False], [True], [False]]),
    ):
        np.testing.assert_array_equal(np.isnan(as_series(X).rows), missing)


def test_as_series__float16_and_bfloat16_tensors__numbers():
    for dtype in (torch.float16, torch.bfloat16):
        X = torch.arange(6).to(dtype)
        np.testing.assert_array_equal(as_series(X).rows[:, 0], np.arange(6))


def test_as_series__table_of_pyarrow__by_its_columns():
    pa = pytest.importorskip("pyarrow")
    found = as_series(pa.Table.from_pandas(WHEN), time="when")
    pd.testing.assert_frame_equal(found.rows, FRAME)
    assert found.index.tolist() == HOURS.tolist()


class Detector:
    input_shape = None
    missing = "error"
    memory_limit = 1e9
    fill_ = None

    def __sklearn_tags__(self):
        from deepod import AutoEncoder

        return AutoEncoder().__sklearn_tags__()


@pytest.mark.parametrize(
    "X", [WHEN, [WHEN, WHEN], TIMED.drop(columns="c"), [A, A], np.stack([A, A])]
)
def test_rows__of_any_form__what_validate_rows_takes(X):
    detector = Detector()
    named = X is WHEN or (isinstance(X, list) and X[0] is WHEN)
    rows = validate_rows(detector, as_series(X, time="when" if named else None).rows, reset=True)
    assert rows.shape[1] == detector.n_features_in_
    names = getattr(detector, "feature_names_in_", None)
    assert (names is not None) == isinstance(X[0] if isinstance(X, list) else X, pd.DataFrame)


# --- refusals -------------------------------------------------------------------------------------

REFUSED = {
    "wide": (rng.normal(size=(50, 101)), r"transpose it with X\.T"),
    "one row": (np.ones((1, 5)), r"shape \(1, 5\).*transpose it with X\.T"),
    "two rows": (np.ones((2, 3)), r"transpose it with X\.T"),
    "wide in a list": ([np.ones((200, 150)), np.ones((2, 150))], r"transpose it with X\[1\]\.T"),
    "4-D": (np.ones((2, 3, 4, 5)), r"X has 4 dimensions; expected \(T,\)"),
    "3-D in a list": ([np.ones((2, 3, 4))], r"X\[0\] has 3 dimensions"),
    "text": (np.array(["a", "b"]), "X holds values that are not numbers"),
    "list of text": (["a", "b"], "X holds values that are not numbers"),
    "number and text": ([1, "b"], "X holds values that are not numbers"),
    "text alone": ("abc", "X holds values that are not numbers"),
    "dict": ({"a": 1}, "X holds values that are not numbers"),
    "array of arrays": (np.array([np.ones(2), np.ones(3)], dtype=object), "as a list of arrays"),
    "text in a list": ([A, np.array([["a", "b", "c"]])], r"X\[1\] holds values that are not"),
    "text in a Series": (pd.Series(["a", "b"]), "X holds values that are not numbers"),
    "text in a frame": (FRAME.assign(c="x"), r"column 'c' of X .*X\.drop\(columns='c'\)"),
    "complex": (A + 1j, "complex numbers; give their real and imaginary parts"),
    "times": (HOURS.to_numpy(), "X holds times instead of values"),
    "number": (3.0, "X is a single number"),
    "empty": (np.ones((0, 2)), "X has no points"),
    "no channels": (np.ones((5, 0)), "X has no channels"),
    "empty list": ([], "X is an empty list"),
    "empty in a list": ([A, A[:0]], r"X\[1\] has no points, .* leave it out of the list"),
    "empty frame": (FRAME[:0], "X has no points"),
    "empty episodes": (np.ones((3, 0, 2)), "give episodes of at least one point"),
    "list of lists": ([[1, 2], [3, 4]], r"numpy\.asarray\(X\) for one"),
    "numbers and lists": ([1, [2, 3]], "X is a list of lists"),
    "numbers and series": ([1, A], "both numbers and series"),
    "other channels": ([A, A[:, :2]], r"X\[1\] has 2 channels, but X\[0\] has 3"),
    "other columns": ([FRAME, FRAME[["b", "a", "c"]]], r"X\[1\] has the columns \['b', 'a', 'c'\]"),
    "frame and array": ([FRAME, A], r"X\[1\] has 3 channels, but X\[0\] has the columns"),
    "sparse": (csr_array(np.eye(5)), r"sparse data is not supported.* X\.toarray\(\)"),
    "source": (sources.array(A), r"X\.read\(0, len\(X\)\)"),
    "time among columns": (WHEN, r"column 'when' of X holds times; .*X\.set_index\('when'\)"),
    "dates among columns": (FRAME.assign(d=[date(2024, 1, 1)] * 10), "column 'd' of X holds times"),
    "durations": (FRAME.assign(d=HOURS - HOURS[0]), "column 'd' of X holds times"),
    "time among columns, in a list": ([FRAME, WHEN], r"column 'when' of X\[1\] holds times"),
    "two times": (WHEN.set_axis(HOURS), "column 'when' of X holds times"),
}


@pytest.mark.parametrize(("X", "said"), REFUSED.values(), ids=REFUSED)
def test_as_series__bad_input__refused_by_name_with_a_remedy(X, said):
    with pytest.raises(ValueError, match=said):
        as_series(X)


def test_as_series__objects_that_no_number_can_be_made_of__type_error():
    X = A.astype(object)
    X[0, 0] = {"foo": "bar"}
    with pytest.raises(TypeError, match=r"X holds values that are no numbers: .*not 'dict'"):
        as_series(X)


def test_as_series__another_argument__named():
    with pytest.raises(ValueError, match=r"context has no points"):
        as_series(A[:0], name="context")
    with pytest.raises(ValueError, match=r"transpose it with context\.T"):
        as_series(A[:1], name="context")


def test_as_series__remedies__work():
    wide = rng.normal(size=(2, 30))
    assert as_series(wide.T).lengths == (30,)
    assert as_series(pd.DataFrame(wide)).lengths == (2,)
    assert as_series(WHEN.set_index("when")).index is not None
    assert as_series(WHEN.drop(columns="when")).lengths == (10,)
    text = WHEN.astype({"when": str})
    with pytest.raises(ValueError, match="If it holds the times: ") as caught:
        as_series(text)
    remedy = str(caught.value).partition("If it holds the times: ")[2].rstrip(".")
    timed = eval(remedy, {"X": text, "pandas": pd})
    assert as_series(timed).index.tolist() == HOURS.tolist()


def test_as_series__few_points_of_as_many_channels_as_known__accepted():
    assert as_series(A[:1], channels=3).lengths == (1,)
    assert as_series([A[:2], A], channels=3).lengths == (2, 10)
    with pytest.raises(ValueError, match="transpose"):
        as_series(A[:1], channels=4)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "X",
    [
        TIMED,
        TIMED["a"],
        TIMED.tz_localize("UTC"),
        TIMED.to_period("h"),
        FRAME.set_axis(HOURS - HOURS[0]),
        FRAME.set_axis(HOURS.to_pydatetime()),
    ],
    ids=["DatetimeIndex", "Series", "zone", "periods", "durations", "datetime"],
)
def test_index__of_times__kept_and_checked(X):
    assert as_series(X).index.tolist() == X.index.tolist()
    with pytest.raises(ValueError, match=r"not in the order of time: row 1 .*X\.sort_index\(\)"):
        as_series(X[::-1])
    assert as_series(X[::-1].sort_index()).index.tolist() == X.index.tolist()
    twice = X.iloc[[0, 0, 1, 2, 2, 2]]
    with pytest.raises(
        ValueError, match=r"3 points at the same time as another, the first in row 1 "
    ):
        as_series(twice)
    assert as_series(twice[~twice.index.duplicated()]).lengths == (3,)
    with pytest.warns(UserWarning, match="X has 1 gap in time") as caught:
        as_series(X.drop(X.index[5]))
    assert len(caught) == 1


def test_index__no_times__not_looked_at():
    shuffled = FRAME[::-1]
    assert as_series(shuffled).index is None
    assert as_series(FRAME.set_axis(list("jihgfedcba"))).index is None


def test_index__time_missing__refused():
    X = TIMED.set_axis([*HOURS[:3], pd.NaT, *HOURS[4:]])
    with pytest.raises(ValueError, match=r"1 points without a time, the first in row 3"):
        as_series(X)
    with pytest.warns(UserWarning, match="gap"):
        as_series(X[X.index.notna()])


COLUMNS = {
    "times": HOURS,
    "text": HOURS.astype(str),
    "text, some with fractions": [*HOURS.astype(str)[:9], "2024-01-01 09:00:00.0"],
    "text with offsets": [f"2024-01-01T{hour + 2:02}:00:00+02:00" for hour in range(10)],
    "text with changing offsets": [
        f"2024-01-01T{hour + hour % 2:02}:00:00+0{hour % 2}:00" for hour in range(10)
    ],
    "text of another form": HOURS.strftime("%m/%d/%Y %H:%M"),
    "datetime": list(HOURS.to_pydatetime()),
    "periods": HOURS.to_period("h"),
    "seconds": np.arange(10) * 3600.0,
    "unsigned": np.arange(10, dtype=np.uint32),
}


@pytest.mark.parametrize("times", COLUMNS.values(), ids=COLUMNS)
def test_time__names_a_column__taken_out_and_checked(times):
    X = FRAME.assign(when=times)
    found = as_series(X, time="when")
    pd.testing.assert_frame_equal(found.rows, FRAME)
    assert found.index.is_monotonic_increasing
    if found.index.dtype.kind == "M":
        assert found.index.tolist() == HOURS.tolist()
    with pytest.raises(ValueError, match=r"row 1 .*: X\.sort_values\('when'") as caught:
        as_series(X[::-1], time="when")
    remedy = str(caught.value).partition("by time: ")[2].rstrip(".")
    ordered = eval(remedy, {"X": X[::-1], "pandas": pd})
    assert as_series(ordered, time="when").lengths == (10,)
    twice = X.iloc[[0, 1, 1, 2]]
    with pytest.raises(ValueError, match=r"X\.drop_duplicates\('when'\)"):
        as_series(twice, time="when")
    assert as_series(twice.drop_duplicates("when"), time="when").lengths == (3,)
    with pytest.warns(UserWarning, match="1 gap in time"):
        as_series(X.drop(index=4), time="when")


def test_time__names_the_index__used():
    X = TIMED.rename_axis("when")
    assert as_series(X, time="when").index.tolist() == HOURS.tolist()
    with pytest.raises(ValueError, match=r"sort_index"):
        as_series(X[::-1], time="when")
    text = X.set_axis(X.index.strftime("%m/%d/%Y %H:%M").rename("when"))
    assert as_series(text, time="when").index.tolist() == HOURS.tolist()
    with pytest.raises(ValueError, match=r"sort_index") as caught:
        as_series(text[::-1], time="when")
    remedy = str(caught.value).partition("by time: ")[2].rstrip(".")
    assert as_series(eval(remedy, {"X": text[::-1], "pandas": pd}), time="when").lengths == (10,)


def test_time__list_of_frames__each_its_own():
    found = as_series([WHEN, WHEN[:4]], time="when")
    assert (found.lengths, found.index, list(found.rows)) == ((10, 4), None, ["a", "b", "c"])
    with pytest.raises(ValueError, match=r"X\[1\] is not in the order of time"):
        as_series([WHEN, WHEN[::-1]], time="when")


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (FRAME, r"time='when': X has 0 columns of that name.* 'a', 'b', 'c'"),
        (pd.concat([WHEN, WHEN[["when"]]], axis=1), "X has 2 columns of that name"),
        (FRAME["a"], "its columns are none"),
        (A, "'when': X has no column of this name"),
        ([A], r"'when': X\[0\] has no column of this name"),
        (np.stack([A, A]), "'when': X is an array, which has no column of this name"),
        (WHEN[["when"]], "X has no channels"),
        (FRAME.assign(when=["2024-01-01"] * 9 + ["soon"]), r"column 'when' .* 'soon' in row 9"),
        (WHEN.assign(when=[pd.NaT, *HOURS[1:]]), r"X\.dropna\(subset=\['when'\]\)"),
        (FRAME.assign(when=["", *HOURS.astype(str)[1:]]), "1 points without a time"),
        (FRAME.assign(when=[True] * 10), "column 'when' of X holds times that cannot be read"),
    ],
)
def test_time__bad_column__refused(X, said):
    with pytest.raises(ValueError, match=said):
        as_series(X, time="when")


def test_gaps__said_once_with_number_size_and_place():
    X = TIMED.drop(TIMED.index[[2, 5, 6]])
    with pytest.warns(UserWarning, match="gaps") as caught:
        as_series(X)
    (said,) = [str(warning.message) for warning in caught]
    assert "X has 2 gaps in time" in said
    assert "0 days 03:00:00 after 2024-01-01 04:00:00" in said
    assert "windows run across them" in said
    with pytest.warns(UserWarning, match="gaps") as caught:
        as_series([TIMED.drop(TIMED.index[2]), X])
    (said,) = [str(warning.message) for warning in caught]
    assert "X has 3 gaps in time" in said
    assert "the largest of X[1] 0 days 03:00:00" in said


def test_gaps__steps_that_vary_a_little_or_months__none_said():
    as_series(FRAME.set_axis(pd.date_range("2024-01-31", periods=10, freq="ME")))
    jitter = pd.to_timedelta(np.arange(10) * 60 + rng.uniform(-10, 10, size=10), unit="s")
    as_series(FRAME.set_axis(HOURS[0] + jitter))
    as_series(TIMED[:1])
    as_series(TIMED[::5])


# At most nine: of more steps than half, a long one would be the usual one.
@given(lost=st.sets(st.integers(1, 28), max_size=9))
@settings(max_examples=40, deadline=None)
def test_split_at_gaps__parts_without_gaps__all_rows_in_order(lost):
    hours = pd.date_range("2024-01-01", periods=30, freq="h")
    X = pd.DataFrame({"a": np.arange(30.0), "when": hours}).drop(index=sorted(lost))
    indexed = X.set_index("when")["a"]
    with warnings.catch_warnings(action="ignore"):
        parts = split_at_gaps(X, time="when")
        others = split_at_gaps(indexed)
    pd.testing.assert_frame_equal(pd.concat(parts), X)
    pd.testing.assert_series_equal(pd.concat(others), indexed)
    starts = sum(1 for i in range(1, 30) if i not in lost and i - 1 in lost)
    assert len(parts) == len(others) == 1 + starts
    for part in parts:
        assert (part["when"].diff()[1:] == pd.Timedelta("1h")).all()
    assert len(as_series(parts, time="when")) == len(X)


def test_split_at_gaps__no_times__refused():
    for X in (A, FRAME):
        with pytest.raises(ValueError, match="X has no times in which to find gaps"):
            split_at_gaps(X)
