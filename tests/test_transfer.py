"""Fits that start from fitted weights: ``transfer`` and ``partial_fit``."""

import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.metrics import roc_auc_score

import deepod
from deepod import DeepSVDD, Neighbors, fit_many, load, sources
from deepod._training.starts import Start
from deepod.networks import MLP
from deepod.series import LSTMAD, RidgeAR

from .cases import NAMES, TRAINED, fast, fast_series, fitted, samples, waves

every_trained = pytest.mark.parametrize("name", TRAINED)
PLAIN = {"network": MLP(hidden=(8,)), "latent_dim": 3}  # without BatchNorm
TARGET = 3 * samples(n=60, seed=1) + 1


def small(**params):
    return fast("AutoEncoder", **PLAIN | params)


def weights(detector):
    return {name: p.detach().clone() for name, p in detector.module_.named_parameters()}


def same(one, other):
    """Names of the parameters that are the same bit for bit."""
    return {name for name, p in weights(one).items() if torch.equal(p, weights(other)[name])}


def subspace(n, seed, gain=1.0, shift=0.0, noise=0.05):
    """Rows near a plane in 8 dimensions, always the same one."""
    W = np.random.default_rng(0).normal(size=(2, 8))
    rng = np.random.default_rng(seed)
    return gain * (rng.normal(size=(n, 2)) @ W + noise * rng.normal(size=(n, 8))) + shift


# --- transfer: every detector ---------------------------------------------------------------------


@every_trained
def test_transfer__first_layer_frozen__it_stays_and_all_else_is_of_the_target(name):
    source = fitted(name)
    before = weights(source)
    target = source.transfer(1)
    assert not hasattr(target, "module_")
    assert target.get_params().keys() == source.get_params().keys()
    target.fit(TARGET)
    frozen = set(target._start.frozen)
    assert frozen
    assert same(target, source) == frozen
    assert all(p.requires_grad for p in target.module_.parameters())
    assert {n for n, p in weights(source).items() if torch.equal(p, before[n])} == set(before)
    alone = fast(name).fit(TARGET)
    np.testing.assert_array_equal(target.shift_, alone.shift_)
    np.testing.assert_array_equal(target.scale_, alone.scale_)
    assert abs(target.labels_.mean() - 0.1) < 0.02
    assert len(target.decision_scores_) == len(TARGET)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TRAINED])
def test_methods_without_gradients__refused(name):
    detector = fitted(name)
    with pytest.raises(TypeError, match="trains no weights by gradients"):
        detector.transfer()
    assert not hasattr(detector, "partial_fit")
    with pytest.raises(AttributeError) as told:
        detector.partial_fit(TARGET)
    assert "call fit with all rows" in str(told.value.__cause__)


@pytest.mark.parametrize("name", ["RidgeAR", "WindowNeighbors"])
def test_series_without_gradients__refused(name):
    detector = fast_series(name).fit(waves())
    with pytest.raises(
        TypeError, match=f"{name} cannot be transferred, .* trains no weights by gradients"
    ):
        detector.transfer()
    assert not hasattr(RidgeAR(), "partial_fit")


# --- transfer: what it starts from ----------------------------------------------------------------


def test_transfer__no_steps__all_weights_and_buffers_of_the_source():
    source = fitted("PLAD")  # of prototypes, whose number and place follow from the rows
    target = source.transfer().set_params(epochs=0).fit(TARGET[:20])
    there = target.module_.state_dict()
    for name, value in source.module_.state_dict().items():
        assert torch.equal(value, there[name]), name


def test_transfer__reset_head__last_layer_is_new_and_the_rest_is_not():
    source = small().fit(samples())
    target = source.transfer(reset_head=True).set_params(epochs=0).fit(TARGET)
    new = {"decoder.2.weight", "decoder.2.bias"}
    assert same(target, source) == set(weights(source)) - new
    fresh = small(epochs=0).fit(TARGET)
    assert new <= same(target, fresh)  # as a fit from nothing has it


def test_transfer__lr_scale__first_step_is_so_much_shorter():
    settings = {"optimizer": "sgd", "epochs": 1, "batch_size": 100, "lr": 0.1}
    source = small().fit(samples())
    steps = []
    for scale in (1.0, 0.25):
        target = source.transfer(lr_scale=scale).set_params(**settings).fit(TARGET)
        steps.append(weights(target)["encoder.1.weight"] - weights(source)["encoder.1.weight"])
    torch.testing.assert_close(steps[1], 0.25 * steps[0], rtol=1e-3, atol=1e-7)
    assert steps[0].abs().max() > 1e-4


@pytest.mark.parametrize("engine", ["eager", "trace"])
def test_transfer__frozen_under_weight_decay__not_a_bit_moves(engine):
    source = small().fit(samples())
    target = source.transfer(["encoder", "decoder.2.bias"])
    target.set_params(engine=engine, weight_decay=0.1, optimizer="adamw", max_grad_norm=1.0)
    target.fit(TARGET)
    assert target.engine_ == engine
    assert same(target, source) == {
        *("encoder.1.weight", "encoder.1.bias", "encoder.3.weight", "encoder.3.bias"),
        "decoder.2.bias",
    }


def test_transfer__frozen_batch_norm__weights_stay_and_statistics_follow_the_target():
    source = fast("AutoEncoder", network=MLP(hidden=(8,), batch_norm=True)).fit(samples())
    target = source.transfer("encoder").set_params(epochs=1, batch_size=100).fit(TARGET)
    names = {name for name in weights(source) if name.startswith("encoder.")}
    assert names <= same(target, source)
    old, new = source.module_.encoder[2].running_mean, target.module_.encoder[2].running_mean
    x = torch.from_numpy(target.scaler_.transform(TARGET))  # one batch of all rows
    with torch.no_grad():
        mean = source.module_.encoder[1](x).mean(0)
    torch.testing.assert_close(new, 0.9 * old + 0.1 * mean, rtol=1e-4, atol=1e-6)
    assert not torch.equal(new, old)


def test_transfer__frozen_encoder_of_svdd__new_centre_without_steps():
    settings = {"epochs": 2, "latent_dim": 4, "center_eps": 0.0, "cross_fitting": False}
    source = DeepSVDD(random_state=0, **settings).fit(samples())
    target = source.transfer("encoder").fit(TARGET)
    assert {entry["phase"] for entry in target.history_} == {"pretrain"}  # of the decoder
    x = torch.from_numpy(target.scaler_.transform(TARGET))
    codes = target.module_.encoder(x).detach().numpy()
    np.testing.assert_allclose(target.center_, codes.mean(0), atol=1e-6)
    assert not np.allclose(target.center_, source.center_)


def test_transfer__what_the_loss_does_not_reach_is_left__refused():
    source = small().fit(samples())
    source.module_.register_parameter("unused", torch.nn.Parameter(torch.zeros(1)))
    start = Start(frozen=tuple(n for n in weights(source) if n != "unused"))
    task = _task_of(source)
    for name in start.frozen:
        source.module_.get_parameter(name).requires_grad_(False)
    with pytest.raises(ValueError, match="leaves no parameter to train on which"):
        start.adapted(task)


def _task_of(detector):
    from deepod._training.fitting import Fit

    fit = Fit(0, clone(detector), samples(), None)
    fit.set_up({})
    object.__setattr__(fit.task, "module", detector.module_)
    return fit.task


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"freeze": "encode"}, "no such part: its parts are decoder, encoder"),
        ({"freeze": ["encoder", "decoder.9"]}, "'decoder.9'"),
        ({"freeze": 9}, "from 1 to 4"),
        ({"freeze": 0}, "from 1 to 4"),
        ({"freeze": True}, "got True"),
        ({"freeze": 4}, "leaves no parameter to train"),
        ({"freeze": []}, "names no parameter"),
        ({"freeze": "decoder", "reset_head": True}, "freezes parameters to which"),
        ({"lr_scale": 0.0}, "lr_scale must be a positive number, got 0.0"),
    ],
)
def test_transfer__bad_arguments__refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        small(epochs=0).fit(samples()).transfer(**arguments)


def test_transfer__what_does_not_fit__refused_and_unfitted():
    with pytest.raises(NotFittedError):
        small().transfer()
    target = small().fit(samples()).transfer()
    with pytest.raises(ValueError, match=r"samples of shape \(4,\).* of shape \(5,\)"):
        target.fit(TARGET[:, :4])
    with pytest.raises(ValueError, match="weights to start from belong to another network"):
        clone(target).set_params(latent_dim=4).fit(TARGET)
    with pytest.raises(ValueError, match="weights to start from belong to another network"):
        clone(target).set_params(network=MLP(hidden=(8, 4))).fit(TARGET)
    assert not hasattr(target, "module_")
    target.fit(TARGET)


def test_transfer__parameters_set_after_fit__those_of_the_fit():
    source = small().fit(samples()).set_params(latent_dim=1, lr=0.5)
    target = source.transfer()
    assert (target.latent_dim, target.lr) == (3, 0.5)
    assert target.network is not source.network
    target.fit(TARGET)


# --- transfer: what becomes of it -----------------------------------------------------------------


def test_clone_and_pickle__hand_the_start_on_and_plain_construction_does_not(tmp_path):
    target = small().fit(samples()).transfer("encoder")
    expected = clone(target).fit(TARGET).decision_function(TARGET)
    for copy in (pickle.loads(pickle.dumps(target)), target.fit(TARGET), clone(target)):
        np.testing.assert_array_equal(copy.fit(TARGET).decision_function(TARGET), expected)
    plain = type(target)(**target.get_params(deep=False)).fit(TARGET)
    np.testing.assert_array_equal(plain.decision_scores_, small().fit(TARGET).decision_scores_)
    assert not np.array_equal(plain.decision_function(TARGET), expected)


def test_save__unfitted_refused_and_fitted_without_its_start(tmp_path):
    target = small().fit(samples()).transfer("encoder")
    with pytest.raises(NotFittedError):
        target.save(tmp_path / "model.deepod")
    target.fit(TARGET).save(tmp_path / "model.deepod")
    loaded = load(tmp_path / "model.deepod")
    np.testing.assert_array_equal(loaded.decision_function(TARGET), target.decision_scores_)
    np.testing.assert_array_equal(
        loaded.fit(TARGET).decision_scores_, small().fit(TARGET).decision_scores_
    )


def test_skops__unfitted__same_fit(tmp_path):
    skops = pytest.importorskip("skops.io")
    target = small().fit(samples()).transfer("encoder", lr_scale=0.5)
    skops.dump(target, tmp_path / "model.skops")
    again = skops.load(tmp_path / "model.skops", trusted=deepod.TRUSTED_TYPES)
    np.testing.assert_array_equal(
        again.fit(TARGET).decision_scores_, target.fit(TARGET).decision_scores_
    )


def test_cross_fitting__halves_start_from_the_source_too(monkeypatch):
    starts = []
    put_into = Start.put_into
    monkeypatch.setattr(
        Start, "put_into", lambda self, module: starts.append(self) or put_into(self, module)
    )
    target = small().fit(samples()).transfer("encoder").set_params(cross_fitting=True, epochs=3)
    del starts[:]
    target.fit(TARGET)
    assert target.unseen_
    assert len(starts) == 3
    assert all(start.weights is target._start.weights for start in starts)
    assert all(start.frozen == target._start.frozen for start in starts)


def test_fit_many__transferred__side_by_side_as_alone(stacks):
    target = small().fit(samples()).transfer(lr_scale=0.5)
    for detector in fit_many(target, TARGET, seeds=range(3)):
        alone = clone(target).set_params(random_state=detector.random_state).fit(TARGET)
        np.testing.assert_allclose(detector.decision_scores_, alone.decision_scores_, rtol=1e-4)
    assert stacks[1] == 3


def test_fit_many__frozen__each_alone_and_still(stacks):
    source = small().fit(samples())
    found = fit_many(source.transfer("encoder"), TARGET, seeds=range(2))
    assert stacks[1:] == [1, 1]
    assert all(len(same(detector, source)) == 4 for detector in found)


def test_checkpoint__of_a_fit_with_another_start__refused(tmp_path):
    file = str(tmp_path / "fit.checkpoint")
    one, other = (small(random_state=s).fit(samples()).transfer() for s in (0, 1))
    for target in (one, other):
        target.set_params(random_state=0, checkpoint=file)

    def fail(event):
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        # After the first epoch, which the file then holds.
        clone(one).set_params(callbacks=[lambda e: e.epoch == 1 and fail(e)]).fit(TARGET)
    with pytest.raises(deepod.InvalidFileError, match="start is"):
        other.fit(TARGET)
    resumed = one.fit(TARGET)
    whole = clone(one).set_params(checkpoint=None).fit(TARGET)
    np.testing.assert_array_equal(resumed.decision_scores_, whole.decision_scores_)


def test_transfer__few_rows_of_the_target__better_than_from_nothing():
    source = small(epochs=30).fit(subspace(1000, 1))
    few = subspace(25, 2, gain=2.0, shift=1.0)
    normal, odd = subspace(200, 3, gain=2.0, shift=1.0), subspace(200, 4, gain=2.0, shift=1.0)
    odd += np.random.default_rng(5).normal(size=odd.shape)
    X, y = np.concatenate([normal, odd]), np.repeat([0, 1], 200)
    tuned, nothing = (
        roc_auc_score(y, detector.set_params(epochs=10).fit(few).decision_function(X))
        for detector in (source.transfer("encoder", lr_scale=0.5), small())
    )
    assert tuned > nothing + 0.05
    assert tuned > 0.9


# --- partial_fit ----------------------------------------------------------------------------------


@every_trained
def test_partial_fit__first_fits_then_goes_on__scaling_stays_and_threshold_follows(name):
    X, new = samples(), samples(n=30, seed=2) + 1
    detector = fast(name)
    assert detector.partial_fit(X) is detector
    np.testing.assert_array_equal(detector.decision_scores_, fitted(name).decision_scores_)
    before = pickle.loads(pickle.dumps(detector))
    detector.partial_fit(new)
    np.testing.assert_array_equal(detector.shift_, before.shift_)
    np.testing.assert_array_equal(detector.scale_, before.scale_)
    assert len(same(detector, before)) < len(weights(before)) / 2
    assert len(detector.decision_scores_) == 30
    np.testing.assert_allclose(detector.decision_scores_, detector.decision_function(new), 1e-5)
    assert detector.threshold_ == np.quantile(detector.decision_scores_, 0.9)
    assert detector._start is None


@every_trained
def test_partial_fit__tiny_steps__goes_on_from_the_weights_that_there_are(name):
    detector = fast(name).fit(samples())
    before = weights(detector)
    detector.set_params(lr=1e-9).partial_fit(TARGET)
    for parameter, p in weights(detector).items():
        torch.testing.assert_close(p, before[parameter], rtol=1e-6, atol=1e-6)


def test_partial_fit__level_moves__follows_and_keeps_finding_anomalies():
    detector = small(epochs=15, lr=1e-2).fit(subspace(500, 0))
    stale = pickle.loads(pickle.dumps(detector))
    for day in range(1, 6):
        detector.partial_fit(subspace(300, day, shift=0.4 * day))
    new = subspace(300, 9, shift=2.0)
    odd = new + np.random.default_rng(1).normal(size=new.shape)
    assert stale.predict(new).mean() > 0.5
    assert detector.predict(new).mean() < 0.2
    scores = detector.decision_function(np.concatenate([new, odd]))
    assert roc_auc_score(np.repeat([0, 1], 300), scores) > 0.95
    shift = np.mean(subspace(500, 0), axis=0)
    np.testing.assert_allclose(detector.shift_, shift)


def test_partial_fit__what_it_cannot_take__refused_and_as_before(tmp_path):
    detector = small().fit(samples())
    scores = detector.decision_function(TARGET)
    for X, words in [
        (TARGET[:, :3], "5 features"),
        (TARGET[:1], "at least two rows"),
        (sources.array(TARGET), r"X, 60 rows on disk, .* as X\.read\(start, stop\); or call fit"),
        (np.full((9, 5), np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=words):
            detector.partial_fit(X)
    np.testing.assert_array_equal(detector.decision_function(TARGET), scores)


def test_partial_fit__memory_map_above_the_limit__part_by_part(tmp_path):
    np.save(tmp_path / "rows.npy", TARGET)
    X = np.load(tmp_path / "rows.npy", mmap_mode="r")
    detector = small(memory_limit=X.nbytes // 2).fit(samples()[:20])
    before = weights(detector)
    with pytest.raises(ValueError, match=r"as X\[start:stop\]; or call fit"):
        detector.partial_fit(X)
    for start in (0, 30):  # as the message says
        detector.partial_fit(X[start : start + 30])
    assert not torch.equal(weights(detector)["encoder.1.weight"], before["encoder.1.weight"])


def test_partial_fit__calibration__learned_from_the_new_rows():
    detector = small(calibration_fraction=0.5, false_alarm_rate=0.1).fit(samples(n=60))
    detector.partial_fit(samples(n=80, seed=3) + 2)
    assert len(detector.calibration_scores_) == 40
    assert detector.threshold_ in detector.calibration_scores_


def test_partial_fit__mixed_table__new_categories_and_gaps_as_known():
    def table(n, names, seed):
        rng = np.random.default_rng(seed)
        return pd.DataFrame({"size": rng.normal(size=n), "kind": rng.choice(names, n)})

    detector = fast("AutoEncoder", categorical_features=["kind"], missing="impute")
    detector.fit(table(60, ["a", "b"], 0))
    encoder, fill = detector.encoder_, detector.fill_
    new = table(40, ["a", "c"], 1)
    new.loc[3, "size"] = np.nan
    detector.partial_fit(new)
    assert detector.encoder_ is encoder
    np.testing.assert_array_equal(detector.fill_, fill)
    assert detector.predict(new).shape == (40,)


def test_partial_fit__labels__asked_for_again():
    detector = fast("AnoRand", supervision="supervised")
    y = np.arange(60) % 6 == 0
    detector.fit(TARGET, y)
    with pytest.raises(ValueError, match="needs labels"):
        detector.partial_fit(TARGET)
    assert detector.partial_fit(TARGET, y).predict(TARGET).shape == (60,)


def test_partial_fit__after_a_frozen_transfer__still_frozen():
    source = small().fit(samples())
    target = source.transfer("encoder").fit(TARGET)
    target.partial_fit(samples(seed=4))
    assert len(same(target, source)) == 4


def test_partial_fit__auto_epochs__no_more_passes_than_before_nor_steps_than_auto():
    detector = small(epochs="auto").fit(samples(n=200))
    assert detector.epochs_ == 40  # the most
    assert detector.partial_fit(samples(n=10)).epochs_ == 40
    assert detector.partial_fit(samples(n=128 * 50)).epochs_ == 5


# --- series ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["LSTMAD", "LSTMAE", "LSTMVAE"])
def test_series__transfer_and_partial_fit__frozen_stays_and_errors_are_learned_anew(name):
    source = fast_series(name, epochs=2).fit(waves(120))
    target = source.transfer("encoder").fit(3 * waves(150, seed=1) + 1)
    frozen = set(target._start.frozen)
    assert frozen
    assert frozen <= same(target, source)
    assert len(same(target, source)) < len(weights(source))
    assert not torch.equal(target.module_.errors.weight, source.module_.errors.weight)
    assert not np.array_equal(target.shift_, source.shift_)
    before, shift = weights(source), source.shift_
    source.partial_fit(waves(90, seed=2) + 0.5)
    assert len(source.decision_scores_) == 90
    assert source.window_ == 10
    np.testing.assert_array_equal(source.shift_, shift)
    assert not any(torch.equal(p, before[n]) for n, p in weights(source).items() if p.numel() > 8)


def test_series__encoder_of_a_forecaster__all_but_the_head():
    detector = LSTMAD(hidden=(4, 3), epochs=1, window=10).fit(waves(60))
    frozen = detector.transfer("encoder")._start.frozen
    assert {name.partition(".")[0] for name in frozen} == {"layers"}
    assert len(frozen) == 8
    assert {name.split(".")[1] for name in detector.transfer(1)._start.frozen} == {"0"}


def test_series__other_channels__refused():
    detector = LSTMAD(hidden=(4,), epochs=1, window=10).fit(waves(60))
    with pytest.raises(ValueError, match="both must be the same"):
        detector.transfer().fit(waves(60, channels=3))
    with pytest.raises(TypeError, match="trains no weights"):
        deepod.series.ReRe(epochs=1).fit(waves(60, channels=1)).transfer()


def test_neighbors__message_of_partial_fit__names_the_class():
    with pytest.raises(AttributeError, match="Neighbors"):
        Neighbors().partial_fit(TARGET)
