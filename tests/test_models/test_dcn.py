"""DCN and E2E-AE, the baselines of DAGMM: losses by hand, k-means, what they find."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.metrics import roc_auc_score

from deepod import DCN, E2EAE
from deepod.models.reconstruction._kmeans import moved, spread, squared_distances
from deepod.networks import MLP
from deepod.types import Batch
from tests.cases import samples

X = samples(n=64)


def small(cls, **params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "random_state": 0}
    return cls(**(settings | {"cross_fitting": False} | params))


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


def parts(detector, rows=X):
    """Squared distances to the nearest centre and mean squared errors, in NumPy."""
    x, module = scaled(detector, rows), detector.module_.eval()
    with torch.no_grad():
        z, x_hat = module.encoder(x).double().numpy(), module(x).double().numpy()
    centers = module.centers.double().numpy()
    distances = ((z[:, None] - centers) ** 2).sum(2).min(1)
    return distances, ((x_hat - x.double().numpy()) ** 2).mean(1)


# --- DCN ------------------------------------------------------------------------------------------


def test_dcn__loss__by_hand_in_numpy():
    detector = small(DCN, n_clusters=4, cluster_weight=0.3, epochs=3).fit(X)
    distances, errors = parts(detector)
    terms = detector._loss(detector.module_, Batch(scaled(detector)))
    assert {k: v.item() for k, v in terms.items()} == pytest.approx(
        {"reconstruction": errors.mean(), "clustering": 0.15 * distances.mean()}, rel=1e-5
    )


@pytest.mark.parametrize("score_by", ["distance", "reconstruction", "combined"])
def test_dcn__score__by_hand_in_numpy(score_by):
    detector = small(DCN, score_by=score_by, n_clusters=4, epochs=3).fit(X)
    known, new = parts(detector), parts(detector, samples(n=9, seed=1))
    expected = {
        "distance": new[0],
        "reconstruction": new[1],
        "combined": sum((a - b.mean()) / b.std() for a, b in zip(new, known, strict=True)),
    }[score_by]
    found = detector.decision_function(samples(n=9, seed=1))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


def test_dcn__gradient__pulls_a_code_to_its_own_centre_alone():
    detector = small(DCN, n_clusters=4, epochs=1).fit(X)
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (gradient,) = torch.autograd.grad(detector.module_.distance(z).sum(), z)
    centers = detector.module_.centers
    nearest = torch.cdist(z, centers).argmin(1)
    torch.testing.assert_close(gradient, 2 * (z.detach() - centers[nearest]))


def test_dcn__k_means__as_good_as_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    z = (rng.normal(size=(6, 1, 4)) * 5 + rng.normal(size=(6, 50, 4))).reshape(-1, 4)
    centers = spread(torch.from_numpy(z), 6)
    for _ in range(20):
        centers = moved(torch.from_numpy(z), centers)
    inertia = squared_distances(torch.from_numpy(z), centers).amin(1).sum().item()
    best = KMeans(6, n_init=20, random_state=0).fit(z).inertia_
    assert inertia < 1.05 * best


def test_dcn__moved__means_of_members_and_no_empty_cluster():
    z = torch.tensor([[0.0], [1.0], [10.0], [12.0], [50.0]])
    found = moved(z, torch.tensor([[0.0], [11.0], [-900.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.5], [24.0], [50.0]]))
    # Fewer rows than centres, and all rows the same: any centre is at one of them.
    same = torch.ones(2, 3)
    assert (moved(same, spread(same, 5)) == 1).all()
    assert spread(same, 5).shape == (5, 3)


def test_dcn__centres__rest_at_the_means_of_their_codes():
    """Once the network is held, moves change nothing: the fixed points of the paper's updates."""
    detector = small(DCN, n_clusters=3, epochs=30, lr=1e-9, pretrain_epochs=5).fit(X)
    with torch.no_grad():
        z = detector.module_.eval().encoder(scaled(detector))
    centers = detector.module_.centers
    torch.testing.assert_close(moved(z, centers), centers, rtol=1e-4, atol=1e-4)


def test_dcn__larger_weight__tighter_clusters():
    def size(weight):
        detector = small(DCN, cluster_weight=weight, n_clusters=3, epochs=100).fit(X)
        return parts(detector)[0].mean()

    assert size(10.0) < 0.3 * size(0.0)


def test_dcn__phases__without_pre_training():
    assert {e["phase"] for e in small(DCN, epochs=1).fit(X).history_} == {"pretrain", "fit"}
    found = small(DCN, epochs=1, pretrain_epochs=0).fit(X).history_
    assert {e["phase"] for e in found} == {"fit"}


def test_dcn__easy_problem__rows_between_clusters_found():
    """What a single centre cannot do: the anomalies are nearest to the mean of all rows."""
    rng = np.random.default_rng(0)
    places = 6 * np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
    lift = rng.normal(size=(2, 8))
    normal = places[rng.integers(0, 4, 500)] + rng.normal(size=(500, 2))
    odd = rng.normal(size=(50, 2))
    train, test = normal[:400] @ lift, np.concatenate([normal[400:], odd]) @ lift
    detector = DCN(latent_dim=2, score_by="distance", cross_fitting=False, random_state=0)
    detector.fit(train)
    y = np.repeat([0, 1], [100, 50])
    assert roc_auc_score(y, detector.decision_function(test)) > 0.95


# --- E2E-AE ---------------------------------------------------------------------------------------


def test_e2eae__loss_and_score__by_hand_in_numpy():
    detector = small(E2EAE, network="auto", epochs=3).fit(X)
    x, layers = scaled(detector), list(detector.module_.modules())
    values = x.double().numpy()
    linear = [m for m in layers if isinstance(m, torch.nn.Linear)]
    for number, layer in enumerate(linear):
        weight, bias = (p.detach().double().numpy() for p in (layer.weight, layer.bias))
        values = values @ weight.T + bias
        if number not in (len(linear) // 2 - 1, len(linear) - 1):  # the code and the output
            values = np.tanh(values)
    errors = ((values - x.double().numpy()) ** 2).mean(1)
    np.testing.assert_allclose(detector.decision_scores_, errors, rtol=1e-5)
    loss = detector._loss(detector.module_, Batch(x))["reconstruction"].item()
    assert loss == pytest.approx(errors.mean(), rel=1e-5)


def test_e2eae__network__that_of_dagmm():
    module = E2EAE(epochs=0).fit(X).module_
    kinds = [type(m) for m in module.modules()]
    assert torch.nn.Tanh in kinds
    assert torch.nn.BatchNorm1d not in kinds
    assert torch.nn.LeakyReLU not in kinds
    assert module.encoder[-1].out_features == 2


def test_e2eae__easy_problem__rows_off_a_plane_found():
    generator = np.random.default_rng(2)
    plane = generator.normal(size=(2, 8))
    normal = generator.normal(size=(400, 2)) @ plane + 0.05 * generator.normal(size=(400, 8))
    odd = 2 * generator.normal(size=(50, 8))
    detector = E2EAE(cross_fitting=False, random_state=0).fit(normal[:300])
    scores = detector.decision_function(np.concatenate([normal[300:], odd]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.95
