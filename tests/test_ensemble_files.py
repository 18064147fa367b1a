"""Saved ensembles and models that hold rows: what comes back, what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch
from pyod.models.knn import KNN
from sklearn.base import clone

import deepod
from deepod import Consensus, SeedEnsemble, ensemble
from deepod._storage import detectors as _detectors
from deepod._storage import ensembles as _ensembles
from deepod._storage import models as _models

from .cases import fast, samples
from .test_persistence import Mine, altered, put

X = pd.DataFrame(samples(), columns=list("abcde"))
NEW = pd.DataFrame(samples(n=7, seed=1), columns=list("abcde"))


def members():
    return [fast("Neighbors"), fast("AutoEncoder")]


@pytest.fixture(scope="module")
def fitted():
    """Ensembles that tests share, who only ask them."""
    return {
        "Consensus": Consensus(members(), random_state=0).fit(X),
        "SeedEnsemble": SeedEnsemble(fast("PLAD"), 2, combination="max", random_state=0).fit(X),
    }


@pytest.fixture
def saved(fitted, tmp_path):
    """A file of a consensus, to be damaged."""
    fitted["Consensus"].save(tmp_path / "m.deepod")
    return tmp_path / "m.deepod"


def assert_same(one, other):
    assert type(one) is type(other)
    assert vars(one).keys() == vars(other).keys()
    for name in ("decision_function", "predict_proba", "predict_confidence", "explain"):
        found, expected = getattr(one, name)(NEW), getattr(other, name)(NEW)
        np.testing.assert_array_equal(found, expected, err_msg=name)
    np.testing.assert_array_equal(one.decision_scores_, other.decision_scores_)
    assert (one.threshold_, one.unseen_) == (other.threshold_, other.unseen_)
    assert one.feature_names_in_.tolist() == list("abcde")


# --- what comes back ----------------------------------------------------------------------------


@pytest.mark.parametrize("file", ["m", "m.deepod"])
@pytest.mark.parametrize("name", ["Consensus", "SeedEnsemble"])
def test_load__ensemble__scores_bit_for_bit_and_parameters(name, file, fitted, tmp_path):
    one = fitted[name]
    one.save(tmp_path / file)
    again = deepod.load(tmp_path / file)
    assert_same(again, one)
    unfitted = again.get_params(deep=False)
    start = unfitted["detector"] if name == "SeedEnsemble" else unfitted["detectors"][0]
    assert not hasattr(start, "module_")
    assert start.random_state == one.members_[0].random_state
    assert not hasattr(clone(again), "members_")
    again.save(tmp_path / "b.deepod")
    again.set_params(contamination=0.4)
    assert again.threshold_ == clone_of(one).set_params(contamination=0.4).threshold_
    data = (tmp_path / file / "model.safetensors" if file == "m" else tmp_path / file).read_bytes()
    assert data == (tmp_path / "b.deepod").read_bytes()


def clone_of(fitted):
    """A fitted copy, to be changed."""
    copy = object.__new__(type(fitted))
    copy.__dict__ |= vars(fitted)
    return copy


@pytest.mark.parametrize("novelty", [False, True])
def test_load__default_members__stay_the_default(tmp_path, monkeypatch, novelty):
    if not novelty:
        monkeypatch.setattr(ensemble, "default_members", lambda novelty: members())
    one = Consensus(novelty=novelty, random_state=0).fit(X)
    one.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    assert again.detectors is None
    assert repr(again) == repr(one)
    np.testing.assert_array_equal(again.fit(X).decision_scores_, one.decision_scores_)


def test_load__threshold_and_calibration__kept(fitted, tmp_path):
    one = clone_of(fitted["Consensus"]).set_params(false_alarm_rate=0.2).calibrate(NEW)
    one.save(tmp_path / "m")
    again = deepod.load(tmp_path / "m")
    np.testing.assert_array_equal(again.p_values(X), one.p_values(X))
    assert again.threshold_ == one.threshold_
    one.set_threshold(0.5).save(tmp_path / "m")
    assert "by set_threshold" in (tmp_path / "m/README.md").read_text()
    assert deepod.load(tmp_path / "m").threshold_ == 0.5


def test_load__device__of_all_members(saved):
    def put_device(description, tensors):
        for member in description["members"]:
            member["params"]["device"] = "cuda:99"

    altered(saved, put_device)
    again = deepod.load(saved)
    assert [m.device_.type for m in again.members_] == ["cpu", "cpu"]
    again = deepod.load(saved, device="cpu")
    assert {m.device for m in [*again.members_, *again.detectors]} == {"cpu"}
    with pytest.raises(ValueError, match="not available"):
        deepod.load(saved, device="cuda:98")


def test_load__members_of_an_own_class__only_when_it_is_given(tmp_path):
    one = Consensus([Mine(epochs=1), fast("Neighbors")], random_state=0).fit(X)
    one.save(tmp_path / "m")
    with pytest.raises(deepod.InvalidFileError, match="detectors="):
        deepod.load(tmp_path / "m")
    assert_same(deepod.load(tmp_path / "m", detectors=[Mine]), one)


# --- what is written ----------------------------------------------------------------------------


def test_save__card__members_and_a_warning_where_rows_are_held(fitted, tmp_path):
    cards = {}
    fitted = fitted | {"Neighbors": fast("Neighbors").fit(X)}
    for name, one in fitted.items():
        one.save(tmp_path / name)
        cards[name] = (tmp_path / name / "README.md").read_text()
        assert repr(one.threshold_) in cards[name]
    warned = {name for name, card in cards.items() if "**Holds training rows**" in card}
    assert warned == {"Consensus", "Neighbors"}
    assert "| 0 | Neighbors(" in cards["Consensus"]
    assert "| combination | max |" in cards["SeedEnsemble"]


def test_save__file_of_a_checkpoint__stays_private(tmp_path):
    detectors = [fast("AutoEncoder", checkpoint=str(tmp_path / "private"))]
    Consensus(detectors, random_state=0).fit(X).save(tmp_path / "m")
    assert deepod.load(tmp_path / "m").members_[0].checkpoint is None
    for path in (tmp_path / "m").iterdir():
        assert b"private" not in path.read_bytes(), path.name


def test_save__what_no_file_can_hold__named(fitted, tmp_path):
    class Other(Consensus):
        pass

    mixed = Consensus([fast("Neighbors"), KNN()], random_state=0).fit(X.to_numpy())
    with pytest.raises(TypeError, match=r"members_\[1\], KNN, is not a detector.*joblib\.dump"):
        mixed.save(tmp_path / "m")
    one = Consensus([fast("AutoEncoder", callbacks=[print])], random_state=0).fit(X)
    with pytest.raises(TypeError, match=r"members_\[0\], AutoEncoder: callbacks=.*set_params"):
        one.save(tmp_path / "m")
    with pytest.raises(TypeError, match="Other is not one of deepod"):
        Other([fast("Neighbors")]).fit(X).save(tmp_path / "m")
    one = clone_of(fitted["Consensus"])
    with pytest.raises(TypeError, match=r"random_state=.*set_params"):
        one.set_params(random_state=np.random.RandomState(0)).save(tmp_path / "m")
    one.random_state, one.extra_ = 0, object()
    with pytest.raises(TypeError, match="extra_"):
        one.save(tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_fitted_attributes__all_known_to_files(fitted):
    for one in fitted.values():
        left = set(vars(one)) - set(one.get_params(deep=False))
        assert left <= {*_ensembles._PLAIN, *_ensembles._ARRAYS, *_ensembles._DERIVED}


# --- what is refused ----------------------------------------------------------------------------


def change(name, function):
    """Change a tensor."""

    def changed(description, tensors):
        tensors[name] = function(tensors[name])

    return changed


def drop(name):
    return lambda description, tensors: tensors.pop(name)


def without_a_member(description, tensors):
    del description["members"][1]


def another_shape(description, tensors):
    """A member for four features: whole, but not beside the other."""
    other = fast("Neighbors").fit(samples()[:, :4])
    own, its = _detectors.described(other)
    description["members"][0] = own
    tensors.update({f"0.{name}": torch.as_tensor(value) for name, value in its.items()})


REFUSED = {
    "no members": (put("members", value=[]), "no members"),
    "members of another kind": (put("members", value={"0": 1}), "no members"),
    "too many members": (put("members", value=[{}] * 501), "more than 500"),
    "member of no class": (put("members", 0, "detector", value="os.system"), "not a detector"),
    "ensemble in it": (put("members", 0, "detector", value="Consensus"), "not a detector"),
    "other class of members": (put("members", 0, "detector", value="PLAD"), "unknown|Missing"),
    "number for a member": (put("members", 1, value=3), "not a file of deepod, or is damaged"),
    "more members than tensors": (lambda d, t: d["members"].append({}), "the tails of its"),
    "fewer members than tensors": (without_a_member, "unknown entries"),
    "features of another": (another_shape, "not for the same features"),
    "names of another": (put("members", 0, "fitted", "feature_names_in_", value=list("abcdf")),
                         "not for the same features"),
    "unknown key": (put("run", value="code"), r"unknown entries \['run'\]"),
    "unknown key of a member": (put("members", 0, "run", value=1), r"unknown entries \['run'\]"),
    "unknown parameter": (put("params", "hook", value=1), r"unknown entries \['hook'\]"),
    "one detector": (put("params", "detector", value=None), "unknown entries"),
    "detectors": (put("params", "detectors", value=[None]), "are among the members"),
    "bad parameter": (put("params", "combination", value="run"), "combination"),
    "bad parameter of a member": (put("members", 1, "params", "lr", value=-1), "lr"),
    "giant width": (put("members", 1, "params", "latent_dim", value=10**12), "than its network"),
    "unknown attribute": (put("fitted", "fill_", value=None), "unknown entries"),
    "bad rule": (put("fitted", "given_under_", value=[0.1, [None]]), "given_under_"),
    "infinite threshold": (put("fitted", "given_threshold_", value=float("inf")), "finite|Infin"),
    "more scores than rows": (put("fitted", "_n_training", value=3), "too many"),
    "no scores": (drop("_training_scores"), "lacks the entries _training"),
    "no scores of a member": (drop("1._training_scores"), "lacks the entries _training"),
    "NaN scores": (change("_training_scores", lambda t: t * float("nan")), "not finite"),
    "scores of another type": (change("_training_scores", torch.Tensor.float), "of float64"),
    "one tensor more": (lambda d, t: t.update(x=torch.zeros(1)), "unknown entries"),
    "one tensor of a member more": (lambda d, t: t.update({"0.x": t["0.tail.grid"]}), "unknown"),
    "no tail": (drop("0.tail.start"), "tails"),
    "long tail": (change("1.tail.grid", lambda t: t.repeat(2)), "tails"),
    "tail of another type": (change("1.tail.grid", torch.Tensor.float), "tails"),
    "NaN tail": (change("0.tail.start", lambda t: t * float("nan")), "not finite"),
    "tail that falls": (change("0.tail.grid", lambda t: t.flip(0)), "do not rise"),
    "tail that does not rise": (change("1.tail.excess", torch.zeros_like), "do not rise"),
    "fewer rows than are there": (put("members", 0, "params", "max_rows", value=39), "mismatch"),
    "no rows": (change("0.module.rows", lambda t: t[:0]), "mismatch"),
    "more rows": (change("0.module.rows", lambda t: t.repeat(2, 1)), "mismatch"),
    "rows of no number": (change("0.module.picks", lambda t: t[0].clone()), "damaged|mismatch"),
    "too many rows": (put("members", 0, "params", "max_rows", value=1 << 62), "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_load__wrong_contents__refused_with_the_reason(case, saved):
    damage, message = REFUSED[case]
    altered(saved, damage)
    with pytest.raises(deepod.InvalidFileError, match=message):
        deepod.load(saved)


def test_load__flipped_byte_anywhere__refused(saved):
    data = saved.read_bytes()
    for place in np.random.default_rng(0).integers(len(data), size=30):
        saved.write_bytes(data[:place] + bytes([data[place] ^ 16]) + data[place + 1 :])
        with pytest.raises(deepod.InvalidFileError):
            deepod.load(saved)


def test_load__members_together_too_large_to_build__refused(saved, monkeypatch):
    made = []

    def make():
        made.append(_detectors.Sparing())
        return made[-1]

    monkeypatch.setattr(_models, "Sparing", make)
    deepod.load(saved)
    (counter,) = made  # one for all members
    assert counter.most_calls == 2 * _detectors.MOST_CALLS
    monkeypatch.setattr(_detectors, "MOST_CALLS", (counter.calls - 1) // 2)
    with pytest.raises(deepod.InvalidFileError, match="too many layers"):
        deepod.load(saved)


@pytest.mark.parametrize("params", [{}, {"max_rows": 10**12}, {"max_rows": 20}, {"n_neighbors": 3}])
def test_neighbors__any_number_of_rows__same_scores(params, tmp_path):
    """No memory is taken for rows that are not there."""
    one = fast("Neighbors", **({} if params.get("max_rows") == 10**12 else params)).fit(X)
    path = tmp_path / "m.deepod"
    one.save(path)
    altered(path, lambda description, tensors: description["params"].update(params))
    again = deepod.load(path)
    np.testing.assert_array_equal(again.decision_function(NEW), one.decision_function(NEW))
    assert len(again.module_.rows) == min(len(X), params.get("max_rows", len(X)))
