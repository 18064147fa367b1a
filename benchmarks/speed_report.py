"""What ``benchmarks.speed`` found: the table of targets, and pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from deepod.bench.reporting.tables import pipe_table

Row = dict[str, Any]


class Target(NamedTuple):
    """A bound and an aim for a figure: ``sign`` 1 if more is better, else -1."""

    figure: str
    text: str
    bound: float
    aim: float | None
    sign: int
    unit: str = ""


TARGETS = (
    Target("fit_128", "fit, batch 128: PyOD / ours", 3, 6, 1),
    Target("fit_32", "fit, batch 32: PyOD / ours", 3, 6, 1),
    Target("step", "one step, batch 128: ours / its matrix products", 4.5, 2.5, -1),
    Target("score_default", "scoring: PyOD in batches of 32 / ours", 15, 35, 1),
    Target("score_4096", "scoring: PyOD in batches of 4096 / ours", 8, 18, 1),
    Target("score_module", "scoring: ours / the bare module", 1.3, 1.1, -1),
    Target("members", "10 members / one fit", 5, 3, -1),
    Target("search", "12 candidates x 3 folds: StackedSearchCV / GridSearchCV", 1 / 3, 1 / 8, -1),
    Target("rows_time", "time per row of a fit: more rows / 10,000, the worst", 1.3, None, -1),
    Target("rows_memory", "memory of a fit beyond a map of most rows", 1024, 300, -1, " MiB"),
    Target("imports_torch", "`from deepod import PLAD` / `import torch` alone", 1.1, None, -1),
    Target("imports", "`from deepod import PLAD` / its libraries alone", 1.1, None, -1),
)


def table(rows: Iterable[Row]) -> str:
    """Write the targets and what was measured as Markdown.

    Parameters
    ----------
    rows : iterable of dict
        Rows of :func:`benchmarks.side_by_side.run`. Of several rows of one figure the worst
        counts; trials (``--quick``) count only where there is nothing else.

    Returns
    -------
    str
    """
    rows = list(rows)
    lines = [["figure", "at least", "aim", "measured"]]
    for target in TARGETS:
        bound = f"{'≥' if target.sign > 0 else '≤'} {_number(target.bound)}{target.unit}"
        aim = "" if target.aim is None else f"{_number(target.aim)}{target.unit}"
        lines.append([target.text, bound, aim, _measured(target, rows)])
    return pipe_table(lines, text=(0, 3))


def where(rows: Iterable[Row]) -> str:
    """Name the machine, versions and commits that the rows are of."""
    rows = list(rows)
    parts: dict[str, dict[str, None]] = {}
    for row in rows:
        versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
        parts.setdefault("Commit", {})[str(row["commit"])] = None
        parts.setdefault("machine", {})[f"{row['cpu']}, {row['cores']} cores"] = None
        parts.setdefault("versions", {})[versions] = None
    loads = [load for row in rows for load in row.get("load", ()) if load is not None]
    text = "; ".join(f"{name}: {' / '.join(values)}" for name, values in parts.items())
    return f"{text}; load average: {min(loads)} to {max(loads)}." if loads else f"{text}."


def _measured(target: Target, rows: list[Row]) -> str:
    found = [row for row in rows if row.get("figure") == target.figure]
    found = [row for row in found if not row["quick"]] or found
    failed = [f"error: {row['error']}" for row in found if "error" in row]
    there = [row for row in found if "error" not in row and "skipped" not in row]
    if failed or not there:
        absent = dict.fromkeys(row["skipped"] for row in found if "skipped" in row)
        return "; ".join(failed or absent) or "not run"
    worst = _worst(target, there)
    value, values = _value(worst), worst["values"]
    text = f"{_number(value)}{target.unit}"
    if len(values) > 1:
        text += f" ({_number(min(values))} to {_number(max(values))})"

    verdict = "missed"
    if _reaches(target, value, target.bound):
        verdict = "aim reached" if _reaches(target, value, target.aim) else "reached"
    return f"{text}, {'a trial' if worst['quick'] else verdict}: {worst['setting']}"


def _worst(target: Target, rows: Iterable[Row]) -> Row:
    return min(rows, key=lambda row: target.sign * _value(row))


def _reaches(target: Target, value: float, bound: float | None) -> bool:
    return bound is not None and target.sign * value >= target.sign * bound


def _value(row: Row) -> float:
    return row["ratio"] if "ratio" in row else row["median"]


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def listing(rows: Iterable[Row]) -> str:
    """Write every measured median and every ratio as Markdown, section by section."""
    parts = []
    for (section, setting), found in groupby(rows, lambda row: (row["section"], row["setting"])):
        together = list(found)
        trial = " (trial)" if together[0]["quick"] else ""
        lines = [["contender", "quantity", "median", "lowest", "highest"]]
        lines += [[row["contender"], row["quantity"], *_numbers(row)] for row in together]
        parts.append(f"**{section}: {setting}**{trial}\n\n{pipe_table(lines, text=(0, 1))}")
    return "\n\n".join(parts)


def _numbers(row: Row) -> list[str]:
    """Write median, lowest and highest value, or why there are none."""
    if "values" not in row:
        return [str(row.get("error") or row.get("skipped")), "", ""]
    scale, unit = (1.0, "") if "ratio" in row else _scale(_value(row), row["unit"])
    numbers = (_value(row), min(row["values"]), max(row["values"]))
    return [f"{_number(number * scale)}{unit}" for number in numbers]


def _scale(value: float, unit: str) -> tuple[float, str]:
    """Choose a unit in which seconds are easy to read."""
    if unit != "s":
        return 1.0, f" {unit}"
    for factor, name in ((1.0, " s"), (1e3, " ms"), (1e6, " µs")):
        if abs(value) * factor >= 1:
            return factor, name
    return 1e9, " ns"


def draw(rows: Iterable[Row], folder: Path) -> list[Path]:
    """Draw the growth with rows, features and members, and all ratios.

    Parameters
    ----------
    rows : iterable of dict
        Rows of :func:`benchmarks.side_by_side.run`.
    folder : Path
        Where the ``.png`` files go.

    Returns
    -------
    list of Path
        The files; of what was not measured there is none.
    """
    from matplotlib.figure import Figure

    folder.mkdir(parents=True, exist_ok=True)
    measured = [row for row in rows if "values" in row]
    measured = [row for row in measured if not row["quick"]] or measured
    written = []

    def save(name: str, figure: Any) -> None:
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150)
        written.append(path)

    growths: list[tuple[str, str, str, Callable[[Row], bool]]] = [
        ("rows", "rows", "µs per row", lambda row: "memory map" in row["setting"]),
        ("features", "features", "µs per row", lambda row: "with features" in row["setting"]),
        ("members", "members", "s", lambda row: row["setting"].startswith("growth")),
    ]
    for name, fact, unit, belongs in growths:
        section = "members" if name == "members" else "rows"
        points = [
            row
            for row in measured
            if row["section"] == section and belongs(row) and "median" in row and row["unit"] == "s"
        ]
        if not points:
            continue
        factor = 1e6 if unit.startswith("µs") else 1
        figure = Figure(figsize=(5, 3.5), layout="constrained")
        axes = figure.subplots()
        points.sort(key=lambda row: row[fact])
        x = [row[fact] for row in points]
        axes.plot(x, [factor * row["median"] for row in points], "o-")
        axes.fill_between(
            x,
            [factor * min(row["values"]) for row in points],
            [factor * max(row["values"]) for row in points],
            alpha=0.3,
        )
        axes.set(xscale="log", xlabel=fact, ylabel=f"fit, {unit}", ylim=(0, None))
        axes.set_xticks(x, [f"{value:,}" for value in x])
        axes.minorticks_off()
        save(name, figure)
    ratios = [row for row in measured if "ratio" in row]
    of_target = {t: [row for row in ratios if row.get("figure") == t.figure] for t in TARGETS}
    bars = {t: _value(_worst(t, found)) for t, found in of_target.items() if found}
    if bars:
        figure = Figure(figsize=(8, 1 + 0.4 * len(bars)), layout="constrained")
        axes = figure.subplots()
        colors = [f"tab:{'blue' if _reaches(t, v, t.bound) else 'orange'}" for t, v in bars.items()]
        axes.barh([target.text for target in bars], list(bars.values()), color=colors)
        for y, target in enumerate(bars):
            axes.plot([target.bound] * 2, [y - 0.4, y + 0.4], color="black")
        axes.invert_yaxis()
        axes.set(xscale="log", xlabel="ratio (black: bound, orange: missed)")
        axes.set_xlim(left=min(0.1, *bars.values()) / 2)
        save("ratios", figure)
    return written
