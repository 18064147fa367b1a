"""Networks that methods are built from, described by sizes and built to fit the data.

``network="auto"`` of a detector chooses by the shape of one sample: :class:`MLP` for a table,
:class:`Recurrent` for a window (time, channels), :class:`MLP` for an image (channels, height,
width), unless the method needs convolutions.
"""

from __future__ import annotations

from collections.abc import Iterable

from deepod.networks._spec import KeepsRows, Network, StartsFromRows
from deepod.networks.lenet import LeNet
from deepod.networks.mlp import MLP
from deepod.networks.prototypes import Prototypes
from deepod.networks.recurrent import Recurrent
from deepod.types import Shape

__all__ = [
    "MLP",
    "KeepsRows",
    "LeNet",
    "Network",
    "Prototypes",
    "Recurrent",
    "StartsFromRows",
    "resolve",
]

FAMILIES: dict[str, type[Network]] = {
    "mlp": MLP,
    "lenet": LeNet,
    "recurrent": Recurrent,
    "prototypes": Prototypes,
}
_BY_DIMENSIONS = {1: "mlp", 2: "recurrent", 3: "mlp"}


def resolve(network: str | Network, shape: Shape) -> Network:
    """Turn the ``network`` parameter into a description for samples of ``shape``."""
    if isinstance(network, Network):
        return network
    name = _BY_DIMENSIONS[len(shape)] if network == "auto" else network
    return FAMILIES[name]()


def family_with(network: str, names: Iterable[str]) -> Network:
    """Find the family that a name stands for when parameters ``names`` are set on it.

    "auto" stands for the first family, in the order of ``FAMILIES``, that has them all.
    """
    wanted = set(names)
    candidates = FAMILIES.values() if network == "auto" else [FAMILIES[network]]
    for family in candidates:
        if wanted <= set(family().get_params()):
            return family()
    raise ValueError(
        f"network={network!r} has no parameters {sorted(wanted)}; "
        + "; ".join(f"{f.__name__} has {sorted(f().get_params())}" for f in candidates)
    )
