"""Networks: sizes, shapes, members side by side."""

import pytest
import torch
from sklearn.base import clone
from torch import nn

from deepod.networks import MLP, LeNet, Recurrent, resolve

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
    (Recurrent(hidden=(6, 4), cell="lstm"), (1, 1)),
]


@pytest.mark.parametrize(("spec", "shape"), SPECS)
@pytest.mark.parametrize("members", [None, 3])
def test_encoder_and_decoder__shapes(spec, shape, members):
    stack = () if members is None else (members,)
    x = torch.randn(4, *shape)
    encoder, decoder = spec.encoder(shape, 2, members), spec.decoder(2, shape, members)
    z = encoder(x)
    assert z.shape == (*stack, 4, 2)
    assert decoder(z).shape == (*stack, 4, *shape)
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
    assert isinstance(resolve("auto", (1, 8, 8)), LeNet)
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
        (Recurrent(), (5,), "input_shape"),
        (Recurrent(hidden=()), (5, 2), "hidden"),
    ],
)
def test_spec__bad_value__named(spec, shape, message):
    with pytest.raises(ValueError, match=message):
        spec.encoder(shape, 2)
    with pytest.raises(ValueError, match=message):
        spec.decoder(2, shape)
