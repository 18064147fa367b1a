"""Candidates for what ``Consensus()`` is made of: docs/benchmarks.md has rule and outcome."""

from __future__ import annotations

from typing import Any, ClassVar

from deepod import AutoEncoder, Consensus, Neighbors


class _Candidate(Consensus):
    def __init__(self, random_state: Any = None) -> None:
        super().__init__(
            self._detectors(), combination=self._combination, random_state=random_state
        )

    _combination: Any = "mean"
    _parameter_constraints: ClassVar[dict[str, Any]] = {"random_state": ["random_state"]}

    @staticmethod
    def _detectors() -> list[Any]:
        return [Neighbors(), AutoEncoder(suspects=0.3)]


class MeanOfTails(_Candidate):
    """The mean in place of the maximum."""


class AllRows(_Candidate):
    """The maximum, with an autoencoder that learns from all rows."""

    _combination = "max"

    @staticmethod
    def _detectors() -> list[Any]:
        return [Neighbors(), AutoEncoder()]
