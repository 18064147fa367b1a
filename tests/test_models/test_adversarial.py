"""AnoGAN, ADGAN and OCGAN: losses and searches by hand, who moves what, what they find."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from deepod import ADGAN, OCGAN, AnoGAN
from deepod.networks import MLP
from deepod.types import Batch
from tests.cases import samples

X = samples(n=64)
GANS = [AnoGAN, ADGAN]
every_gan = pytest.mark.parametrize("cls", GANS)
every_class = pytest.mark.parametrize("cls", [*GANS, OCGAN])


def small(cls, **params):
    settings = {"network": MLP(hidden=(8,)), "latent_dim": 3, "random_state": 0, "epochs": 3}
    return cls(**(settings | {"cross_fitting": False} | params))


def scaled(detector, rows=X):
    return torch.from_numpy((rows - detector.shift_) / detector.scale_).float()


def drawn(detector, n=64):
    return detector._noise(n, (5,), torch.Generator().manual_seed(0))


def linear(network):
    """Weights and biases of a network of one hidden layer, in NumPy."""
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Linear)]
    return [(p.weight.detach().double().numpy(), p.bias.detach().double().numpy()) for p in layers]


def forward(layers, values):
    (w1, b1), (w2, b2) = layers
    hidden = values @ w1.T + b1
    hidden = np.where(hidden > 0, hidden, 0.01 * hidden)
    return hidden, hidden @ w2.T + b2


def real(logits):
    return np.log1p(np.exp(-logits)).mean()


def values(terms):
    return {name: term.item() for name, term in terms.items()}


# --- the game -------------------------------------------------------------------------------------


@every_gan
def test_gan__losses__by_hand_in_numpy(cls):
    detector = small(cls).fit(X)
    module, x, z = detector.module_, scaled(detector), drawn(detector)
    generator, judge = linear(module["generator"]), linear(module["discriminator"])
    made = forward(generator, z.double().numpy())[1]
    of_real, of_made = (forward(judge, rows)[1] for rows in (x.double().numpy(), made))
    batch = Batch(x, None, z)
    assert values(detector._loss(module, batch)) == pytest.approx(
        {"real": real(of_real), "fake": real(-of_made)}, rel=1e-4
    )
    assert values(detector._generator_loss(module, batch)) == pytest.approx(
        {"generator": real(of_made)}, rel=1e-4
    )


@every_class
def test_phases__take_turns__each_trains_its_own_networks(cls):
    detector = small(cls).fit(X)
    phases = detector._phases()
    assert {phase.cycle for phase in phases} == {"game"}
    prefixes = [prefix for phase in phases for prefix in phase.params]
    for name, _ in detector.module_.named_parameters():
        assert sum(name.startswith(prefix) for prefix in prefixes) == 1
    # The opponents' losses do not reach what they judge.
    judging = phases[0].loss(detector.module_, Batch(scaled(detector), None, drawn(detector)))
    detector.module_.zero_grad()
    torch.stack([*judging.values()]).sum().backward()
    for name, p in detector.module_.named_parameters():
        assert (p.grad is not None) == name.startswith(phases[0].params), name
    assert [entry["epoch"] for entry in detector.history_] == [0, 1, 2]


# --- AnoGAN ---------------------------------------------------------------------------------------


def test_anogan__score__adam_by_hand_in_numpy():
    params = {"search_steps": 4, "search_lr": 0.1, "feature_weight": 0.3, "n_starts": 5}
    detector = small(AnoGAN, **params).fit(X)
    x, module = scaled(detector).double().numpy(), detector.module_
    (v1, c1), (v2, c2) = linear(module["generator"])
    judge = linear(module["discriminator"])
    starts = module.starts.double().numpy()
    begun = forward(linear(module["generator"]), starts)[1]
    z = starts[np.abs(x[:, None] - begun).sum(2).argmin(1)]

    def cost_and_gradient(z):
        hidden, made = forward([(v1, c1), (v2, c2)], z)
        f, _ = forward(judge, made)
        far, apart = made - x, f - forward(judge, x)[0]
        cost = 0.7 * np.abs(far).sum(1) + 0.3 * np.abs(apart).sum(1)
        back = np.sign(apart) * np.where(f > 0, 1, 0.01) @ judge[0][0]
        of_made = 0.7 * np.sign(far) + 0.3 * back
        return cost, (of_made @ v2 * np.where(hidden > 0, 1, 0.01)) @ v1

    first, second = np.zeros_like(z), np.zeros_like(z)
    for t in range(1, 5):
        gradient = cost_and_gradient(z)[1]
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        size = 0.1 * (1 - (t - 1) / 4)
        z = z - size * (first / (1 - 0.9**t)) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(detector.decision_scores_, cost_and_gradient(z)[0], rtol=1e-3)


def test_anogan__rows_that_the_generator_makes__found_by_the_search():
    detector = small(AnoGAN, search_steps=300).fit(X)
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        made = detector.module_["generator"](z).numpy() * detector.scale_ + detector.shift_
    searched = detector.decision_function(made)
    begun = detector.set_params(search_steps=0).decision_function(made)
    assert np.median(searched) < 0.2 * np.median(begun)


# --- ADGAN ----------------------------------------------------------------------------------------


def test_adgan__score__steps_by_hand_on_copies_of_the_generator():
    params = {"search_steps": 3, "search_lr": 0.2, "weight_lr": 0.05, "n_starts": 2}
    detector = small(ADGAN, **params).fit(X)
    x, generator = scaled(detector)[:6], detector.module_["generator"]
    errors = np.zeros((6, 2))
    for i, row in enumerate(x):
        for j, start in enumerate(detector.module_.starts):
            layers = [m for m in generator.modules() if isinstance(m, torch.nn.Linear)]
            own = [p.detach().clone() for m in layers for p in (m.weight, m.bias)]
            point = start.clone()
            for step in range(4):
                parts = [part.requires_grad_() for part in (point, *own)]
                z, w1, b1, w2, b2 = parts
                made = torch.nn.functional.leaky_relu(z @ w1.T + b1) @ w2.T + b2
                if step == 3:
                    errors[i, j] = (made - row).square().mean().item()
                    break
                gradients = torch.autograd.grad((made - row).norm(), parts)
                point = (z - 0.2 * gradients[0]).detach()
                own = [
                    (p - 0.05 * g).detach() for p, g in zip(parts[1:], gradients[1:], strict=True)
                ]
    np.testing.assert_allclose(detector.decision_scores_[:6], errors.mean(1), rtol=1e-4)
    terms = detector.explain(X[:6])
    np.testing.assert_allclose(terms.sum(1), detector.decision_scores_[:6], rtol=1e-5)


def test_adgan__more_freedom__less_is_left():
    detector = small(ADGAN, search_lr=0.1, n_starts=4).fit(X)
    left = [
        detector.set_params(**change).decision_function(X).mean()
        for change in ({"search_steps": 0}, {"search_steps": 5}, {"weight_lr": 0.1})
    ]
    assert left[0] > left[1] > left[2]


# --- OCGAN ----------------------------------------------------------------------------------------


def test_ocgan__losses__by_hand_in_numpy():
    detector = small(OCGAN, noise_std=0.3, reconstruction_weight=2.0, mining_steps=0).fit(X)
    module, x, noise = detector.module_, scaled(detector), drawn(detector)
    rows, (normal, uniform) = x.double().numpy(), (n.double().numpy() for n in noise)
    assert (np.abs(uniform) <= 1).all()
    decoder = linear(module["autoencoder"].decoder)
    z = np.tanh(forward(linear(module["autoencoder"].encoder), rows + 0.3 * normal)[1])
    decoded, made = (forward(decoder, codes)[1] for codes in (z, uniform))
    of_rows, classifier = (linear(module[name]) for name in ("of_rows", "classifier"))

    def of_codes(values):
        with torch.no_grad():
            return module["of_codes"](torch.from_numpy(values).float()).double().numpy()

    batch = Batch(x, None, noise)
    assert values(detector._loss(module, batch)) == pytest.approx(
        {
            "reconstruction": 2 * ((decoded - rows) ** 2).mean(),
            "codes": real(of_codes(z)),
            "rows": real(forward(of_rows, made)[1]),
        },
        rel=1e-4,
    )
    assert values(detector._opponents_loss(module, batch)) == pytest.approx(
        {
            "of_codes": real(of_codes(uniform)) + real(-of_codes(z)),
            "of_rows": real(forward(of_rows, rows)[1]) + real(-forward(of_rows, made)[1]),
            "classifier": real(forward(classifier, decoded)[1])
            + real(-forward(classifier, made)[1]),
        },
        rel=1e-4,
    )


@pytest.mark.parametrize("batch_norm", [False, True])
def test_ocgan__mining__up_the_loss_within_the_cube_and_without_a_trace(batch_norm):
    network = MLP(hidden=(8,), activation="tanh", batch_norm=batch_norm)
    detector = small(OCGAN, network=network, mining_steps=5, mining_lr=0.02).fit(X)
    module, uniform = detector.module_.train(), drawn(detector)[1]
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    mined = detector._mined(module, uniform)
    assert module["classifier"].training
    assert all(torch.equal(t, before[name]) for name, t in module.state_dict().items())
    assert mined.abs().max() <= 1
    assert not mined.requires_grad
    module.eval()
    judged = [module["classifier"](module["autoencoder"].decoder(z)) for z in (uniform, mined)]
    assert (judged[1] < judged[0]).float().mean() > 0.9
    assert (mined - uniform).norm(dim=1).max() <= 0.1 + 1e-5
    outside = detector.set_params(mining_steps=0)._mined(module, uniform)
    assert torch.equal(outside, uniform)


def test_ocgan__score__error_on_the_clean_row_and_its_map():
    detector = small(OCGAN).fit(X)
    x = scaled(detector)
    with torch.no_grad():
        errors = (detector.module_["autoencoder"](x) - x).square().mean(1).numpy()
    np.testing.assert_allclose(detector.decision_scores_, errors, rtol=1e-5)
    images = samples("images", n=12)
    maps = OCGAN(epochs=1, random_state=0).fit(images).score_map(images)
    assert maps.shape == (12, 8, 8)


# --- all ------------------------------------------------------------------------------------------


@every_class
def test_easy_problem__rows_off_a_plane__found(cls):
    generator = np.random.default_rng(2)
    plane = generator.normal(size=(2, 8))
    normal = generator.normal(size=(400, 2)) @ plane + 0.05 * generator.normal(size=(400, 8))
    odd = 2 * generator.normal(size=(50, 8))
    detector = cls(
        epochs=150 if cls is AnoGAN else 60, lr=3e-3, cross_fitting=False, random_state=0
    ).fit(normal[:300])
    scores = detector.decision_function(np.concatenate([normal[300:], odd]))
    assert roc_auc_score(np.repeat([0, 1], [100, 50]), scores) > 0.9
