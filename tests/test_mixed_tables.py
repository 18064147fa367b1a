"""Tables of categories, times, numbers and gaps in one call."""

import json
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.preprocessing import OneHotEncoder

import deepod
from deepod import Consensus, SeedEnsemble

from .cases import REPRESENTATIVES, fast

MIXED = {
    "categorical_features": "from_dtype",
    "datetime_features": "from_dtype",
    "missing": "impute",
}
COLUMNS = ["id", "when", "amount", "kind", "abroad", "shop"]


def cards(n=400, seed=0):
    """Travel costs more than food; some cells are empty; every id is different."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(["food", "fuel", "travel"], n, p=[0.6, 0.3, 0.1])
    seconds = rng.integers(0, 400 * 86_400, n)
    frame = pd.DataFrame(
        {
            "id": [f"T{i:06d}" for i in rng.permutation(n)],
            "when": pd.Timestamp("2024-01-01") + pd.to_timedelta(seconds, unit="s"),
            "amount": np.where(kind == "travel", 800, 20) * rng.lognormal(0, 0.3, n),
            "kind": pd.Categorical(kind),
            "abroad": rng.random(n) < 0.1,
            "shop": rng.choice(["a", "b", None, "c"], n),
        }
    )
    frame.loc[::20, "amount"] = np.nan
    return frame


TRAIN, NEW = cards(), cards(60, seed=1)


def by_hand(frame):
    """The columns that come out, from the description in the docstring."""
    seconds = (frame["when"] - pd.Timestamp("1970-01-05")) / pd.Timedelta("1s")  # a Monday
    columns = []
    for length in (86_400, 7 * 86_400, 365.2425 * 86_400):
        angle = 2 * np.pi * seconds / length
        columns += [np.sin(angle), np.cos(angle)]
    columns.append(frame["amount"])
    columns += [frame["kind"] == kind for kind in ("food", "fuel", "travel")]
    columns += [~frame["abroad"], frame["abroad"]]
    columns += [frame["shop"].isna(), *(frame["shop"] == shop for shop in "abc")]
    return np.stack([np.asarray(column, float) for column in columns], axis=1)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_fit__mixed_table__scores_of_the_columns_encoded_by_hand(name):
    detector = fast(name, scaler="standard", **MIXED).fit(TRAIN)
    encoded = by_hand(TRAIN)
    np.testing.assert_allclose(detector.encoder_.transform(TRAIN), encoded, atol=1e-9)
    np.testing.assert_allclose(detector.fill_[6], np.nanmedian(encoded[:, 6]))
    filled = np.where(np.isnan(encoded), np.nanmedian(encoded, 0), encoded)
    shift, scale = filled.mean(0), filled.std(0)
    np.testing.assert_allclose(detector.shift_, shift, atol=1e-9)
    least = np.where(np.arange(len(scale)) == 6, 0, 0.2)
    np.testing.assert_allclose(detector.scale_, np.maximum(scale, least))
    assert detector.n_features_in_ == 6
    assert detector.feature_names_in_.tolist() == COLUMNS
    assert np.isfinite(detector.decision_function(NEW)).all()
    with pytest.warns(UserWarning, match="valid feature names"):
        array = detector.decision_function(NEW.to_numpy(dtype=object))
    np.testing.assert_array_equal(array, detector.decision_function(NEW))


def test_summary__says_what_became_of_each_column():
    frame = cards(1000)
    frame["shop"] = np.where(np.arange(1000) < 3, ["x", "y", "z"][0], frame["shop"])
    frame.loc[:2, "shop"] = ["x", "y", "z"]
    detector = fast("AutoEncoder", **MIXED).fit(frame)
    assert detector.encoder_.summary() == {
        "id": "left out: every value is different",
        "when": "time: time of day, day of week, day of year",
        "amount": "number",
        "kind": "category: 3 values",
        "abroad": "category: 2 values",
        "shop": "category: 4 values, and 3 rare ones as one",
    }


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_scores__new_and_rare_categories__new_is_zero_everywhere_rare_are_alike(name):
    frame = cards(1000)
    frame.loc[:3, "shop"] = ["x", "y", "z", "x"]
    detector = fast(name, **MIXED).fit(frame)
    x, y, new = (
        detector.encoder_.transform(NEW.assign(shop=shop))[:, -5:] for shop in ("x", "y", "Rom")
    )
    np.testing.assert_array_equal(x, y)
    assert (x.sum(1) == 1).all()
    assert (new == 0).all()
    scores = [detector.decision_function(NEW.assign(shop=shop)) for shop in ("x", "y")]
    np.testing.assert_array_equal(*scores)


def test_default_training__rare_combination__flagged_and_explained_by_its_columns():
    detector = deepod.Neighbors(**MIXED).fit(cards(2000))
    odd = NEW.assign(kind="food", amount=900.0)
    assert detector.predict(NEW).mean() < 0.3
    assert detector.predict(odd).mean() > 0.9
    reasons = detector.explain(odd)
    assert reasons.shape == odd.shape
    np.testing.assert_allclose(reasons.sum(1), detector.decision_function(odd), rtol=1e-5)
    assert reasons[:, 2:4].sum() > 0.5 * reasons.sum()
    assert (reasons[:, 0] == 0).all()  # left out


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_explain__gradients__one_value_for_each_column_of_the_frame(name):
    detector = fast(name, **MIXED).fit(TRAIN)
    assert detector.explain(NEW[:5]).shape == (5, 6)


def frames():
    pa = pytest.importorskip("pyarrow")
    yield "pyarrow", pa.Table.from_pandas
    yield "strings", lambda f: f.assign(when=f["when"].astype(str), kind=f["kind"].astype(str))
    yield "time zone", lambda f: f.assign(when=f["when"].dt.tz_localize("Europe/Berlin",
        nonexistent="shift_forward", ambiguous=True))  # fmt: skip


@pytest.mark.parametrize(("kind", "convert"), list(frames()), ids=lambda v: str(v)[:9])
def test_scores__same_rows_in_another_frame__same_scores(kind, convert):
    detector = fast("AutoEncoder", **MIXED).fit(TRAIN)
    new = NEW[~NEW["when"].dt.month.isin([3, 10])]  # no hour that a clock skips
    given = convert(new)
    np.testing.assert_array_equal(
        detector.decision_function(given), detector.decision_function(new)
    )


def test_fit__polars__as_pandas():
    pl = pytest.importorskip("polars")
    given = pl.DataFrame(
        {name: [None if v != v else v for v in TRAIN[name]] for name in COLUMNS[2:]}
    )
    expected = (
        fast("AutoEncoder", **MIXED).fit(TRAIN[COLUMNS[2:]]).decision_function(NEW[COLUMNS[2:]])
    )
    found = fast("AutoEncoder", **MIXED).fit(given)
    np.testing.assert_array_equal(found.decision_function(NEW[COLUMNS[2:]]), expected)


def test_fit__names_numbers_and_mask__the_same():
    frame = TRAIN[["amount", "kind", "shop"]]
    given = [["kind", "shop"], [1, 2], [False, True, True], np.array([False, True, True]), [-2, -1]]
    scores = [
        fast("AutoEncoder", missing="impute", categorical_features=c).fit(frame).decision_scores_
        for c in given
    ]
    for other in scores[1:]:
        np.testing.assert_array_equal(other, scores[0])


def test_fit__numbers_that_are_categories__of_an_array():
    X = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(float)
    detector = fast("AutoEncoder", categorical_features=[1]).fit(X)
    expected = OneHotEncoder(sparse_output=False).fit_transform(X[:, 1:])
    np.testing.assert_array_equal(detector.encoder_.transform(X), np.c_[X[:, :1], expected])
    assert detector.input_shape_ == (4,)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_save_and_pickle__encoder_comes_back(name, tmp_path):
    detector = fast(name, **MIXED).fit(TRAIN)
    scores = detector.decision_function(NEW)
    for path in ("model", "model.deepod"):
        detector.save(tmp_path / path)
        loaded = deepod.load(tmp_path / path)
        np.testing.assert_array_equal(loaded.decision_function(NEW), scores)
        np.testing.assert_array_equal(loaded.explain(NEW), detector.explain(NEW))
        assert loaded.encoder_.summary() == detector.encoder_.summary()
    pickled = pickle.loads(pickle.dumps(detector))
    np.testing.assert_array_equal(pickled.decision_function(NEW), scores)
    np.testing.assert_array_equal(clone(detector).fit(TRAIN).decision_function(NEW), scores)


def test_encoder__learned__is_plain_values_without_the_ids():
    detector = fast("AutoEncoder", **MIXED).fit(TRAIN)
    text = json.dumps(detector.columns_)
    assert json.loads(text) == detector.columns_
    assert "T000" not in text


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.pop(),
        lambda c: c.append({"name": "more", "kind": "number"}),
        lambda c: c[3]["frequent"].append("boat"),
        lambda c: c[3].update(kind="code"),
        lambda c: c[1]["periods"].append("century"),
        lambda c: c.clear(),
    ],
)
def test_load__columns_that_cannot_be__refused(damage, tmp_path):
    detector = fast("AutoEncoder", **MIXED).fit(TRAIN)
    path = tmp_path / "model.deepod"
    damage(detector.columns_)
    with pytest.raises(ValueError, match=r"could not be loaded again|columns_"):
        detector.save(path)
    assert not path.exists()


def test_ensembles__mixed_table__members_encode(tmp_path):
    consensus = Consensus(
        [fast("Neighbors"), fast("AutoEncoder")], member_params=MIXED, random_state=0
    ).fit(TRAIN)
    seeds = SeedEnsemble(fast("AutoEncoder", **MIXED), 2, random_state=0).fit(TRAIN)
    for ensemble in (consensus, seeds):
        scores = ensemble.decision_function(NEW)
        assert np.isfinite(scores).all()
        ensemble.save(tmp_path / "model.deepod")
        loaded = deepod.load(tmp_path / "model.deepod")
        np.testing.assert_array_equal(loaded.decision_function(NEW), scores)
    assert consensus.explain(NEW).shape == NEW.shape


@pytest.mark.parametrize(
    ("change", "params", "message"),
    [
        ({}, {"datetime_features": None}, "times in column 'when' .*datetime_features"),
        ({}, {"categorical_features": None}, "text.* in columns 'id' .*categorical_features"),
        ({}, {"categorical_features": ["town"]}, "no column 'town'; the columns are 'id', 'when'"),
        ({}, {"categorical_features": [17]}, "no column 17"),
        ({}, {"categorical_features": [True]}, r"mask of shape \(1,\), but X has 6"),
        (
            {},
            {"categorical_features": ["id"]},
            "'id' has no categories to learn, because every value is different",
        ),
        (
            {},
            {"categorical_features": ["when", "kind"], "datetime_features": ["when"]},
            "from one of them",
        ),
        (
            {"when": "soon"},
            {"datetime_features": ["when"]},
            "'when' holds values .*'soon'.*2024-01",
        ),
        ({"amount": [[1]] * 400}, {}, r"not numbers in column 'amount' .*\[1\]"),
        ({"amount": np.inf}, {}, "infinity .* in column 'amount'"),
        ({"amount": np.nan}, {"missing": "refuse"}, "NaN in column 'amount'.*missing='impute'"),
        ({}, {"input_shape": (2, 3)}, "input_shape=None"),
    ],
)
def test_fit__what_cannot_be_encoded__names_column_and_remedy(change, params, message):
    frame = TRAIN.assign(**{name: pd.Series(v) if isinstance(v, list) else v
                            for name, v in change.items()})  # fmt: skip
    with pytest.raises((ValueError, TypeError), match=message):
        fast("AutoEncoder", **(MIXED | params)).fit(frame)


@pytest.mark.parametrize("method", ["decision_function", "predict", "explain"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": "x"}, "text in column 'amount' .*'x'"),
        ({"when": "never"}, "'when' holds values that are not dates or times, such as 'never'"),
        ({"when": 3}, "'when' holds values that are not dates or times, such as 3"),
        ({"amount": np.inf}, "infinity .* in column 'amount'"),
    ],
)
def test_new_rows__what_cannot_be_encoded__names_the_column(method, change, message):
    detector = fast("AutoEncoder", **MIXED).fit(TRAIN)
    with pytest.raises(ValueError, match=message):
        getattr(detector, method)(NEW.assign(**change))
    with pytest.raises(ValueError, match="- kind"):
        getattr(detector, method)(NEW.drop(columns="kind"))


def test_times__span__decides_which_periods_are_learned():
    def periods(*times):
        frame = pd.DataFrame(
            {"when": pd.to_datetime([*times] * 5), "x": np.arange(5.0 * len(times))}
        )
        return fast("AutoEncoder", **MIXED).fit(frame).encoder_.summary()["when"]

    assert periods("2024-01-01 08:00", "2024-01-01 09:00") == (
        "left out: its times span less than a day"
    )
    assert periods("2024-01-01 08:00", "2024-01-02 09:00") == "time: time of day"
    assert periods("2024-01-01", "2024-01-09") == "time: day of week"
    assert periods("2024-01-01", "2025-01-03") == "time: day of week, day of year"
    assert periods("2024-01-01", "2024-01-03") == "left out: its dates span less than a week"


def test_consensus__members_refuse_text_and_gaps__notes_say_how_to_tell_them():
    params = {}
    for name, value in [("categorical_features", "from_dtype"), ("missing", "impute")]:
        consensus = Consensus([fast("Neighbors")], member_params=params)
        with pytest.raises(ValueError, match=f"{name}='{value}'") as refused:
            consensus.fit(TRAIN[["amount", "kind"]])
        (note,) = refused.value.__notes__
        assert f"member_params={ ({name: value}) }" in note
        params = params | {name: value}
    Consensus([fast("Neighbors")], member_params=params).fit(TRAIN[["amount", "kind"]])


def test_all_columns_left_out__refused():
    with pytest.raises(ValueError, match="No column can be used: 'id': every value is different"):
        fast("AutoEncoder", **MIXED).fit(TRAIN[["id"]])


def on_disk(frame, folder, n=1000, **options):
    """The rows of a frame, several times over, in Parquet, and in memory."""
    pytest.importorskip("pyarrow")
    folder.mkdir()
    frame = pd.concat([frame] * (1 + n // len(frame)), ignore_index=True)[:n]
    frame.to_parquet(folder / "x.parquet", index=False, **options)
    return deepod.sources.parquet(folder), frame


def test_fit__rows_on_disk__encoded_as_in_memory(tmp_path):
    # One row group, that the buffer holds: the same rows in the same order.
    source, frame = on_disk(TRAIN, tmp_path / "a")
    assert source.is_mixed
    assert source.feature_names == list(TRAIN.columns)
    detector = fast("AutoEncoder", **MIXED).fit(source)
    assert detector.columns_ == fast("AutoEncoder", **MIXED).fit(frame).columns_
    assert list(detector.feature_names_in_) == list(TRAIN.columns)
    # Scores of rows on disk are those of the same rows in memory, whatever was read before.
    new, rows = on_disk(NEW, tmp_path / "b", n=500, row_group_size=60)
    scores = detector.decision_function(rows)
    np.testing.assert_allclose(detector.decision_function(new), scores, rtol=1e-6)
    np.testing.assert_array_equal(detector.predict(new), detector.predict(rows))
    contributions = detector.explain(new)
    assert contributions.shape == rows.shape
    np.testing.assert_allclose(contributions, detector.explain(rows), rtol=1e-4, atol=1e-6)


def test_fit__rows_on_disk__learns_to_encode_from_all_over(tmp_path):
    # Sorted by shop, in many row groups, of which the sample shows a part only.
    frame = pd.DataFrame({"x": np.arange(8000.0) % 7, "shop": np.repeat(list("abcdefgh"), 1000)})
    source, _ = on_disk(frame, tmp_path / "a", n=8000, row_group_size=500)
    detector = fast("AutoEncoder", memory_limit=1 << 17, **MIXED).fit(source)
    assert detector.encoder_.summary() == {"x": "number", "shop": "category: 8 values"}
    assert np.isfinite(detector.decision_function(source)).all()


def test_fit__rows_on_disk__partitions_are_columns(tmp_path):
    pytest.importorskip("pyarrow")
    frame = TRAIN.assign(year=np.where(np.arange(len(TRAIN)) % 2, "first", "second"))
    frame.to_parquet(tmp_path / "x", partition_cols=["year"])
    source = deepod.sources.parquet(tmp_path / "x")
    summary = fast("AutoEncoder", **MIXED).fit(source).encoder_.summary()
    assert summary["year"] == "category: 2 values"


def test_rows_on_disk__text_that_nothing_encodes__refused_by_column(tmp_path):
    source, _ = on_disk(TRAIN, tmp_path / "a")
    with pytest.raises(ValueError, match=r"Column 'id' .*categorical_features='from_dtype'"):
        fast("AutoEncoder", missing="impute").fit(source)
    new, _ = on_disk(NEW.assign(amount="much"), tmp_path / "b")
    detector = fast("AutoEncoder", **MIXED).fit(TRAIN)
    with pytest.raises(ValueError, match=r"text in column 'amount'"):
        detector.decision_function(new)
    with pytest.raises(ValueError, match=r"feature names"):
        detector.decision_function(on_disk(NEW.drop(columns="amount"), tmp_path / "c")[0])


def test_ensembles__rows_on_disk__members_encode(tmp_path):
    source, rows = on_disk(TRAIN, tmp_path / "a")
    members = [fast("AutoEncoder"), deepod.Neighbors()]
    model = deepod.Consensus(members, member_params=MIXED, random_state=0).fit(source)
    np.testing.assert_allclose(model.decision_function(source), model.decision_function(rows))


def test_review__mixed_rows_on_disk__shown_as_they_are(tmp_path):
    source, rows = on_disk(TRAIN, tmp_path / "a")
    detector = fast("AutoEncoder", **MIXED).fit(rows)
    pages = []
    for X, name in ((source, "disk"), (rows, "memory")):
        deepod.review.write(tmp_path / name, detector, X, top=5, title="page")
        pages.append((tmp_path / name).read_text())
    assert pages[0] == pages[1]


def test_fit__other_sources__refused_with_the_way_out():
    source = deepod.sources.array(np.ones((50, 2)))
    with pytest.raises(ValueError, match=r"source on disk; .*deepod\.sources\.parquet"):
        fast("AutoEncoder", **MIXED).fit(source)


def test_fit__tensor_with_codes__as_the_array():
    X = np.random.default_rng(0).integers(0, 3, (200, 2)).astype(np.float32)
    scores = [
        fast("AutoEncoder", categorical_features=[1]).fit(given).decision_scores_
        for given in (X, torch.from_numpy(X).requires_grad_())
    ]
    np.testing.assert_array_equal(*scores)


@pytest.mark.parametrize("params", [{}, {"categorical_features": "from_dtype"}])
def test_fit__arrow_table_with_an_index_of_pandas__is_no_column(params):
    pa = pytest.importorskip("pyarrow")
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    expected = fast("AutoEncoder", **params).fit(frame).decision_scores_
    for index in (np.arange(60)[::-1], pd.Index(np.arange(60) * 2.0, name="key")):
        table = pa.Table.from_pandas(frame.set_axis(index))
        assert table.num_columns == 3
        detector = fast("AutoEncoder", **params).fit(table)
        assert detector.feature_names_in_.tolist() == ["a", "b"]
        np.testing.assert_array_equal(detector.decision_scores_, expected)
