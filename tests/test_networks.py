"""Networks: sizes, shapes, members side by side."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from deepod.networks import MLP, KeepsRows, LeNet, Prototypes, Recurrent, resolve

SPECS = [
    (MLP(), (5,)),
    (MLP(hidden=()), (5,)),
    (MLP(hidden=(8,), batch_norm=True, bias=False), (3, 4)),
    (MLP(), (2, 6, 5)),
    (LeNet(), (1, 28, 28)),
    (LeNet(batch_norm=True, bias=True), (3, 32, 32)),
    (LeNet(channels=(4,), hidden=()), (2, 9, 7)),
    (LeNet(), (1, 1, 1)),
    (LeNet(channels=(4, 4, 4)), (1, 3, 5)),
    (Recurrent(), (10, 3)),
    (Prototypes(n_prototypes=3), (4, 2)),
    (Prototypes(n_prototypes=3, n_directions=5), (4, 2)),
    (Recurrent(hidden=(6, 4), cell="lstm"), (1, 1)),
    (Recurrent(hidden=tuple(np.array([4]))), (3, 2)),
    (LeNet(channels=tuple(np.array([4])), hidden=tuple(np.array([4]))), (1, 8, 8)),
]


@pytest.mark.parametrize(("spec", "shape"), SPECS)
@pytest.mark.parametrize("members", [None, 3])
def test_encoder_and_decoder__shapes(spec, shape, members):
    stack = () if members is None else (members,)
    x = torch.randn(4, *shape)
    encoder = spec.encoder(shape, 2, members)
    decoder = None if isinstance(spec, Prototypes) else spec.decoder(2, shape, members)
    assert encoder(x).shape == (*stack, 4, 2)
    if decoder:
        assert decoder(encoder(x)).shape == (*stack, 4, *shape)
    if members:  # one input each
        assert encoder(torch.randn(members, 4, *shape)).shape == (members, 4, 2)


@pytest.mark.parametrize(("spec", "shape"), SPECS)
def test_members__differ_and_depend_on_their_own_input_only(spec, shape):
    torch.manual_seed(0)
    encoder = spec.encoder(shape, 2, 3).eval()
    x = torch.randn(3, 4, *shape)
    before = encoder(x)
    x[1] += 1
    after = encoder(x)
    torch.testing.assert_close(after[[0, 2]], before[[0, 2]], rtol=0, atol=0)
    same = encoder(torch.zeros(4, *shape))
    if any(p.dim() == 1 or p.shape[-2:-1] == (1,) for p in encoder.parameters()):
        assert not torch.equal(same[0], same[1])


def test_stacked_layers__equal_their_parts():
    torch.manual_seed(0)
    parts = [MLP(hidden=(6, 4)).encoder((5,), 2) for _ in range(3)]
    stacked = MLP(hidden=(6, 4))._side_by_side(parts, (5,))
    x = torch.randn(7, 5)
    torch.testing.assert_close(stacked(x), torch.stack([part(x) for part in parts]))


def mixture_by_hand(net, x):
    """The formula of the docstring, prototype by prototype, in float64."""
    c, t, w, s, a, b = (
        p.detach().double()
        for p in (net.centers, net.log_widths.exp(), net.weights, net.log_scales.exp(),
                  net.log_slope.exp(), net.bias)
    )  # fmt: skip
    out = torch.zeros(len(c), len(x), w.shape[1], dtype=torch.double)
    for k in range(len(c)):
        for o in range(w.shape[1]):
            gap = ((x.double()[:, None] - c[k]) * s[k]).square().sum(-1) / t[k]
            out[k, :, o] = b[k, 0, o] - a[k, 0, o] * torch.logsumexp(w[k, o] - gap, -1)
    return out


def test_prototypes__formula_by_hand():
    torch.manual_seed(0)
    net = Prototypes(n_prototypes=7, rows_per_prototype=2).encoder((4,), 2, 3)
    net.start_from_rows(torch.randn(30, 4))
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    x = torch.randn(5, 4)
    torch.testing.assert_close(net(x).double(), mixture_by_hand(net, x), rtol=1e-4, atol=1e-4)


def test_prototypes__along_directions__equal_those_of_projected_rows():
    torch.manual_seed(0)
    along = Prototypes(n_prototypes=7, n_directions=3).encoder((8,), 1)
    basis, x = along.directions[0], torch.randn(60, 8)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(3))
    along.start_from_rows(x)
    plain = Prototypes(n_prototypes=7).encoder((3,), 1)
    plain.load_state_dict({k: v for k, v in along.state_dict().items() if k != "directions"})
    torch.testing.assert_close(along(x), plain(x @ basis))
    assert torch.cdist(along.centers[0], x @ basis).amin(-1).max() < 1e-3  # they start at rows


def test_prototypes__far_away__grows_with_the_distance():
    net = Prototypes(n_prototypes=7).encoder((4,), 1)
    net.start_from_rows(torch.randn(60, 4))
    far = net(torch.outer(torch.tensor([1e1, 1e3, 1e5, 1e9]), torch.ones(4)))
    assert far.isfinite().all()
    assert (far.diff(dim=0) > 0).all()


def test_prototypes__state_of_fewer_centres__loads():
    fitted, fresh = (Prototypes(n_prototypes=50).encoder((4,), 1, 2) for _ in range(2))
    fitted.start_from_rows(torch.randn(80, 4))
    assert fitted.centers.shape == (2, 10, 4)
    fresh.load_state_dict(fitted.state_dict())
    x = torch.randn(5, 4)
    assert torch.equal(fresh(x), fitted(x))


@pytest.mark.parametrize("rows", [torch.ones(40, 4), torch.randn(2, 4)])
def test_prototypes__same_or_few_rows__finite(rows):
    net = Prototypes(n_prototypes=5).encoder((4,), 1)
    net.start_from_rows(rows)
    assert net(rows).isfinite().all()


def channels(module):
    return [m.out_channels for m in module.modules() if isinstance(m, nn.Conv2d)]


def test_lenet__sizes__are_those_of_deep_svdd():
    assert channels(LeNet().encoder((1, 28, 28), 64)) == [16, 32]
    assert channels(LeNet().encoder((3, 32, 32), 128)) == [32, 64, 128]
    linear = [m for m in LeNet().encoder((1, 28, 28), 64).modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [(1568, 128), (128, 64)]
    assert len(channels(LeNet().encoder((1, 512, 512), 2))) == 4


def test_resolve__auto__by_the_shape_of_a_sample():
    assert isinstance(resolve("auto", (5,)), MLP)
    assert isinstance(resolve("auto", (10, 3)), Recurrent)
    assert isinstance(resolve("auto", (1, 8, 8)), MLP)
    assert isinstance(resolve("mlp", (1, 8, 8)), MLP)
    spec = MLP(hidden=(3,))
    assert resolve(spec, (5,)) is spec


@pytest.mark.parametrize("spec", [MLP(hidden=(3,)), LeNet(channels=(2,)), Recurrent(cell="lstm")])
def test_spec__is_a_parameter_holder(spec):
    copy = clone(spec)
    assert copy is not spec
    assert copy.get_params() == spec.get_params()
    assert repr(copy) == repr(spec)


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (MLP(hidden=(0,)), (5,), "hidden"),
        (MLP(hidden=5), (5,), "hidden"),
        (MLP(activation="swish"), (5,), "activation"),
        (LeNet(kernel_size=4), (1, 8, 8), "kernel_size"),
        (LeNet(), (5,), "input_shape"),
        (LeNet(channels=()), (1, 8, 8), "channels"),
        (Recurrent(), (5,), "input_shape"),
        (Recurrent(hidden=()), (5, 2), "hidden"),
    ],
)
def test_spec__bad_value__named(spec, shape, message):
    with pytest.raises(ValueError, match=message):
        spec.encoder(shape, 2)
    with pytest.raises(ValueError, match=message):
        spec.decoder(2, shape)


def test_prototypes__as_a_decoder__refused():
    with pytest.raises(ValueError, match="no decoder"):
        Prototypes().decoder(2, (5,))


# --- features, padding --------------------------------------------------------------------------


@pytest.mark.parametrize(("spec", "shape"), [s for s in SPECS if not isinstance(s[0], Prototypes)])
def test_features__the_encoder_without_its_last_layer(spec, shape):
    torch.manual_seed(0)
    features, width = spec.features(shape)
    torch.manual_seed(0)
    encoder = spec.encoder(shape, 2)
    x = torch.randn(4, *shape)
    hidden = features.eval()(x)
    assert hidden.shape == (4, width)
    torch.testing.assert_close(encoder.eval()[-1](hidden), encoder(x))


def test_features__prototypes__have_none():
    with pytest.raises(ValueError, match="hidden layer"):
        Prototypes().features((5,))


def test_pad_to__28_becomes_32_and_back():
    """The encoder of the IAE-LSTM-KL paper: three halvings to 128 x 4 x 4 = 2048 features."""
    spec = LeNet(channels=(32, 64, 128), hidden=(), batch_norm=True, pad_to=8)
    assert spec.features((1, 28, 28))[1] == 2048
    assert spec.decoder(5, (1, 28, 28))(torch.zeros(2, 5)).shape == (2, 1, 28, 28)
    assert LeNet(channels=(32, 64, 128), hidden=()).features((3, 32, 32))[1] == 2048


@pytest.mark.parametrize(
    ("side", "padded"), [((26, 28), (32, 32)), ((5, 9), (8, 16)), ((8, 8), (8, 8))]
)
def test_pad_to__zeros_all_around(side, padded):
    spec = LeNet(channels=(3,), hidden=(), pad_to=8)
    pad = spec.features((1, *side))[0][0]
    x = torch.ones(1, 1, *side)
    if side == padded:
        assert not isinstance(pad, nn.ZeroPad2d)
        return
    out = pad(x)
    assert out.shape[2:] == padded
    assert out.sum() == x.sum()
    top = (padded[0] - side[0]) // 2
    left = (padded[1] - side[1]) // 2
    assert torch.equal(out[..., top : top + side[0], left : left + side[1]], x)


def test_pad_to__decoder_crops_what_the_encoder_padded():
    shape = (1, 5, 6)
    decoder = LeNet(channels=(3,), hidden=(), pad_to=4).decoder(2, shape)
    padded = decoder[:-1](torch.randn(3, 2))
    assert padded.shape[2:] == (8, 8)
    torch.testing.assert_close(decoder[-1](padded), padded[..., 1:6, 1:7])


class Kept(KeepsRows):
    per_row = ("values", "places")

    def __init__(self, n):
        super().__init__()
        self.register_buffer("values", torch.zeros(n, 2))
        self.register_buffer("places", torch.zeros(n))


@pytest.mark.parametrize(("values", "places"), [(3, 3), (5, 5), (3, 4), (4, 3), (5, 4), (6, 6)])
def test_keeps_rows__a_state__fewer_rows_in_all_buffers_or_refused(values, places):
    module = Kept(5)
    state = {"values": torch.ones(values, 2), "places": torch.ones(places)}
    if values == places <= 5:
        module.load_state_dict(state)
        assert module.values.eq(1).all()
        assert module.values.shape == (values, 2)
    else:
        with pytest.raises(RuntimeError, match="mismatch"):
            module.load_state_dict(state)
