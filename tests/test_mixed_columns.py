"""Categories, numbers and gaps in one DataFrame: the pipeline that the README shows."""

import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from .cases import REPRESENTATIVES, fast

NUMBERS, CATEGORIES = ["age", "income"], ["city", "member"]


def people(n=300, seed=0):
    """Income follows age and city; a few values are missing."""
    rng = np.random.default_rng(seed)
    city = rng.choice(["Ulm", "Bonn", "Kiel", "Hof"], n, p=[0.5, 0.3, 0.18, 0.02])
    age = rng.normal(40, 10, n)
    level = pd.Series(city).map({"Ulm": 0, "Bonn": 2e4, "Kiel": -2e4, "Hof": 0}).to_numpy()
    income = 1e3 * age + level + rng.normal(0, 2e3, n)
    frame = pd.DataFrame({"age": age, "income": income, "city": city, "member": city == "Ulm"})
    frame.loc[::25, "income"] = np.nan
    return frame


def model(name="AutoEncoder", **params):
    fill_and_scale = Pipeline(
        [("impute", SimpleImputer(strategy="median")), ("scale", StandardScaler())]
    )
    encode = ColumnTransformer(
        [
            ("numbers", fill_and_scale, NUMBERS),
            ("categories", OneHotEncoder(handle_unknown="ignore", sparse_output=False), CATEGORIES),
        ]
    )
    return Pipeline([("encode", encode), ("det", fast(name, scaler=None, **params))])


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_pipeline__mixed_columns__fits_scores_and_predicts(name):
    frame = people()
    pipeline = model(name).fit(frame)
    scores = pipeline.decision_function(frame)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores, pipeline["det"].decision_scores_)
    assert set(pipeline.predict(frame)) == {0, 1}
    encoded = pipeline["encode"].transform(frame)
    np.testing.assert_array_equal(fast(name, scaler=None).fit(encoded).decision_scores_, scores)
    # The order of the columns does not matter, only their names.
    np.testing.assert_array_equal(pipeline.decision_function(frame[frame.columns[::-1]]), scores)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_pipeline__category_not_seen_in_fit__finite_score(name):
    pipeline = model(name).fit(people())
    new = people(5, seed=1)
    new["city"] = "Rom"
    assert pipeline["encode"].transform(new)[:, 2:6].sum() == 0
    assert np.isfinite(pipeline.decision_function(new)).all()


def test_pipeline__default_training__unlike_any_training_row_is_flagged():
    pipeline = model(epochs="auto").fit(people(1000))
    new = people(200, seed=1)
    usual = pipeline.predict(new).mean()
    unseen = pipeline.predict(new.assign(city="Rom")).mean()
    swapped = new.assign(income=new["income"].to_numpy()[::-1])
    assert usual < 0.3
    assert unseen > 0.9
    both = pd.concat([new, swapped])
    assert roc_auc_score(np.repeat([0, 1], 200), pipeline.decision_function(both)) > 0.75


def test_pipeline__rare_category__pooled_with_others_by_min_frequency():
    frame = people(1000)
    pooled = model(epochs="auto").set_params(
        encode__categories__min_frequency=50,
        encode__categories__handle_unknown="infrequent_if_exist",
    )
    pooled.fit(frame)
    new = people(50, seed=1)
    rare, unseen = (pooled.decision_function(new.assign(city=c)) for c in ("Hof", "Rom"))
    np.testing.assert_array_equal(rare, unseen)  # both are "infrequent" now


def test_pipeline__grid_search__over_all_of_its_steps():
    frame, y = people(), (np.arange(300) % 10 == 0).astype(int)
    frame.loc[y == 1, "age"] += 80
    grid = {
        "encode__numbers__impute__strategy": ["mean", "median"],
        "encode__categories__min_frequency": [None, 20],
        "det__lr": [1e-3, 1e-2],
        "det__scaler": [None, "standard"],
    }
    cv = StratifiedKFold(2, shuffle=True, random_state=0)
    search = GridSearchCV(model(), grid, scoring="roc_auc", cv=cv).fit(frame, y)
    assert len(search.cv_results_["params"]) == 16
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_["det"].lr == search.best_params_["det__lr"]


def test_pipeline__clone_and_pickle__as_any_estimator():
    frame = people()
    fitted = model().fit(frame)
    twin = clone(fitted)
    assert not twin["det"].__sklearn_is_fitted__()
    scores = fitted.decision_function(frame)
    np.testing.assert_array_equal(twin.fit(frame).decision_function(frame), scores)
    loaded = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(loaded.decision_function(frame), scores)


def test_pipeline__set_output_pandas__names_reach_the_detector():
    frame = people()
    pipeline = model().set_output(transform="pandas").fit(frame)
    names = pipeline["det"].feature_names_in_.tolist()
    assert names[:3] == ["numbers__age", "numbers__income", "categories__city_Bonn"]
    plain = model().fit(frame)
    np.testing.assert_array_equal(pipeline.decision_function(frame), plain.decision_function(frame))


@pytest.mark.parametrize("dtype", [object, "category", "string"])
def test_detector_alone__text_in_a_column__error_says_what_to_do(dtype):
    frame = people().astype({"city": dtype})
    with pytest.raises(ValueError, match=r"column 'city' .*'(Ulm|Bonn|Kiel|Hof)'.*OneHotEnc"):
        fast("AutoEncoder").fit(frame)
