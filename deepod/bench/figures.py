"""The pictures of a report; matplotlib and scikit-posthocs (``deepod[bench]``) draw them.

Each function returns a matplotlib Figure that belongs to nobody else; pyplot is not used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deepod.bench.tables import ALPHA, Comparison, pareto
from deepod.plotting import plot_scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

INK, FAINT = "#1c2733", "#c9d1d9"
_OURS = ("#0b5fa5", "#d1495b", "#00798c", "#7d3fb2", "#e07a00", "#2b8a3e", "#b5179e", "#6b4226")
_PEERS = ("#8093a8", "#b08968", "#86a373", "#a58bb0", "#c78f8f", "#6fa3a3", "#a3a05a", "#8a8a8a")
_MARKERS = "osD^vPX"
_DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
_STYLE = {
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#5b6875",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e6eaee",
    "text.parse_math": False,  # a dollar in a name is a dollar
    "svg.fonttype": "none",  # text that can be searched, and read aloud
    "svg.hashsalt": "deepod",  # the same picture, the same file
}


class Look(NamedTuple):
    """How a detector is drawn, in all figures alike."""

    color: str
    marker: str
    line: Any
    ours: bool


def looks(detectors: Mapping[str, bool]) -> dict[str, Look]:
    """Give detectors their looks: ours strong, solid and filled, others pale, dashed and hollow.

    Parameters
    ----------
    detectors : mapping
        Names to whether it is one of ours.
    """
    found = {}
    for ours, palette in ((True, _OURS), (False, _PEERS)):
        for i, name in enumerate(name for name, own in detectors.items() if own == ours):
            turn = i // len(palette)
            line = "-" if ours and not turn else _DASHES[(i + turn) % len(_DASHES)]
            marker = _MARKERS[(turn + (0 if ours else 1)) % len(_MARKERS)]
            found[name] = Look(palette[i % len(palette)], marker, line, ours)
    return found


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context():  # puts the user's settings back
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def _styled(draw: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(draw)
    def styled(*args: Any, **kwargs: Any) -> Any:
        with _style():
            return draw(*args, **kwargs)

    return styled


@_styled
def svg(figure: Figure, title: str, prefix: str) -> str:
    """Write a figure as the element that goes into a page.

    Parameters
    ----------
    figure : Figure
    title : str
        What those hear who cannot see it.
    prefix : str
        In front of all ids, so that they are the only ones of the page.

    Returns
    -------
    str
        The same for the same figure; no part of it refers to another file.
    """
    contents = StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(contents, format="svg", bbox_inches="tight", pad_inches=0.08, metadata=nothing)
    _, start, drawing = contents.getvalue().partition("<svg ")
    head, _, rest = drawing.partition(">")
    width = re.search(r'width="([\d.]+)pt"', head)
    # As wide as the page, but no wider than it was drawn.
    pixels = round(float(width[1]) * 96 / 72) if width else 1000
    head = re.sub(r' ?(width|height)="[\d.]+pt"', "", head)
    rest = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", rest)
    return (
        f'{start}{head} role="img" aria-labelledby="{prefix}-title" style="max-width:{pixels}px">'
        f'<title id="{prefix}-title">{escape(title)}</title>{rest}'
    )


@_styled
def critical_difference(found: Comparison, look: Mapping[str, Look]) -> Figure:
    """Draw mean ranks on a line, with bars over those that the test does not tell apart."""
    from matplotlib.figure import Figure
    from scikit_posthocs import critical_difference_diagram

    assert found.ranks is not None
    figure = Figure(figsize=(7.5, 3))
    ax = figure.subplots()
    drawn = critical_difference_diagram(
        found.ranks,
        found.pairs,
        alpha=ALPHA,
        ax=ax,
        cd=found.difference,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        color_palette={name: look[name].color for name in found.ranks.index},
        label_props={"fontsize": 10},
        marker_props={"s": 34},
        elbow_props={"linewidth": 1.2},
        crossbar_props={"color": INK, "linewidth": 3, "solid_capstyle": "round"},
        text_h_margin=0.02 * len(found.ranks),
    )
    names = found.ranks.sort_values().index
    half = (len(names) + 1) // 2
    for name, label in zip([*names[:half], *names[half:][::-1]], drawn["labels"], strict=True):
        label.set_color(INK)
        label.set_fontweight("bold" if look[name].ours else "normal")
    low, high = ax.get_ylim()
    figure.set_size_inches(7.5, 0.5 + 0.2 * (high - low))
    ax.xaxis.set_major_locator(_whole_numbers())
    return figure


@_styled
def heat_map(scores: pd.DataFrame, look: Mapping[str, Look], lower_is_better: bool) -> Figure:
    """Draw datasets x detectors in percent: the best detector at the left, the easiest row on top.

    The best value of a dataset is bold.
    """
    from matplotlib.figure import Figure

    scores = 100 * scores[scores.mean().sort_values(ascending=lower_is_better).index]
    scores = scores.loc[scores.mean(axis=1).sort_values(ascending=lower_is_better).index]
    n, k = scores.shape
    values = scores.to_numpy()
    width, height = 0.62 * k + 0.3, 0.27 * n
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    low, high = np.quantile(values, 0.02), values.max()
    colors = figure_colors("YlGnBu_r" if lower_is_better else "YlGnBu")
    shades = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 0.85
    ax.imshow(colors(shades if not lower_is_better else shades + 0.15), aspect="auto")
    best = values.min(1) if lower_is_better else values.max(1)
    for i, j in np.ndindex(n, k):
        red, green, blue, _ = colors(shades[i, j] + 0.15 * lower_is_better)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.52
        ax.text(
            *(j, i, f"{values[i, j]:.1f}"),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else INK,
            fontweight="bold" if round(values[i, j], 1) == round(best[i], 1) else "normal",
        )
    ax.set_xticks(range(k), list(scores.columns), rotation=35, ha="left", rotation_mode="anchor")
    ax.xaxis.set_ticks_position("top")
    for label in ax.get_xticklabels():
        label.set_fontweight("bold" if look[label.get_text()].ours else "normal")
    ax.set_yticks(range(n), list(scores.index))
    ax.tick_params(length=0, pad=5)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_xticks(np.arange(k - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(n - 1) + 0.5, minor=True)
    ax.tick_params(which="minor", length=0)
    ax.grid(which="minor", color="white", linewidth=1.2)
    ax.set_axisbelow(False)
    return figure


@_styled
def time_against_quality(
    table: pd.DataFrame, metric: str, look: Mapping[str, Look], lower_is_better: bool
) -> Figure:
    """Draw a point for each detector, and a line through those that no other beats in both.

    Parameters
    ----------
    table : DataFrame
        As :func:`deepod.bench.tables.summary` gives it.
    metric : str
        Name for the axis.
    look : mapping
    lower_is_better : bool
    """
    from matplotlib.figure import Figure

    table = table.sort_values("mean", ascending=lower_is_better)
    n = len(table)
    seconds = table["fit_seconds"].to_numpy(float).clip(1e-6)
    quality = 100 * table["mean"].to_numpy(float)
    front = pareto(seconds, -quality if lower_is_better else quality)
    figure = Figure(figsize=(7, max(3.8, 0.24 * n)))
    ax = figure.subplots()
    ax.set_xscale("log")
    ax.grid(True)
    if lower_is_better:
        ax.invert_yaxis()
    order = np.argsort(seconds[front], kind="stable")
    ax.plot(
        seconds[front][order],
        quality[front][order],
        color=INK,
        alpha=0.35,
        linewidth=6,
        solid_capstyle="round",
        drawstyle="steps-post",
        zorder=1,
    )
    for name, x, y in zip(table.index, seconds, quality, strict=True):
        of = look[name]
        face = of.color if of.ours else "white"
        ax.plot(x, y, of.marker, ms=9, mec=of.color, mfc=face, mew=2, zorder=3)
    # Names in a column at the right, each joined to its point: no two can overlap.
    low, high = ax.get_ylim()
    places = _spread((quality - low) / (high - low), 1 / max(n, 14))
    for name, x, y, place, ahead in zip(table.index, seconds, quality, places, front, strict=True):
        ax.annotate(
            f"{name}{' ★' if ahead else ''}",
            xy=(x, y),
            xytext=(1.06, place),
            textcoords="axes fraction",
            va="center",
            fontweight="bold" if look[name].ours else "normal",
            arrowprops={
                "arrowstyle": "-",
                "color": look[name].color,
                "linewidth": 0.8,
                "alpha": 0.7,
                "relpos": (0, 0.5),
                "shrinkA": 1,
                "shrinkB": 5,
            },
        )
    ax.set_xlabel("mean seconds of a fit (log scale)")
    ax.set_ylabel(f"mean {metric}, percent")
    return figure


@_styled
def curves(
    kept: Mapping[str, tuple[np.ndarray, np.ndarray]], look: Mapping[str, Look]
) -> tuple[Figure, list[str]]:
    """Draw ROC and precision-recall curves.

    Parameters
    ----------
    kept : mapping
        Detectors to labels (1 = anomaly) and scores of the test rows.
    look : mapping

    Returns
    -------
    figure : Figure
    order : list of str
        Detectors, the largest area below the ROC curve first.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from sklearn.metrics import (
        average_precision_score,
        precision_recall_curve,
        roc_auc_score,
        roc_curve,
    )

    areas = {
        name: (roc_auc_score(y, scores), average_precision_score(y, scores))
        for name, (y, scores) in kept.items()
    }
    order = sorted(kept, key=lambda name: -areas[name][0])
    figure = Figure(figsize=(8.2, 4))
    left, right = figure.subplots(1, 2)
    figure.subplots_adjust(wspace=0.28)
    left.plot([0, 1], [0, 1], color=FAINT, linewidth=1, zorder=0)
    handles = []
    for name in order[::-1]:  # the best on top
        y, scores = kept[name]
        style: dict[str, Any] = {
            "color": look[name].color,
            "linestyle": look[name].line,
            "linewidth": 2 if look[name].ours else 1.4,
        }
        alarms, found, _ = roc_curve(y, scores)
        left.plot(alarms, found, **style)
        precision, recall, _ = precision_recall_curve(y, scores)
        right.plot(recall[::-1], precision[::-1], drawstyle="steps-pre", **style)
        roc, pr = (100 * area for area in areas[name])
        handles.append(Line2D([], [], label=f"{name}  {roc:.1f} / {pr:.1f}", **style))
    share = float(np.mean(kept[order[0]][0]))
    right.axhline(share, color=FAINT, linewidth=1, zorder=0)
    left.set(title="ROC", xlabel="false positive rate", ylabel="true positive rate")
    right.set(title="Precision and recall", xlabel="recall", ylabel="precision")
    for ax in (left, right):
        ax.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        ax.grid(True)
    legend = right.legend(
        handles=handles[::-1],
        title="AUC-ROC / AUC-PR, percent",
        loc="upper left",
        bbox_to_anchor=(1.03, 1.02),
        frameon=False,
        fontsize=9,
        title_fontsize=9,
        handlelength=2.6,
        labelspacing=0.35,
    )
    for entry, name in zip(legend.get_texts(), order, strict=True):
        entry.set_fontweight("bold" if look[name].ours else "normal")
    return figure, order


@_styled
def histograms(
    kept: Mapping[str, tuple[np.ndarray, np.ndarray]],
    order: Sequence[str],
    look: Mapping[str, Look],
) -> Figure:
    """Draw the scores of normal rows and anomalies, a panel for each detector."""
    from matplotlib.figure import Figure

    columns = min(4, len(order))
    lines = -(-len(order) // columns)
    figure = Figure(figsize=(2.8 * columns, 1.75 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).ravel()
    for ax, name in zip(axes, order, strict=False):
        y, scores = kept[name]
        plot_scores(scores, y, ax=ax)
        ax.get_legend().remove()
        ax.set(xlabel="", ylabel="", yticks=[], xticks=[])
        short = name if len(name) <= 34 else f"{name[:16]}…{name[-16:]}"
        ax.set_title(short, fontsize=9, fontweight="bold" if look[name].ours else "normal")
        ax.spines["left"].set_visible(False)
    for ax in axes[len(order) :]:
        ax.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    figure.supxlabel("anomaly score; the last bar holds all above the 98 % quantile", fontsize=9)
    return figure


def figure_colors(name: str) -> Any:
    """Find a colour map of matplotlib."""
    from matplotlib import colormaps

    return colormaps[name]


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def _spread(places: np.ndarray, gap: float) -> np.ndarray:
    """Move places that decrease, from 1 to 0, as little as it takes for them to be a gap apart."""
    spread = places.clip(0, 1).astype(float)
    for i in range(1, len(spread)):
        spread[i] = min(spread[i], spread[i - 1] - gap)
    floor = 0.0
    for i in range(len(spread) - 1, -1, -1):
        spread[i] = max(spread[i], floor)
        floor = spread[i] + gap
    return spread
