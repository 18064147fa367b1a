"""Many detectors at once."""

import dataclasses

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from pyod.models.iforest import IForest
from pyod.models.knn import KNN
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV, GroupKFold, StratifiedKFold
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import OneClassSVM
from sklearn.utils.estimator_checks import parametrize_with_checks

from deepod import (
    PLAD,
    AnoRand,
    AutoEncoder,
    BaseDetector,
    Consensus,
    Neighbors,
    SeedEnsemble,
    StackedSearchCV,
    fit_many,
)
from deepod import ensemble as ensemble_module
from deepod._scoring import sketch
from deepod._training import together
from deepod.bench import detectors
from deepod.callbacks import EarlyStopping
from deepod.networks import MLP, Recurrent
from deepod.params import param, parameters
from deepod.types import Phase

from .cases import NAMES, REPRESENTATIVES, fast, samples
from .test_engines import SMOOTH, relative
from .test_neighbors import tail
from .test_sklearn import EXPECTED_FAILURES

X = samples(n=90)


@pytest.mark.parametrize("name", NAMES)
def test_fit_many__equals_fitting_one_by_one(name, stacks):
    detector = fast(name, network=SMOOTH, epochs=5, batch_size=32)
    many = fit_many(detector, X, seeds=[3, 4, 5])
    assert stacks == [3]
    for seed, member in zip([3, 4, 5], many, strict=True):
        assert member.random_state == seed
        alone = fast(name, network=SMOOTH, epochs=5, batch_size=32, random_state=seed).fit(X)
        assert relative(member, alone) < 1e-4
        assert set(vars(member)) == set(vars(alone))
        assert [h["epoch"] for h in member.history_] == [h["epoch"] for h in alone.history_]


# A second value of every hyper-parameter, whether losses read it or not.
OTHERS = {
    "adversarial_weight": 0.4,
    "alpha": "raw",
    "ascent_steps": 1,
    "autoregression_weight": 0.3,
    "batch_size": 16,
    "calibration_fraction": 0.2,
    "callbacks": (EarlyStopping(patience=1),),
    "center_eps": 0.3,
    "checkpoint_every": 3,
    "cluster_weight": 3.0,
    "contamination": 0.2,
    "corruption": "masking",
    "covariance_weight": 0.01,
    "cross_fitting": True,
    "density_weight": 0.5,
    "detection_weight": 0.6,
    "device": "cpu",
    "dropout": 0.2,
    "energy_weight": 0.3,
    "entropy_weight": 0.01,
    "epochs": 2,
    "error": "mse",
    "estimation_hidden": (2,),
    "false_alarm_rate": 0.2,
    "far": 0.2,
    "feature_weight": 0.3,
    "fusion": "detection",
    "gamma": 3.0,
    "gate": None,
    "gates": ("input",),
    "gaussian_weight": 0.4,
    "input_shape": (5,),
    "instance_norm": "l2",
    "interpolation_weight": 0.5,
    "k_neighbors": 2,
    "kl": "gaussian",
    "kl_weight": 0.02,
    "known_ratio": 0.2,
    "l0": "hard_concrete",
    "l0_weight": 0.0,
    "lam": 2.0,
    "latent_dim": 3,
    "lr": 3e-3,
    "map_hidden": 6,
    "masked_share": 0.5,
    "max_grad_norm": 0.5,
    "max_rows": 30,
    "memory_limit": 1 << 20,
    "milestones": (2,),
    "mining_lr": 0.3,
    "mining_steps": 2,
    "missing": "impute",
    "n_bins": 4,
    "n_clusters": 2,
    "n_components": 2,
    "n_members": 3,
    "n_neighbors": 2,
    "n_slots": 5,
    "n_starts": 3,
    "network": MLP(hidden=(5,), activation="tanh"),
    "noise_ratio": 0.03,
    "noise_std": 0.9,
    "normalize": None,
    "novelty_layers": 1,
    "novelty_weight": 0.2,
    "nu": 0.3,
    "objective": "soft",
    "optimizer": "adamw",
    "pca": "first",
    "pca_variance": 0.5,
    "penalty": "sum",
    "perturbator": "mlp",
    "perturbator_hidden": (4,),
    "power": 4.0,
    "pretrain_epochs": 1,
    "radius": 0.8,
    "random_state": 7,
    "reach": (1.0, 3.0),
    "reconstruction_weight": 0.3,
    "ridge": 0.1,
    "rows_per_tree": 16,
    "scaler": "minmax",
    "score_by": "reconstruction",
    "search_lr": 0.1,
    "search_steps": 2,
    "shrink": 0.03,
    "similarity": "cosine",
    "step_size": 0.3,
    "supervision": None,
    "suspects": 0.2,
    "svdd_weight": 0.5,
    "symmetry": "none",
    "synthetic_ratio": 0.06,
    "validation_fraction": 0.2,
    "warmup_epochs": 1,
    "weight_decay": 0.01,
    "weight_lr": 0.1,
    "z0": "output",
    "window": 3,
    "max_windows": 3,
    "temperature": 0.5,
    "n_transforms": 3,
    "n_trees": 20,
    "transform_dim": 3,
    "margin": 0.5,
    "triplet_weight": 0.3,
    "eps": 0.3,
    "shift": 0.25,
    "likelihood": "softmax",
    "view": "multiplicative",
    "transform_hidden": (4,),
}
# Other names of choices.
OTHERS_OF = {
    "DSEBM": {"score_by": "reconstruction"},
    "NeuTraL": {"offset": 0.5},
    "VAE": {"score_by": "elbo"},
}
# Of the shared ones: what training reads, a number of the optimiser, and what only scoring reads.
FEW = {"contamination", "lr", "network", "validation_fraction", "weight_decay"}
NOT_COMPARED = {
    "categorical_features",
    "datetime_features",
    "checkpoint",
    "engine",
    "use_decoder",
    "verbose",
}
# Settings under which more of them are read.
SPECIAL = {"DAE": {"corruption": "masking"}, "DeepSVDD": {"objective": "soft"}}


def compared(name):
    """Hyper-parameters to compare: all of representatives, of the others their own."""
    known = {field.name for field in dataclasses.fields(BaseDetector)}
    own = set(fast(name).get_params(deep=False)) - NOT_COMPARED
    return sorted(own if name in REPRESENTATIVES else own - known | FEW)


@pytest.mark.parametrize("name", NAMES)
def test_fit_all__any_hyper_parameter_differs__as_alone(name, stacks):
    """Nobody lists what may differ: it is found out, and a loss never sees another's value."""
    base = {"network": SMOOTH, "epochs": 3, "batch_size": 32} | SPECIAL.get(name, {})
    others = OTHERS | OTHERS_OF.get(name, {})
    changes = [{}, *({key: others[key]} for key in compared(name))]
    build = [lambda c=c: fast(name, **(base | clone(c, safe=False))) for c in changes]
    members = [make() for make in build]
    errors = together.fit_all(members, [X] * len(build), [None] * len(build))
    assert errors == [None] * len(build)
    # What training does not read, and numbers in the loss.
    assert max(stacks) > (10 if name in REPRESENTATIVES else 3)
    for change, ours, make in zip(changes, members, build, strict=True):
        assert relative(ours, make().fit(X)) < 1e-4, change


def test_fit_all__loss_that_branches_on_a_number__equal_numbers_side_by_side(stacks):
    detectors = [
        fast("IAELSTMKL", network=SMOOTH, svdd_weight=weight, random_state=seed)
        for weight in (0.5, 1.0)
        for seed in (0, 1)
    ]
    assert together.fit_all(detectors, [X] * 4, [None] * 4) == [None] * 4
    assert stacks == [4, 2, 2]  # together it fails, and each weight by itself does not


def test_fit_all__loss_reads_behind_our_back__in_turn(stacks):
    class Odd(AutoEncoder):
        def _loss(self, module, batch):
            weight = 2.0 if vars(self)["random_state"] == 0 else 1.0  # not seen as it is read
            return {k: weight * v for k, v in super()._loss(module, batch).items()}

    detectors = [Odd(epochs=2, network=SMOOTH, random_state=k) for k in range(3)]
    assert together.fit_all(detectors, [X] * 3, [None] * 3) == [None] * 3
    assert stacks == [3, 1, 1, 1]
    alone = Odd(epochs=2, network=SMOOTH, random_state=1).fit(X)
    np.testing.assert_array_equal(detectors[1].decision_scores_, alone.decision_scores_)


@parameters
class Frozen(AutoEncoder):
    """Its module differs in what is trained, which no name and no shape says."""

    freeze: bool = param(default=False, accepts=["boolean"], doc="Whether the encoder stays.")

    def _build_module(self, shape):
        module = super()._build_module(shape)
        module.encoder.requires_grad_(not self.freeze)
        return module


@parameters
class Squared(AutoEncoder):
    """Its phases choose between two losses, neither of which reads the parameter."""

    square: bool = param(default=False, accepts=["boolean"], doc="Whether the error is squared.")

    def _phases(self):
        return [Phase("fit", self.epochs_, self._squared if self.square else self._loss)]

    def _squared(self, module, batch):
        error = module(batch.x) - batch.x
        return {"reconstruction": error.square().mean()}


@pytest.mark.parametrize(("cls", "name"), [(Frozen, "freeze"), (Squared, "square")])
def test_fit_all__module_or_phases_depend_on_it__apart(cls, name, stacks):
    base = {"epochs": 5, "network": SMOOTH, "batch_size": 32, "random_state": 0}
    base["cross_fitting"] = False
    members = [cls(**base, **{name: value}) for value in (False, True, False)]
    assert together.fit_all(members, [X] * 3, [None] * 3) == [None] * 3
    assert sorted(stacks) == [1, 2]
    for member in members:
        assert relative(member, cls(**base, **{name: getattr(member, name)}).fit(X)) < 1e-4


def test_fit_all__checkpoints__each_alone(tmp_path, stacks):
    names = [str(tmp_path / f"{k}.ckpt") for k in range(2)]
    members = [fast("DeepSVDD", network=SMOOTH, checkpoint=name) for name in names]
    assert together.fit_all(members, [X] * 2, [None] * 2) == [None] * 2
    assert stacks == [1, 1]


def test_search__random_state_that_goes_on__drawn_once():
    """Candidates that do not train together are set up again, by the seeds of before."""
    y = np.arange(len(X)) % 10 == 0

    def searched(kind):
        detector = fast("IAELSTMKL", random_state=np.random.RandomState(3), network=SMOOTH)
        grid = {"svdd_weight": [0.5, 1.0]}
        search = kind(detector, grid, scoring="roc_auc", cv=2, refit=False).fit(X, y)
        return search.cv_results_["mean_test_score"]

    np.testing.assert_allclose(searched(StackedSearchCV), searched(GridSearchCV), atol=1e-6)


def test_fit_many__members_that_stop__recorded_anew_in_the_mode_of_training():
    """Members that are left train on as alone, though the others were watched meanwhile."""

    def make(seed):
        return fast(
            "DeepSVDD",
            objective="soft",
            validation_fraction=0.2,
            epochs=30,
            pretrain_epochs=0,
            batch_size=16,
            callbacks=(EarlyStopping(patience=2),),
            random_state=seed,
        )

    many = fit_many(make(0), X, seeds=range(4))
    assert len({len(member.history_) for member in many}) > 1
    for seed, member in enumerate(many):
        alone = make(seed).fit(X)
        assert len(member.history_) == len(alone.history_)
        assert relative(member, alone) < 1e-3


@pytest.mark.parametrize(
    ("settings", "data"),
    [
        ({"network": Recurrent(hidden=(4,))}, samples("windows")),
        ({"network": "lenet"}, samples("images")),
    ],
    ids=["recurrent", "images"],
)
def test_fit_many__networks_that_do_not_stack__in_turn(settings, data, stacks):
    many = fit_many(AutoEncoder(epochs=2, **settings), data, seeds=[0, 1])
    assert stacks == [1, 1]
    alone = AutoEncoder(epochs=2, random_state=1, **settings).fit(data)
    np.testing.assert_array_equal(many[1].decision_scores_, alone.decision_scores_)


def test_fit_many__loss_that_does_not_stack__in_turn(stacks):
    class Branching(AutoEncoder):
        def _loss(self, module, batch):
            terms = super()._loss(module, batch)
            return terms if terms["reconstruction"].item() > 0 else {}

    many = fit_many(Branching(epochs=2, network=SMOOTH), X, seeds=[0, 1])
    assert stacks == [2, 1, 1]
    alone = AutoEncoder(epochs=2, network=SMOOTH, random_state=1).fit(X)
    np.testing.assert_array_equal(many[1].decision_scores_, alone.decision_scores_)


def test_fit_many__early_stopping__each_for_itself():
    settings = {
        "epochs": 12,
        "network": SMOOTH,
        "lr": 0.05,
        "validation_fraction": 0.3,
    }
    detector = AutoEncoder(callbacks=[EarlyStopping(patience=1)], **settings)
    many = fit_many(detector, X, seeds=range(4))
    lengths = []
    for seed, member in enumerate(many):
        alone = AutoEncoder(
            callbacks=[EarlyStopping(patience=1)], random_state=seed, **settings
        ).fit(X)
        lengths.append(len(alone.history_))
        assert len(member.history_) == len(alone.history_)
        assert relative(member, alone) < 1e-3
    assert len(set(lengths)) > 1


def test_fit_many__the_detector_is_not_changed__members_are_pickled_small():
    import pickle

    detector = AutoEncoder(epochs=1, network=SMOOTH)
    many = fit_many(detector, X, seeds=range(8))
    assert not hasattr(detector, "module_")
    assert detector.random_state is None
    alone = AutoEncoder(epochs=1, network=SMOOTH, random_state=0).fit(X)
    assert len(pickle.dumps(many[0])) < 1.1 * len(pickle.dumps(alone))


def test_fit_many__processes():
    detector = AutoEncoder(epochs=2, network=SMOOTH)
    one = fit_many(detector, X, seeds=range(4))
    two = fit_many(detector, X, seeds=range(4), n_jobs=2)
    for a, b in zip(one, two, strict=True):
        assert relative(a, b) < 1e-5


def test_fit_many__no_seeds__nothing():
    assert fit_many(AutoEncoder(), X, seeds=[]) == []


def test_fit_many__errors():
    with pytest.raises(TypeError, match="detector must be a deepod detector such as PLAD"):
        fit_many(IForest(), X, seeds=[0])
    with pytest.raises(ValueError, match="lr"):
        fit_many(AutoEncoder(lr=-1.0), X, seeds=[0, 1])
    with pytest.raises(FloatingPointError, match="became"):
        fit_many(AutoEncoder(lr=1e35, optimizer="sgd", epochs=3), X, seeds=[0, 1])


def test_fit_many__rows_that_members_share_are_read_only():
    class Changes(AutoEncoder):
        def _prepare(self, X, y, rng):
            X += rng.normal(size=X.shape)
            return X, None

    with pytest.raises(ValueError, match="read-only"):
        fit_many(Changes(epochs=1), X, seeds=[0, 1])


def test_side_by_side__long_arrays_as_parameters__told_apart(stacks):
    @parameters
    class Weighted(AutoEncoder):
        weights: np.ndarray = param(default=None, accepts=[np.ndarray, None], doc="Of columns.")

        def _loss(self, module, batch):
            error = (module(batch.x) - batch.x).square() * torch.as_tensor(self.weights[:5])
            return {"error": error.mean()}

    light = np.ones(2000, np.float32)
    heavy = light.copy()
    heavy[3] = 50
    detectors = [Weighted(epochs=2, random_state=0, weights=w) for w in (light, heavy)]
    assert together.fit_all(detectors, [X, X], [None, None]) == [None, None]
    assert stacks == [1, 1]


# --- SeedEnsemble ---------------------------------------------------------------------------------


@parametrize_with_checks(
    [SeedEnsemble(fast("AutoEncoder"), 2, random_state=0)],
    expected_failed_checks=lambda detector: EXPECTED_FAILURES,
)
def test_seed_ensemble__scikit_learn_check_passes(estimator, check):
    check(estimator)


def test_seed_ensemble__joins_tails():
    ensemble = SeedEnsemble(fast("AutoEncoder"), n_members=3, random_state=0).fit(X)
    new = samples(n=11, seed=1)
    parts = [tail(m.decision_function(new), m.decision_scores_) for m in ensemble.members_]
    np.testing.assert_allclose(ensemble.decision_function(new), np.mean(parts, 0))
    assert len({m.random_state for m in ensemble.members_}) == 3
    np.testing.assert_array_equal(ensemble.decision_function(X), ensemble.decision_scores_)
    assert ensemble.labels_.mean() == pytest.approx(0.1, abs=0.02)
    for combination, function in (("median", np.median), ("max", np.max)):
        ensemble.set_params(combination=combination).fit(X)
        assert ensemble.decision_function(new) == pytest.approx(function(parts, 0))


def test_seed_ensemble__same_seed_same_scores__nested_parameters__names():
    frame = pd.DataFrame(X, columns=list("abcde"))
    ensemble = SeedEnsemble(fast("PLAD"), 2, random_state=1)
    ensemble.set_params(detector__lam=0.5, contamination=0.3)
    first = ensemble.fit(frame).decision_scores_
    assert ensemble.members_[0].lam == 0.5
    assert ensemble.feature_names_in_.tolist() == list("abcde")
    assert ensemble.labels_.mean() == pytest.approx(0.3, abs=0.02)
    np.testing.assert_array_equal(ensemble.fit(frame).decision_scores_, first)
    assert not hasattr(ensemble.fit(X), "feature_names_in_")


def test_seed_ensemble__failed_fit__leaves_it_as_it_was():
    ensemble = SeedEnsemble(fast("AutoEncoder"), 2, random_state=0).fit(X)
    before = ensemble.decision_scores_
    with pytest.raises(ValueError, match="NaN"):
        ensemble.fit(np.full((5, 5), np.nan))
    assert ensemble.decision_scores_ is before
    with pytest.raises(ValueError, match="n_members"):
        SeedEnsemble(fast("AutoEncoder"), 0).fit(X)
    with pytest.raises(ValueError, match="detector"):
        SeedEnsemble(IForest()).fit(X)


def test_seed_ensemble__of_rows_on_disk__members_that_kept_no_scores(tmp_path, monkeypatch):
    pytest.importorskip("datasketches")
    monkeypatch.setattr(sketch, "_STAND_INS", 1001)
    rows = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (8000, 2))
    rows[:] = np.random.default_rng(0).normal(size=rows.shape)
    member = AutoEncoder(network=SMOOTH, epochs=1, batch_size=512, memory_limit=1 << 14)
    ensemble = SeedEnsemble(member, 2, random_state=0).fit(rows)
    assert not hasattr(ensemble.members_[0], "decision_scores_")
    assert ensemble.predict(rows).mean() == pytest.approx(0.1, abs=2e-3)


# --- Consensus ------------------------------------------------------------------------------------

TABLE, NEW = samples(n=120), samples(n=60, seed=1)
ODD = np.concatenate([NEW, 6 * NEW[:20]])
IS_ODD = np.arange(80) >= 60


def of_all_kinds(**params):
    """Detectors of ours, PyOD's, scikit-learn's, and a pipeline: every score has its sign."""
    members = [
        Neighbors(),
        fast("AutoEncoder", random_state=None),
        IForest(n_estimators=20),
        IsolationForest(n_estimators=20),
        make_pipeline(StandardScaler(), KNN()),
        make_pipeline(StandardScaler(), OneClassSVM()),
    ]
    return Consensus(members, **({"random_state": 0} | params))


@pytest.fixture(scope="module")
def mixed():
    return of_all_kinds().fit(TABLE)


@parametrize_with_checks(
    [Consensus([Neighbors(), fast("AutoEncoder")], random_state=0)],
    expected_failed_checks=lambda detector: EXPECTED_FAILURES,
)
def test_consensus__scikit_learn_check_passes(estimator, check):
    check(estimator)


def test_consensus__of_all_kinds__each_member_ranks_what_is_odd_higher(mixed):
    assert roc_auc_score(IS_ODD, mixed.decision_function(ODD)) > 0.95
    tails = mixed._tails([ensemble_module.scores_of(m, ODD) for m in mixed.members_])
    assert len(tails) == 6
    for own in tails:
        assert roc_auc_score(IS_ODD, own) > 0.9
        assert (own >= 0).all()


@pytest.mark.parametrize("combination", ["mean", "median", "max"])
def test_consensus__joins_tails_of_scores_as_if_unseen(combination):
    members = [Neighbors(), fast("AutoEncoder"), fast("DeepSVDD")]
    consensus = Consensus(members, combination=combination, random_state=0).fit(TABLE)
    parts = [tail(m.decision_function(NEW), m.decision_scores_) for m in consensus.members_]
    expected = getattr(np, combination)(parts, 0)
    np.testing.assert_allclose(consensus.decision_function(NEW), expected, rtol=1e-6)


def test_consensus__labels_and_new_rows__about_the_share():
    consensus = of_all_kinds(contamination=0.2).fit(TABLE)
    # Two rows may be at the same distance, from each other: those that are equal have one label.
    at_threshold = (consensus.decision_scores_ == consensus.threshold_).mean()
    assert consensus.labels_.mean() <= 0.2 <= consensus.labels_.mean() + at_threshold
    assert consensus.decision_scores_.shape == (120,)
    assert consensus.predict(samples(n=1000, seed=2)).mean() == pytest.approx(0.2, abs=0.1)
    consensus.contamination = 0
    assert not consensus.labels_.any()


def test_consensus__unseen__when_all_members_are():
    rate = {"false_alarm_rate": 0.1, "random_state": 0}
    unseen = Consensus([Neighbors(), IForest(n_estimators=10)], **rate).fit(TABLE)
    assert unseen.unseen_
    np.testing.assert_array_equal(unseen.predict(NEW), unseen.p_values(NEW) <= 0.1)
    seen = Consensus([Neighbors(), fast("AutoEncoder")], **rate).fit(TABLE)
    assert not seen.unseen_
    with pytest.raises(NotFittedError, match="no calibration scores"):
        seen.predict(NEW)
    assert seen.calibrate(NEW).predict(TABLE).mean() < 0.3


def test_consensus__of_our_own__train_side_by_side(stacks):
    members = [fast("AutoEncoder", network=SMOOTH, random_state=k) for k in range(3)]
    Consensus([*members, IForest(n_estimators=5)]).fit(TABLE)
    assert stacks == [3]


@pytest.mark.parametrize(("novelty", "section"), [(False, "forest-max"), (True, "without-network")])
def test_consensus__default__what_was_measured(novelty, section):
    """The results files name the section of the settings, not the default."""
    measured, *_ = detectors.find(f"benchmarks/consensus.toml:{section}").build(0)
    one = Consensus(novelty=novelty, random_state=0).fit(TABLE)
    assert one.detectors is None
    assert [repr(m) for m in one._unfitted()] == [repr(m) for m in measured._unfitted()]
    assert one.combination_ == measured.combination
    np.testing.assert_array_equal(
        one.decision_function(NEW), measured.fit(TABLE).decision_function(NEW)
    )


def test_consensus__combination__wins_over_novelty():
    assert Consensus(novelty=True, combination="max").fit(TABLE).combination_ == "max"
    assert Consensus([Neighbors()], novelty=True).fit(TABLE).combination_ == "mean"


@pytest.mark.parametrize("combination", ["mean", "median", "max"])
@pytest.mark.parametrize("n", [2, 3])
def test_consensus__explain__sizes_sum_to_the_score(combination, n):
    members = [Neighbors(), fast("AutoEncoder"), fast("DAE")][:n]
    consensus = Consensus(members, combination=combination, random_state=0).fit(TABLE)
    contributions = consensus.explain(ODD)
    assert contributions.shape == ODD.shape
    np.testing.assert_allclose(contributions.sum(1), consensus.decision_function(ODD), rtol=1e-5)


def test_consensus__explain__one_odd_value_is_blamed__members_without_it_named(mixed):
    consensus = Consensus([Neighbors(), fast("AutoEncoder", epochs=20)], random_state=0).fit(TABLE)
    np.testing.assert_array_equal(consensus.explain(20 * np.eye(5)).argmax(1), range(5))
    with pytest.raises(TypeError, match="IForest has no explain"):
        mixed.explain(NEW)


def test_consensus__same_seed__same_scores__and_another_one_others(mixed):
    same, other = of_all_kinds().fit(TABLE), of_all_kinds(random_state=1).fit(TABLE)
    np.testing.assert_array_equal(same.decision_scores_, mixed.decision_scores_)
    np.testing.assert_array_equal(same.decision_function(NEW), mixed.decision_function(NEW))
    assert not np.array_equal(other.decision_scores_, mixed.decision_scores_)


def test_consensus__members_with_a_seed_of_their_own__keep_it():
    pipeline = make_pipeline(StandardScaler(), IsolationForest(n_estimators=5))
    members = [
        fast("AutoEncoder", random_state=7),
        IForest(5, random_state=8),
        IForest(5),
        pipeline,
    ]
    fitted = Consensus(members, random_state=0).fit(TABLE).members_
    assert [m.random_state for m in fitted[:2]] == [7, 8]
    drawn = fitted[2].random_state, fitted[3][-1].random_state
    assert None not in drawn
    assert drawn[0] != drawn[1]


def test_consensus__given_detectors__are_neither_fitted_nor_changed():
    members = [Neighbors(), IForest(n_estimators=5)]
    consensus = Consensus(members, random_state=0).fit(TABLE)
    assert consensus.detectors is members
    assert members[1].random_state is None
    assert not hasattr(members[0], "module_")
    assert not hasattr(members[1], "decision_scores_")


def test_consensus__clone_and_get_params():
    consensus = of_all_kinds(combination="max", contamination=0.2)
    twin = clone(consensus)
    assert twin.get_params()["combination"] == "max"
    assert [type(m) for m in twin.detectors] == [type(m) for m in consensus.detectors]
    assert twin.detectors[0] is not consensus.detectors[0]
    assert not hasattr(clone(consensus.fit(TABLE)), "members_")
    assert set(consensus.get_params(deep=False)) == {
        *("detectors", "novelty", "member_params", "combination", "contamination"),
        *("false_alarm_rate", "n_jobs", "random_state"),
    }


def test_consensus__failed_fit__leaves_it_as_it_was():
    consensus = Consensus([Neighbors(), IForest(n_estimators=5)], random_state=0)
    before = consensus.fit(TABLE).decision_scores_
    for bad in (np.full((5, 5), np.nan), TABLE[:1]):
        with pytest.raises(ValueError, match=r"NaN|sample|row"):
            consensus.fit(bad)
    assert consensus.decision_scores_ is before
    unfitted = Consensus([fast("AutoEncoder", lr=1e35, optimizer="sgd", epochs=3)])
    with pytest.raises(FloatingPointError, match="became"):
        unfitted.fit(TABLE)
    with pytest.raises(NotFittedError):
        unfitted.decision_function(TABLE)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (KMeans(), "got KMeans"),
        (LocalOutlierFactor(), r"novelty=True\), got LocalOutlierFactor"),
        (make_pipeline(StandardScaler()), "got Pipeline"),
        ("PLAD", "PLAD"),
        (None, "None"),
    ],
)
def test_consensus__member_that_is_no_detector__named(wrong, message):
    with pytest.raises(TypeError, match=message):
        Consensus([Neighbors(), wrong]).fit(TABLE)


def test_consensus__bad_parameters__named():
    with pytest.raises(ValueError, match="at least one"):
        Consensus([]).fit(TABLE)
    with pytest.raises(ValueError, match="detectors"):
        Consensus(IForest()).fit(TABLE)
    with pytest.raises(ValueError, match="combination"):
        Consensus([Neighbors()], combination="sum").fit(TABLE)


def test_consensus__few_labels__only_ours_are_given_them():
    rows, y = np.concatenate([TABLE, 5 + NEW[:12]]), np.repeat([0, 1], [120, 12])
    few = AnoRand(supervision="few_labels", epochs=3)
    members = [few, IForest(n_estimators=5)]
    consensus = Consensus(members, false_alarm_rate=0.1, random_state=0).fit(rows, y)
    assert np.isfinite(consensus.decision_scores_).all()
    assert len(consensus.calibration_scores_) == 120  # none of them labelled 1
    assert consensus.predict(samples(n=500, seed=3)).mean() == pytest.approx(0.1, abs=0.07)
    assert consensus.predict(5 + samples(n=500, seed=3)).mean() > 0.9


@pytest.mark.filterwarnings("error")
def test_consensus__data_frames__names_and_no_warning():
    frame = pd.DataFrame(TABLE, columns=list("abcde"))
    members = [Neighbors(), IForest(n_estimators=5), IsolationForest(n_estimators=5)]
    consensus = Consensus(members, random_state=0).fit(frame)
    assert consensus.feature_names_in_.tolist() == list("abcde")
    new = pd.DataFrame(NEW, columns=list("abcde"))
    scores = consensus.decision_function(new)
    last = Consensus(members[::-1], random_state=0).fit(frame)
    assert last.feature_names_in_.tolist() == list("abcde")
    bare = Consensus(members, random_state=0).fit(TABLE)
    np.testing.assert_allclose(scores, bare.decision_function(NEW))
    with pytest.raises(ValueError, match="feature names"):
        consensus.decision_function(new[list("edcba")])


def test_consensus__score_batches__as_at_once(mixed):
    parts = np.concatenate(list(mixed.score_batches([NEW[:20], NEW[20:]])))
    np.testing.assert_allclose(parts, mixed.decision_function(NEW), rtol=1e-6)


def test_consensus__windows__of_ours():
    rows = samples("windows")
    consensus = Consensus([Neighbors(), fast("AutoEncoder")], random_state=0).fit(rows)
    assert consensus.decision_function(rows[:7]).shape == (7,)
    assert consensus.explain(rows[:3]).shape == rows[:3].shape


def test_consensus__other_combination_after_fit__scores_and_threshold_stay_together():
    consensus = Consensus([Neighbors(), fast("AutoEncoder")], random_state=0).fit(TABLE)
    scores, threshold = consensus.decision_function(TABLE), consensus.threshold_
    consensus.set_params(combination="mean")
    np.testing.assert_array_equal(consensus.decision_function(TABLE), scores)
    assert (consensus.combination_, consensus.threshold_) == ("max", threshold)


def test_consensus__of_others_alone__has_no_shape():
    consensus = Consensus([IForest(n_estimators=5)], random_state=0).fit(TABLE)
    assert not hasattr(consensus, "input_shape_")
    assert consensus.predict(TABLE).shape == (len(TABLE),)


def test_consensus__member_without_a_number_for_a_row__named():
    class Silent(IForest):
        def decision_function(self, X):
            return np.where(np.arange(len(X)) == 0, np.nan, super().decision_function(X))

    with pytest.raises(FloatingPointError, match="Silent"):
        Consensus([Silent(n_estimators=5)]).fit(TABLE)


# --- StackedSearchCV ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled():
    X = samples(n=90)
    y = (np.arange(90) % 9 == 0).astype(int)
    X[y == 1] += 2
    return X, y


def both(labelled, grid, estimator=None, **options):
    X, y = labelled
    estimator = estimator or fast("PLAD", network=SMOOTH, epochs=3, batch_size=32)
    options = {"scoring": "roc_auc", "cv": StratifiedKFold(3)} | options
    ours = StackedSearchCV(estimator, grid, **options).fit(X, y)
    theirs = GridSearchCV(estimator, grid, **options).fit(X, y)
    return ours, theirs


GRIDS = {
    "numbers": {"lam": [0.1, 5.0], "lr": [1e-3, 3e-2]},
    "list of grids": [{"lam": [0.1, 5.0]}, {"lr": [3e-2]}],
    "structures": {"network": [SMOOTH, MLP(hidden=(3,))], "epochs": [2, 3], "lam": [0.1, 1.0]},
}


@pytest.mark.parametrize(
    ("grid", "scoring"),
    [
        ("numbers", "roc_auc"),
        ("list of grids", "roc_auc"),
        ("structures", ["roc_auc", "average_precision"]),
    ],
)
def test_search__results_of_grid_search(labelled, grid, scoring):
    refit = "average_precision" if isinstance(scoring, list) else True
    ours, theirs = both(
        labelled, GRIDS[grid], scoring=scoring, refit=refit, return_train_score=True
    )
    assert set(ours.cv_results_) == set(theirs.cv_results_)
    for name, values in theirs.cv_results_.items():
        if name.startswith("param_") or name == "params":
            assert repr(ours.cv_results_[name]) == repr(values)
        elif "time" not in name:
            np.testing.assert_allclose(ours.cv_results_[name], values, atol=1e-6, err_msg=name)
    assert repr(ours.best_params_) == repr(theirs.best_params_)
    assert ours.best_score_ == pytest.approx(theirs.best_score_)
    assert ours.n_splits_ == 3
    assert ours.multimetric_ == theirs.multimetric_
    X, y = labelled
    np.testing.assert_allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-5)
    assert ours.score(X, y) == pytest.approx(theirs.score(X, y))
    assert type(ours.best_estimator_) is PLAD
    assert {name for name in vars(theirs) if name.endswith("_")} - {"_checked_cv_orig"} <= {
        name for name in vars(ours)
    }


def test_search__candidates_and_folds_train_as_one(labelled, stacks):
    X, y = labelled
    estimator = fast("PLAD", network=SMOOTH)
    grid = {"lam": [0.1, 1.0, 5.0], "lr": [1e-3, 1e-2]}
    StackedSearchCV(estimator, grid, scoring="roc_auc", cv=3, refit=False).fit(X, y)
    assert stacks == [18]


def test_search__own_scorers_see_the_detector_and_its_samples(labelled):
    seen = []

    def scorer(estimator, X, y):
        seen.append((type(estimator), X.shape[1]))
        return roc_auc_score(y, estimator.decision_function(X))

    ours, theirs = both(labelled, {"lam": [0.1, 1.0]}, scoring=scorer)
    assert set(seen) == {(PLAD, 5)}
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-6
    )
    several = {"auc": "roc_auc", "own": make_scorer(lambda y, labels: float(labels.mean()))}
    ours, theirs = both(labelled, {"lam": [0.1, 1.0]}, scoring=several, refit="auc")
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_own"], theirs.cv_results_["mean_test_own"], atol=1e-6
    )


def test_search__data_frames(labelled):
    X, y = labelled
    frame = pd.DataFrame(X, columns=list("abcde"))
    ours, theirs = both((frame, pd.Series(y)), {"lam": [0.1, 1.0]})
    assert ours.feature_names_in_.tolist() == theirs.feature_names_in_.tolist()
    assert ours.n_features_in_ == 5


def test_search__a_candidate_that_fails(labelled):
    X, y = labelled
    estimator = fast("AutoEncoder", optimizer="sgd", epochs=3)
    grid = {"lr": [1e-3, 1e35]}
    options = {"scoring": "roc_auc", "cv": 3}
    with pytest.warns(FitFailedWarning, match="3 fits failed out of a total of 6"):
        search = StackedSearchCV(estimator, grid, **options).fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]
    assert search.best_params_ == {"lr": 1e-3}
    with pytest.raises(FloatingPointError, match="became"):
        StackedSearchCV(estimator, grid, error_score="raise", **options).fit(X, y)


def test_search__a_callback_that_fails__is_that_candidates_error(labelled):
    X, y = labelled
    estimator = fast("PLAD", network=SMOOTH)
    grid = {"callbacks": [(), (EarlyStopping(monitor="typo"),)]}
    with pytest.warns(FitFailedWarning, match="no loss term of this name"):
        search = StackedSearchCV(estimator, grid, scoring="roc_auc", cv=3).fit(X, y)
    assert np.isnan(search.cv_results_["mean_test_score"]).tolist() == [False, True]


@pytest.mark.parametrize("backend", ["threading", "loky"])
def test_search__inside_a_joblib_context__same_results(labelled, backend):
    X, y = labelled
    grid = {"lr": [1e-4, 1e-3, 1e-2, 0.1]}
    search = StackedSearchCV(fast("PLAD", network=SMOOTH), grid, scoring="roc_auc", cv=2)
    expected = search.fit(X, y).cv_results_["mean_test_score"]
    with joblib.parallel_config(backend=backend, n_jobs=2):
        found = search.fit(X, y).cv_results_["mean_test_score"]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_search__groups(labelled):
    X, y = labelled
    groups = np.arange(90) % 3
    estimator, grid = fast("PLAD", network=SMOOTH), {"lam": [0.1, 1.0]}
    options = {"scoring": "roc_auc", "cv": GroupKFold(3)}
    ours = StackedSearchCV(estimator, grid, **options).fit(X, y, groups=groups)
    theirs = GridSearchCV(estimator, grid, **options).fit(X, y, groups=groups)
    np.testing.assert_allclose(
        ours.cv_results_["mean_test_score"], theirs.cv_results_["mean_test_score"], atol=1e-6
    )


def test_search__mistakes_are_found_before_training(labelled, stacks):
    for mistake in ({"refit": "typo"}, {"error_score": "typo"}):
        search = StackedSearchCV(
            fast("PLAD"), {"lam": [0.1]}, scoring=["roc_auc", "average_precision"], **mistake
        )
        with pytest.raises(ValueError, match=r"refit|error_score"):
            search.fit(*labelled)
    assert stacks == []


def test_search__processes(labelled):
    X, y = labelled
    estimator = fast("PLAD", network=SMOOTH)
    searches = [
        StackedSearchCV(estimator, {"lam": [0.1, 1.0]}, scoring="roc_auc", cv=2, n_jobs=n_jobs).fit(
            X, y
        )
        for n_jobs in (1, 2)
    ]
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    np.testing.assert_allclose(one, two, atol=1e-6)


def test_search__of_something_else__refused(labelled):
    with pytest.raises(TypeError, match="estimator must be a deepod detector"):
        StackedSearchCV(IForest(), {"n_estimators": [10]}).fit(*labelled)
