"""Detectors of time series: points in the order of time in, one score for each point out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from deepod._inputs.series import split_at_gaps
from deepod._registry import SERIES, detector_class

if TYPE_CHECKING:
    from deepod.series.c_lstm import CLSTM
    from deepod.series.cnn_vae_lstm import CNNVAELSTM
    from deepod.series.consensus import SeriesConsensus
    from deepod.series.lstm_ad import LSTMAD
    from deepod.series.lstm_ae import LSTMAE
    from deepod.series.lstm_vae import LSTMVAE
    from deepod.series.rere import ReRe
    from deepod.series.ridge_ar import RidgeAR
    from deepod.series.window_neighbors import WindowNeighbors
    from deepod.series.windows import Windows

__all__ = [
    "CLSTM",
    "CNNVAELSTM",
    "LSTMAD",
    "LSTMAE",
    "LSTMVAE",
    "ReRe",
    "RidgeAR",
    "SeriesConsensus",
    "WindowNeighbors",
    "Windows",
    "split_at_gaps",
]

if not TYPE_CHECKING:  # type checkers are to see that a misspelt name is none

    def __getattr__(name: str) -> Any:
        if name not in SERIES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = detector_class(name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
