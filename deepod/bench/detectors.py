"""Detectors by name: deepod's, PyOD's, any class that follows PyOD, or a section of a TOML file."""

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
    """What the name of a detector stands for."""

    module: str
    name: str
    params: dict[str, Any]

    @property
    def own(self) -> bool:
        """Whether it is of deepod, and scales by itself; of what cannot be imported, no."""
        return self.of_series or self._is(deepod.BaseDetector, deepod.Consensus)

    @property
    def of_series(self) -> bool:
        """Whether it is one of deepod's that take time series."""
        return self.module in SERIES.values()

    @property
    def stacks(self) -> bool:
        """Whether it trains beside others that are alike."""
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
            raise TypeError(f"{self.module}:{self.name} is not a subclass of PyOD's BaseDetector.")
        return cls

    def build(self, seed: int, **offered: Any) -> tuple[Any, dict[str, Any]]:
        """Construct the detector.

        Parameters
        ----------
        seed : int
        **offered : object
            More parameters, set where the class has them.

        Returns
        -------
        detector : object
        facts : dict
            For the record: ``params`` that were set, ``random_state`` (None where the class has
            none), whether it is one of deepod's (``own``) and ``scaling``: "own", or "standard" for
            a scaler that is to go in front.
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
    """Name deepod's detectors of time series, but those that the baselines have."""
    baselines = {(found.module, found.name) for found in BASELINES.values()}
    return [name for name, module in SERIES.items() if (module, name) not in baselines]


def find(name: str) -> Found:
    """Find a detector without importing it.

    Parameters
    ----------
    name : str
        "PLAD" (a key of ``deepod.DETECTORS``), "LSTMAD" (one of ``deepod.series``), "Consensus",
        "pyod:IForest", "module:Class", "baseline:kmeans" (a key of :data:`BASELINES`), or
        "file.toml:section": a section with the key ``detector``, one of the former, and a table
        ``params`` of constructor parameters, in which lists become tuples and a table such as
        ``{name = "MLP", hidden = [64, 32]}`` becomes that class of ``deepod.networks``, or a
        detector of that name: "PLAD", "pyod:IForest", "module:Class"; ``{none = true}`` is None.

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
        raise ValueError(f"No detector {name!r} in deepod; it has {', '.join(known)}.")
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
        raise ValueError(f"No baseline {what!r}; there are {', '.join(BASELINES)}.")
    if where == "pyod":
        import pyod.models

        for module in pkgutil.iter_modules(pyod.models.__path__):
            if module.name.replace("_", "") == what.replace("_", "").lower():
                return Found(f"pyod.models.{module.name}", what, {})
        raise ValueError(f"No file of pyod.models is named like {what!r}; write module:Class.")
    return Found(where, what, {})


def _value(value: Any) -> Any:
    """Turn a TOML value into what constructors take."""
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
