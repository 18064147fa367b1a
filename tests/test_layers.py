"""Layers that methods share, against their definitions."""

import numpy as np
import pytest
import torch
from torch import nn

from deepod.networks.layers import (
    EncoderDecoder,
    Gate,
    HardConcrete,
    RunningMinMax,
    error_norm,
    squared_error,
)

# --- the gate -----------------------------------------------------------------------------------


def test_gate__equals_one_step_of_torchs_lstm():
    torch.manual_seed(0)
    width = 6
    lstm = nn.LSTM(width, width, batch_first=True)
    gate = Gate(width)
    w, b = lstm.weight_ih_l0.detach(), (lstm.bias_ih_l0 + lstm.bias_hh_l0).detach()
    i, _, g, o = w.chunk(4)
    bi, _, bg, bo = b.chunk(4)
    with torch.no_grad():
        gate.linear.weight.copy_(torch.cat([g, i, o]))
        gate.linear.bias.copy_(torch.cat([bg, bi, bo]))
    z = torch.randn(50, width)
    torch.testing.assert_close(gate(z), lstm(z[:, None])[0][:, 0], rtol=0, atol=1e-6)


def test_gate__no_forget_gate_no_recurrent_weights():
    assert sum(p.numel() for p in Gate(7).parameters()) == 3 * 7**2 + 3 * 7


def test_gate__starts_orthogonal_without_bias():
    gate = Gate(5)
    for block in gate.linear.weight.chunk(3):
        torch.testing.assert_close(block @ block.T, torch.eye(5))
    assert not gate.linear.bias.any()


@pytest.mark.parametrize("gates", [("input", "output"), ("input",), ("output",), ()])
def test_gate__removed__is_one(gates):
    torch.manual_seed(0)
    gate = Gate(4, gates)
    z = 5 * torch.randn(20, 4)
    parts = dict(
        zip(
            gate.blocks,
            gate.linear(z).detach().numpy().reshape(20, -1, 4).swapaxes(0, 1),
            strict=True,
        )
    )

    def sigmoid(v):
        return 1 / (1 + np.exp(-v))

    one = np.ones((20, 4))
    i = sigmoid(parts["input"]) if "input" in gates else one
    o = sigmoid(parts["output"]) if "output" in gates else one
    expected = o * np.tanh(i * np.tanh(parts["candidate"]))
    np.testing.assert_allclose(gate(z).detach(), expected, rtol=1e-4, atol=1e-6)
    assert np.abs(expected).max() <= np.tanh(1)


# --- running extremes ---------------------------------------------------------------------------


def test_running_min_max__before_training__changes_nothing():
    s = torch.tensor([-3.0, 0.5, 7.0])
    torch.testing.assert_close(RunningMinMax(attached=False).eval()(s), s)


@pytest.mark.parametrize("attached", [False, True])
def test_running_min_max__training__maps_the_batch_to_0_1(attached):
    s = torch.tensor([2.0, 3.0, 6.0])
    layer = RunningMinMax(attached)
    torch.testing.assert_close(layer(s), torch.tensor([0.0, 0.25, 1.0]))
    # The first batch alone decides the first running value.
    assert (layer.low, layer.high) == (2, 6)
    layer(s + 2)
    assert (layer.low.item(), layer.high.item()) == pytest.approx((3, 7))
    layer.eval()
    torch.testing.assert_close(layer(torch.tensor([3.0, 9.0])), torch.tensor([0.0, 1.5]))


def test_running_min_max__long_training__forgets_the_beginning():
    layer = RunningMinMax(attached=False)
    for _ in range(10):
        layer(torch.tensor([100.0, 200.0]))
    for _ in range(200):
        layer(torch.tensor([1.0, 2.0]))
    assert (layer.low.item(), layer.high.item()) == pytest.approx((1, 2), rel=1e-3)


def test_running_min_max__does_not_care_about_scale_and_offset():
    s = torch.rand(20, dtype=torch.double)
    layer = RunningMinMax(attached=False)
    torch.testing.assert_close(layer(7 * s - 3), layer(s), rtol=1e-6, atol=1e-6)


def test_running_min_max__attached__gradient_orthogonal_and_sums_to_zero():
    s = torch.rand(20, dtype=torch.double, requires_grad=True)
    RunningMinMax(attached=True)(s).mean().backward()
    assert s.grad.sum().item() == pytest.approx(0, abs=1e-6)
    assert (s.grad * s.detach()).sum().item() == pytest.approx(0, abs=1e-6)
    assert s.grad[s.argmax()] < 0  # the worst row is pushed up


def test_running_min_max__detached__gradient_is_the_plain_one_rescaled():
    s = torch.rand(20, requires_grad=True)
    RunningMinMax(attached=False)(s).mean().backward()
    spread = (s.max() - s.min()).item()
    torch.testing.assert_close(s.grad, torch.full((20,), 1 / (20 * spread)), rtol=1e-5, atol=0)


@pytest.mark.parametrize("attached", [False, True])
def test_running_min_max__equal_values__no_nan(attached):
    s = torch.ones(4, requires_grad=True)
    out = RunningMinMax(attached)(s)
    out.mean().backward()
    assert not out.any()
    assert not s.grad.any()


# --- hard-concrete gates ------------------------------------------------------------------------


@pytest.fixture
def gated():
    torch.manual_seed(0)
    return HardConcrete(nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))


def test_hard_concrete__gates_in_0_1_fixed_without_noise(gated):
    u = torch.rand(gated.log_odds.shape)
    for gates in (gated.gates(), gated.gates(u)):
        assert ((gates >= 0) & (gates <= 1)).all()
    x = torch.randn(5, 4)
    assert torch.equal(gated(x), gated(x))
    assert not torch.equal(gated(x, u), gated(x))


def test_hard_concrete__by_hand(gated):
    """Louizos et al. 2018, equations 10 to 12."""
    noise = torch.rand(gated.log_odds.shape)
    u = noise.double().numpy()
    a, beta, gamma, zeta = gated.log_odds.detach().double().numpy(), 2 / 3, -0.1, 1.1
    s = 1 / (1 + np.exp(-(np.log(u) - np.log(1 - u) + a) / beta))
    expected = np.clip(s * (zeta - gamma) + gamma, 0, 1)
    np.testing.assert_allclose(gated.gates(noise).detach(), expected, rtol=1e-4, atol=1e-6)
    l0 = (1 / (1 + np.exp(-(a - beta * np.log(-gamma / zeta))))).sum()
    assert gated.expected_l0().item() == pytest.approx(l0, rel=1e-5)
    assert 0 < l0 < gated.log_odds.numel() == 4 * 3 + 3 * 2


def test_hard_concrete__closed_gates__weights_are_exactly_zero(gated):
    nn.init.constant_(gated.log_odds, -20.0)
    assert not gated.gates().any()
    assert gated.expected_l0() < 1e-3
    x = torch.randn(5, 4)
    torch.testing.assert_close(gated(x), gated(0 * x))


def test_hard_concrete__open_gates__the_module_itself(gated):
    nn.init.constant_(gated.log_odds, 20.0)
    x = torch.randn(5, 4)
    torch.testing.assert_close(gated(x), gated.module(x))


# --- errors -------------------------------------------------------------------------------------


def test_errors__by_hand():
    x, x_hat = torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3)
    d = (x - x_hat).numpy().reshape(6, -1)
    np.testing.assert_allclose(squared_error(x_hat, x), (d**2).mean(1), rtol=1e-5)
    np.testing.assert_allclose(error_norm(x_hat, x), np.linalg.norm(d, axis=1), rtol=1e-5)


def test_error_norm__zero_error__finite_gradient():
    x = torch.ones(3, 4, requires_grad=True)
    error_norm(x, x.detach()).sum().backward()
    assert torch.isfinite(x.grad).all()


def test_autoencoder__encodes_and_decodes():
    net = EncoderDecoder(nn.Linear(4, 2), nn.Linear(2, 4))
    x = torch.randn(3, 4)
    torch.testing.assert_close(net(x), net.decoder(net.encoder(x)))
