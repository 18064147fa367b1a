"""Detectors of dynamic graphs: of streams of edges, or of snapshots with attributes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepod._registry import GRAPHS, detector_class

if TYPE_CHECKING:
    from deepod.graphs.addagae import AddAGAE
    from deepod.graphs.addgraph import AddGraph

__all__ = ["AddAGAE", "AddGraph"]

if not TYPE_CHECKING:  # type checkers are to see that a misspelt name is none

    def __getattr__(name: str) -> Any:
        if name not in GRAPHS:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = detector_class(name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
