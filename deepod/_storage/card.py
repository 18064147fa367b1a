"""The card of a saved model: its README.md, for readers."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

from sklearn.base import clone

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"
# This parameter names a file on the machine of the fit. It is private, and useless elsewhere.
PLACE = "checkpoint"


def card(description: dict[str, Any], detector: Any) -> str:
    """Return the text of the card of a saved model, in the form of the Hugging Face hub."""
    name, fitted = description["detector"], description["fitted"]
    names = getattr(detector, "feature_names_in_", None)
    unseen = {PLACE, "detectors", "detector"}
    given = {k: v for k, v in detector.get_params(deep=False).items() if k not in unseen}
    inner = getattr(detector, "detector_", None)
    members = getattr(detector, "members_", None if inner is None else [inner])
    threshold = description["threshold"]
    label = (
        "it needs calibrate(X) first" if threshold is None else f"1: score above {threshold:.6g}"
    )
    rule = f"contamination={detector.contamination!r}"
    if detector.false_alarm_rate is not None:
        rule = f"false_alarm_rate={detector.false_alarm_rate!r}"
    if detector._given() is not None:
        rule = "set_threshold"
    return _TEMPLATE.format(
        name=name,
        summary=(inspect.getdoc(type(detector)) or name).partition("\n")[0],
        label=label,
        shape=detector.input_shape_,
        n=fitted["_n_training"],
        features="without names" if names is None else ", ".join(names),
        threshold=repr(threshold),
        rule=rule,
        versions=", ".join(f"{key} {value}" for key, value in description["versions"].items()),
        rows="" if not _holds_rows(members or [detector]) else _ROWS,
        params=_table(("parameter", "value"), given.items()),
        more=_training(fitted["history_"]) if members is None else _members(members),
        weights=WEIGHTS,
        config=CONFIG,
    )


_TEMPLATE = """---
library_name: deepod
tags:
- anomaly-detection
- outlier-detection
- {name}
---

# {name}

{summary}

```python
import deepod

detector = deepod.load("this folder")
scores = detector.decision_function(X)  # higher = more anomalous
labels = detector.predict(X)  # {label}
```

- Training samples: {n}, each of shape {shape}
- Features: {features}
- Threshold: {threshold}, set by {rule}
- Versions: {versions}
{rows}
## Parameters

{params}

{more}

deepod loads `{weights}` only; `{config}` and this card are copies for readers.
"""
_ROWS = """- **Holds training rows**: anyone who has the file can read them. Share it only if
  you may share the data.
"""


def _holds_rows(detectors: Iterable[Any]) -> bool:
    """Return whether a module stores training rows to compare with."""
    return any(
        getattr(part, "holds_rows", False)
        for detector in detectors
        for part in getattr(detector, "detector_", detector).module_.modules()
    )


def _training(history: list[dict[str, Any]]) -> str:
    terms = list(dict.fromkeys(key for entry in history for key in entry))
    ends = [e for e, after in zip(history, [*history[1:], {}], strict=False)
            if e["phase"] != after.get("phase")]  # fmt: skip
    last = _table(terms, [[_rounded(entry.get(term, "")) for term in terms] for entry in ends])
    return f"## Training\n\nThe last epoch of every phase:\n\n{last}"


def _members(members: Iterable[Any]) -> str:
    unfitted = [clone(member) for member in members]
    for member in unfitted:
        member.set_params(**{key: None for key in member.get_params() if PLACE in key.split("__")})
    return f"## Members\n\n{_table(('number', 'detector'), enumerate(unfitted))}"


def _table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(head)]
    lines += [["---"] * len(lines[0])]
    lines += [[" ".join(str(cell).split()).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _rounded(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
