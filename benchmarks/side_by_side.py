"""The same work by several contenders in one run, turn by turn: medians and ratios."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from deepod.bench import environment

Values = dict[str, float]  # by quantity


class Cell(NamedTuple):
    """One measured quantity of one contender; a ratio has "over / under" for its contender."""

    section: str
    setting: str
    contender: str
    quantity: str
    quick: bool = False


class Contender(NamedTuple):
    """One side of a comparison, set up and ready to be measured.

    Parameters
    ----------
    measure : callable
        Does the work once and returns every quantity of the comparison.
    facts : dict
        What else its rows say; may be filled while it is measured.
    """

    measure: Callable[[], Values]
    facts: dict[str, Any]


class Ratio(NamedTuple):
    """How many times the reference ``under`` fits into ``over``.

    ``figure`` names the target that it is held against.
    """

    over: str
    under: str
    quantity: str
    figure: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Contenders that take turns.

    Parameters
    ----------
    section, setting : str
        Where it belongs, and what the contenders have in common.
    quantities : dict
        Unit of every quantity.
    contenders : dict
        By name, functions that set a :class:`Contender` up.
    ratios : sequence of Ratio
    figures : dict
        Targets that a quantity itself is held against, by contender and quantity.
    facts : dict
        What the rows of all contenders say: sizes, and how the sides differ.
    missing : str, optional
        Why it cannot be run here; then this is what the rows say.
    repeats : int, optional
        Rounds, where the command's number is too many.
    warm_up : int, optional
        How many contenders do the work once untimed before; None: all.
    equal : str, optional
        A fact that must be the same for all contenders.
    """

    section: str
    setting: str
    quantities: dict[str, str]
    contenders: dict[str, Callable[[], Contender]]
    ratios: Sequence[Ratio] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    figures: dict[tuple[str, str], str] = field(default_factory=dict)
    missing: str | None = None
    repeats: int | None = None
    warm_up: int | None = None
    equal: str | None = None

    def cells(self, quick: bool) -> list[Cell]:
        """List what its rows will be."""
        here = self.section, self.setting
        measured = [Cell(*here, c, q, quick) for c in self.contenders for q in self.quantities]
        return measured + [_cell(self, ratio, quick) for ratio in self.ratios]


def timed(function: Callable[[], Any]) -> float:
    """Seconds that a call takes; garbage is collected before."""
    gc.collect()
    start = perf_counter()
    function()
    return perf_counter() - start


def run(comparison: Comparison, repeats: int, quick: bool = False) -> list[dict[str, Any]]:
    """Measure all contenders in turns, A B A B, and compare them.

    Parameters
    ----------
    comparison : Comparison
    repeats : int
        Rounds, after the untimed one.
    quick : bool, default=False
        Mark the rows as those of a trial with tiny sizes.

    Returns
    -------
    rows : list of dict
        One per cell. A contender that fails has its ``error`` for a result.
    """
    if comparison.missing is not None:
        rows = [
            cell._asdict() | comparison.facts | {"skipped": comparison.missing}
            for cell in comparison.cells(quick)
        ]
        figures = [ratio.figure for ratio in comparison.ratios]
        for row, figure in zip(rows[len(rows) - len(figures) :], figures, strict=True):
            row["figure"] = figure
        return rows
    before = environment.load()
    ready: dict[str, Contender] = {}
    errors: dict[str, str] = {}
    times: dict[str, list[Values]] = {name: [] for name in comparison.contenders}

    def attempt(name: str, step: Callable[[], None]) -> None:
        if name not in errors:
            try:
                step()
            except Exception as error:
                errors[name] = f"{type(error).__name__}: {error}"

    for name, set_up in comparison.contenders.items():
        attempt(name, lambda name=name, set_up=set_up: ready.update({name: set_up()}))
    for name in list(comparison.contenders)[: comparison.warm_up]:
        attempt(name, lambda name=name: ready[name].measure())
    for _ in range(min(repeats, comparison.repeats or repeats)):
        for name in comparison.contenders:
            attempt(name, lambda name=name: times[name].append(ready[name].measure()))
    if comparison.equal is not None:
        same = {name: ready[name].facts[comparison.equal] for name in ready.keys() - errors}
        if len(set(same.values())) > 1:  # not the same work: nothing to compare
            errors |= dict.fromkeys(same, f"ValueError: {comparison.equal} differ: {same}")
    about = {"load": [before, environment.load()]} | comparison.facts
    rows = []
    for name in comparison.contenders:
        facts = about | (ready[name].facts if name in ready else {})
        for quantity, unit in comparison.quantities.items():
            cell = Cell(comparison.section, comparison.setting, name, quantity, quick)
            if name in errors:
                rows.append(cell._asdict() | facts | {"error": errors[name]})
                continue
            values = [value[quantity] for value in times[name]]
            row = cell._asdict() | {"unit": unit, "values": values, "median": median(values)}
            rows.append(row | facts | {"figure": comparison.figures.get((name, quantity))})
    return rows + ratios(comparison, rows, quick)


def ratios(
    comparison: Comparison, rows: Iterable[dict[str, Any]], quick: bool = False
) -> list[dict[str, Any]]:
    """Compare the measured rows of one run.

    Parameters
    ----------
    comparison : Comparison
    rows : iterable of dict
        Its measured rows.
    quick : bool, default=False

    Returns
    -------
    list of dict
        One row per ratio: that of the medians is ``ratio``, those of the rounds ``values``.
    """
    found = {(row["contender"], row["quantity"]): row for row in rows}
    results = []
    for ratio in comparison.ratios:
        over, under = (found[name, ratio.quantity] for name in (ratio.over, ratio.under))
        row: dict[str, Any] = _cell(comparison, ratio, quick)._asdict() | comparison.facts
        row |= {"figure": ratio.figure}
        failed = [
            f"{side['contender']}: {side['error']}" for side in (over, under) if "error" in side
        ]
        if failed:
            row["error"] = "; ".join(failed)
        elif min(*over["values"], *under["values"]) <= 0:
            row["error"] = "the work is too short: a time is not above 0"
        else:
            row["ratio"] = over["median"] / under["median"]
            pairs = zip(over["values"], under["values"], strict=True)
            row["values"] = [a / b for a, b in pairs]
        results.append(row)
    return results


def _cell(comparison: Comparison, ratio: Ratio, quick: bool) -> Cell:
    sides = f"{ratio.over} / {ratio.under}"
    return Cell(comparison.section, comparison.setting, sides, ratio.quantity, quick)
