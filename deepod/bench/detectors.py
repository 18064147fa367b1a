"""Lookup of detectors by name: of deepod, of PyOD, of any module, or in a TOML file."""

from __future__ import annotations

import inspect
import pkgutil
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import deepod
from deepod._registry import SERIES


class Found(NamedTuple):
    """The class and the parameters that the name of a detector stands for."""

    module: str
    name: str
    params: dict[str, Any]

    @property
    def own(self) -> bool:
        """Whether it is a detector of deepod, which scales by itself; False if it has no import."""
        return self.of_series or self._is(deepod.BaseDetector, deepod.Consensus)

    @property
    def of_series(self) -> bool:
        """Whether it is a detector of deepod for time series."""
        return self.module in SERIES.values()

    @property
    def stacks(self) -> bool:
        """Whether it can train together with others of its kind."""
        return self._is(deepod.BaseDetector)

    def _is(self, *classes: type) -> bool:
        try:
            return issubclass(self.load(), classes)
        except Exception:
            return False

    def load(self) -> type:
        """Import the class."""
        from pyod.models.base import BaseDetector

        cls = getattr(import_module(self.module), self.name)
        if not (self.of_series or issubclass(cls, BaseDetector)):
            # scikit-learn's own detectors, for one, give anomalies the lower scores.
            raise TypeError(
                f"{self.module}:{self.name} is not a subclass of PyOD's BaseDetector, and cannot "
                "be compared."
            )
        return cls

    def build(self, seed: int, **offered: Any) -> tuple[Any, dict[str, Any]]:
        """Construct the detector.

        Parameters
        ----------
        seed : int
        **offered : object
            Additional parameters, which are set if the class has them.

        Returns
        -------
        detector : object
        facts : dict
            Entries for the row: the ``params`` that were set, ``random_state`` (None if the class
            has none), ``own`` (whether it is a detector of deepod) and ``scaling`` ("own", or
            "standard" if a scaler must be put before it).
        """
        cls = self.load()
        accepted = inspect.signature(cls).parameters
        params = {key: _value(value) for key, value in self.params.items()}
        offered |= {"random_state": seed, "verbose": 0}
        params |= {key: value for key, value in offered.items() if key in accepted}
        return cls(**params), {
            "params": self.params,
            "random_state": params.get("random_state"),
            "own": self.own,
            "scaling": "own" if self.own else "standard",
        }


def _on_windows(detector: str, **params: Any) -> Found:
    settings = {"detector": {"name": detector, **params}, "window": 50}
    return Found(SERIES["Windows"], "Windows", settings)


_OWN = "deepod.bench.baselines"
# What runs beside the detectors in the protocol "series"; see usual_of_series.
BASELINES = {
    "random": Found(_OWN, "Random", {}),
    "moving-average": Found(_OWN, "MovingAverage", {}),
    "pca": _on_windows(f"{_OWN}:PrincipalComponents"),
    "kmeans": _on_windows(f"{_OWN}:NearestCentre", n_clusters=20),
    "neighbors": _on_windows("pyod:KNN", n_neighbors=5, method="mean"),
    "iforest": _on_windows("pyod:IForest"),
    "ridge": Found(SERIES["RidgeAR"], "RidgeAR", {}),
    "lstmad-pyod": Found("pyod.models.ts_lstm", "LSTMAD", {}),
}


def usual_of_series() -> list[str]:
    """Return the names of deepod's detectors of time series that are not baselines."""
    baselines = {(found.module, found.name) for found in BASELINES.values()}
    return [name for name, module in SERIES.items() if (module, name) not in baselines]


def find(name: str) -> Found:
    """Return the class and parameters that a name stands for, without importing the class.

    Parameters
    ----------
    name : str
        "PLAD" (a key of ``deepod.DETECTORS``), "LSTMAD" (one of ``deepod.series``), "Consensus",
        "pyod:IForest", "module:Class", "baseline:kmeans" (a key of :data:`BASELINES`) or
        "file.toml:section". A section has the key ``detector``, which is one of the other names,
        and a table ``params`` of constructor parameters. In it, lists become tuples,
        ``{none = true}`` becomes None, and a table such as ``{name = "MLP", hidden = [64, 32]}``
        becomes an object of that class of ``deepod.networks`` or of that detector ("PLAD",
        "pyod:IForest", "module:Class").

    Raises
    ------
    ValueError
        If there is no such detector.
    """
    where, _, what = name.rpartition(":")
    if not where:
        known = {"Consensus": "deepod.ensemble", **deepod.DETECTORS, **SERIES}
        if what in known:
            return Found(known[what], what, {})
        raise ValueError(
            f"There is no detector {name!r} in deepod; its detectors are {', '.join(known)}."
        )
    if where.endswith(".toml"):
        try:
            section = tomllib.loads(Path(where).read_text(encoding="utf-8")).get(what)
        except ValueError as error:
            raise ValueError(f"{where} is not a TOML file in UTF-8: {error}") from error
        if not isinstance(section, dict) or "detector" not in section:
            raise ValueError(f"{where} has no section [{what}] with a key 'detector'.")
        return find(section["detector"])._replace(params=section.get("params", {}))
    if where == "baseline":
        if what in BASELINES:
            return BASELINES[what]
        raise ValueError(
            f"There is no baseline {what!r}; the baselines are {', '.join(BASELINES)}."
        )
    if where == "pyod":
        import pyod.models

        for module in pkgutil.iter_modules(pyod.models.__path__):
            if module.name.replace("_", "") == what.replace("_", "").lower():
                return Found(f"pyod.models.{module.name}", what, {})
        raise ValueError(
            f"There is no module in pyod.models for {what!r}; give the class as module:Class."
        )
    return Found(where, what, {})


def _value(value: Any) -> Any:
    """Return the constructor argument that a TOML value stands for."""
    if isinstance(value, list):
        return tuple(_value(item) for item in value)
    if value == {"none": True}:
        return None
    if isinstance(value, dict):
        name = value["name"]
        rest = {key: item for key, item in value.items() if key != "name"}
        if ":" in name or name in deepod.DETECTORS:
            found = find(name)
            cls, rest = found.load(), found.params | rest
        else:
            cls = getattr(import_module("deepod.networks"), name)
        return cls(**{key: _value(item) for key, item in rest.items()})
    return value
