"""The pictures of a report, drawn by matplotlib and scikit-posthocs (``deepod[bench]``).

Each function returns a new matplotlib Figure; pyplot is not used.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import wraps
from html import escape
from io import StringIO
from itertools import pairwise, product
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from deepod.bench.reporting.tables import ALPHA, Comparison, flat, pareto
from deepod.plotting import plot_scores

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

INK, FAINT = "#1c2733", "#c9d1d9"
_OURS = ("#0b5fa5", "#d1495b", "#00798c", "#7d3fb2", "#e07a00", "#2b8a3e", "#b5179e", "#6b4226")
_PEERS = ("#8093a8", "#b08968", "#86a373", "#a58bb0", "#c78f8f", "#6fa3a3", "#a3a05a", "#8a8a8a")
_LONGEST = 24  # characters of a name
_MARKERS = "osD^vPX"
_AROUND = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (0.7, -0.7), (-0.7, 0.7), (-0.7, -0.7))
_DASHES = ((0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))
_STYLE: Any = {
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
    """The colour, line and marker of a detector, which are the same in all figures."""

    label: str
    color: str
    marker: str
    line: Any
    ours: bool

    @property
    def weight(self) -> str:
        """The weight of the font of the label."""
        return "bold" if self.ours else "normal"


def looks(detectors: Mapping[str, bool]) -> dict[str, Look]:
    """Return the look of each detector: ours strong and filled, others pale and hollow.

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
            color = _darker(palette[i % len(palette)], turn % 3)
            found[name] = Look(_label(name, detectors), color, marker, line, ours)
    return found


def _darker(color: str, times: int) -> str:
    parts = (int(int(color[i : i + 2], 16) * 0.6**times) for i in (1, 3, 5))
    return "#" + "".join(f"{part:02x}" for part in parts)


def _label(name: str, names: Iterable[str]) -> str:
    """Shorten names to their last part, except where two names would then be equal."""
    end = name.rpartition("/")[2][-_LONGEST:]
    alone = sum(other.endswith(end) for other in names) == 1
    if not alone or len(end) >= len(name) - 2:
        return flat(name)
    return flat(end if name[-len(end) - 1] == "/" else f"…{end}")


@contextmanager
def _style() -> Iterator[None]:
    import matplotlib

    # Letters that matplotlib's font lacks are a UserWarning; texts stay texts, and browsers have
    # more fonts. Both contexts put the user's settings back.
    quiet = warnings.catch_warnings(action="ignore", category=UserWarning)
    with matplotlib.rc_context(), quiet:
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
    """Return a figure as an SVG element for a page.

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
    # As wide as the page, but never so small or large that it cannot be read: it scrolls then.
    pixels = round(float(width[1]) * 96 / 72) if width else 1000
    head = re.sub(r' ?(width|height)="[\d.]+pt"', "", head)
    rest = re.sub(r'(\sid="|xlink:href="#|url\(#)', rf"\g<1>{prefix}-", rest)
    return (
        f'{start}{head} role="img" aria-labelledby="{prefix}-title" '
        f'style="max-width:{pixels}px;min-width:{round(0.75 * pixels)}px">'
        f'<title id="{prefix}-title">{escape(title)}</title>{rest}'
    )


@_styled
def critical_difference(found: Comparison, look: Mapping[str, Look]) -> Figure:
    """Draw mean ranks on a line, with bars over ranks that do not differ significantly."""
    from matplotlib.figure import Figure
    from scikit_posthocs import critical_difference_diagram

    assert found.ranks is not None
    figure = Figure(figsize=(9, 3))
    ax = figure.subplots()
    names = found.ranks.sort_values().index
    width = found.ranks.max() - found.ranks.min()
    drawn = critical_difference_diagram(
        found.ranks,
        found.pairs,
        alpha=ALPHA,
        ax=ax,
        label_fmt_left="{label}  {rank:.2f}",
        label_fmt_right="{rank:.2f}  {label}",
        color_palette={name: look[name].color for name in names},
        marker_props={"s": 40},
        elbow_props={"linewidth": 1.2},
        # A bar may pass below detectors that it does not join: those that it does have a dot.
        crossbar_props={"color": INK, "linewidth": 2.5, "marker": "o", "markersize": 5},
        text_h_margin=0.03 * width,
    )
    half = (len(names) + 1) // 2
    for name, text in zip([*names[:half], *names[half:][::-1]], drawn["labels"], strict=True):
        text.set_text(text.get_text().replace(name, look[name].label))
        text.set(color=INK, fontweight=look[name].weight)
        outwards = -1 if text.get_horizontalalignment() == "right" else 1
        text.set_x(text.get_position()[0] + outwards * 0.01 * width)
    if found.difference is not None:  # a ruler above the numbers of the axis
        start = found.ranks.min()
        ax.plot([start, start + found.difference], [2.6, 2.6], color=INK, marker="|", markersize=7)
        middle = start + found.difference / 2
        ax.text(middle, 3.1, f"CD = {found.difference:.2f}", ha="center", fontsize=9)
    low, high = ax.get_ylim()
    figure.set_size_inches(9, 0.22 * (high - low))
    ax.xaxis.set_major_locator(_whole_numbers())
    return figure


@_styled
def heat_map(scores: pd.DataFrame, look: Mapping[str, Look], lower_is_better: bool) -> Figure:
    """Draw datasets x detectors in percent: the best detector at the left, the easiest row on top.

    The best value of a dataset is bold.
    """
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    scores = 100 * scores[scores.mean().sort_values(ascending=lower_is_better).index]
    scores = scores.loc[scores.mean(axis=1).sort_values(ascending=lower_is_better).index]
    n, k = scores.shape
    values = scores.to_numpy()
    width, height = 0.54 * k + 0.1, 0.28 * n + 0.05
    figure = Figure(figsize=(width, height))
    ax = figure.add_axes((0, 0, 1, 1))
    low, high = np.quantile(values, 0.02), values.max()
    colors = colormaps["YlGnBu"]
    shades = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    shades = 0.85 * (1 - shades if lower_is_better else shades)  # dark is good, but not black
    # Cells as shapes, not as an image: sharp at any size.
    edges = np.arange(k + 1) - 0.5, np.arange(n + 1) - 0.5
    ax.pcolormesh(*edges, shades, cmap=colors, vmin=0, vmax=1, edgecolors="white", linewidth=1.2)
    ax.invert_yaxis()
    best = values.min(1) if lower_is_better else values.max(1)
    for i, j in np.ndindex(n, k):
        red, green, blue, _ = colors(shades[i, j])
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.52
        ax.text(
            *(j, i, f"{values[i, j]:.1f}"),
            ha="center",
            va="center",
            fontsize=9,
            color="white" if dark else INK,
            fontweight="bold" if round(values[i, j], 1) == round(best[i], 1) else "normal",
        )
    of = [look[name] for name in scores.columns]
    labels = [each.label for each in of]
    ax.set_xticks(range(k), labels, rotation=42, ha="left", rotation_mode="anchor")
    ax.xaxis.set_ticks_position("top")
    for tick, each in zip(ax.get_xticklabels(), of, strict=True):
        tick.set_fontweight(each.weight)
    ax.set_yticks(range(n), [_label(name, scores.index) for name in scores.index])
    ax.tick_params(length=0, pad=5)
    for side in ax.spines.values():
        side.set_visible(False)
    return figure


@_styled
def time_against_quality(
    table: pd.DataFrame, metric: str, look: Mapping[str, Look], lower_is_better: bool
) -> Figure:
    """Draw a point for each detector, and a line through those that no other one dominates.

    Parameters
    ----------
    table : DataFrame
        As :func:`deepod.bench.reporting.tables.summary` gives it.
    metric : str
        Name for the axis.
    look : mapping
    lower_is_better : bool
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    table = table.sort_values("mean", ascending=lower_is_better)
    n = len(table)
    seconds = table["fit_seconds"].to_numpy(float).clip(1e-6)
    quality = 100 * table["mean"].to_numpy(float)
    front = pareto(seconds, -quality if lower_is_better else quality)
    figure = Figure(figsize=(10.5, np.clip(0.3 * n, 4, 7)))
    ax = figure.subplots()
    ax.set_xscale("log")
    decades = np.log10(seconds.max() / seconds.min())
    pad = 10 ** max(0.12 * decades, 0.2)
    ax.set_xlim(seconds.min() / pad, seconds.max() * pad)
    between = (1, 2, 3, 5, 7) if decades <= 1 else (1, 3) if decades <= 6 else (1,)
    ax.xaxis.set_major_locator(LogLocator(subs=between))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_locator(NullLocator())
    ax.margins(y=0.1)
    ax.grid(True)
    if lower_is_better:
        ax.invert_yaxis()
    order = np.argsort(seconds[front], kind="stable")
    xs, ys = (values[front][order] for values in (seconds, quality))
    stairs = np.column_stack([np.repeat(xs, 2)[1:], np.repeat(ys, 2)[:-1]])
    ax.plot(*stairs.T, color=FAINT, linewidth=5, solid_capstyle="round", zorder=1)
    for name, x, y in zip(table.index, seconds, quality, strict=True):
        of = look[name]
        face = of.color if of.ours else "white"
        ax.plot(x, y, of.marker, ms=9, mec=of.color, mfc=face, mew=2, zorder=3)
    texts = [
        ax.annotate(
            look[name].label + (" ★" if ahead else ""),
            xy=(x, y),
            xytext=(0, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight=look[name].weight,
            zorder=4,
        )
        for name, x, y, ahead in zip(table.index, seconds, quality, front, strict=True)
    ]
    _move_apart(texts, stairs, ax)
    ax.set_xlabel("mean seconds of a fit (log scale)")
    ax.set_ylabel(f"mean {metric}, percent")
    return figure


@_styled
def places(means: pd.DataFrame, look: Mapping[str, Look]) -> Figure:
    """Draw the mean of each detector, the best on top; published ones are grey.

    Parameters
    ----------
    means : DataFrame
        As :func:`deepod.bench.reporting.tables.with_published` gives it.
    look : mapping
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 0.24 * len(means) + 0.5))
    ax = figure.subplots()
    ax.grid(axis="x")
    for place, (name, mean) in enumerate(means["mean"].items()):
        of = look.get(str(name))
        color = "#a9b4be" if of is None else of.color
        hollow = of is not None and not of.ours
        ax.plot(mean, place, "o", ms=8, mec=color, mfc="white" if hollow else color, mew=2)
        ax.annotate(
            *(f"{mean:.1f}", (mean, place)),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            fontweight="normal" if of is None else "bold",
        )
    names = [look[name].label if name in look else name for name in means.index]
    ax.set_yticks(range(len(means)), names)
    for tick, name in zip(ax.get_yticklabels(), means.index, strict=True):
        tick.set_fontweight("bold" if name in look else "normal")
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(means) - 0.4, -0.6)
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("mean AUC-ROC, percent")
    ax.margins(x=0.08)
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
        handles.append(Line2D([], [], label=f"{look[name].label}  {roc:.1f} / {pr:.1f}", **style))
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
        entry.set_fontweight(look[name].weight)
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
        ax.set_title(look[name].label, fontsize=9, fontweight=look[name].weight)
        ax.spines["left"].set_visible(False)
    for ax in axes[len(order) :]:
        ax.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, frameon=False)
    figure.supxlabel("anomaly score; the last bar holds all above the 98 % quantile", fontsize=9)
    return figure


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def _move_apart(texts: Sequence[Any], line: Any, ax: Any) -> None:
    """Move each label to the nearest free place around its point, away from points and line.

    Where the axes are full, labels go below each other at their right.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.transforms import Bbox

    renderer = FigureCanvasAgg(ax.figure).get_renderer()
    ax.figure.draw_without_rendering()  # the limits are known now
    scale = ax.figure.dpi / 72
    room = ax.get_window_extent(renderer)
    points = [ax.transData.transform(text.xy) for text in texts]
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in points]
    for start, end in pairwise(ax.transData.transform(line)):
        taken.append(Bbox([np.minimum(start, end) - 2, np.maximum(start, end) + 2]))
    below = room.y1
    for text, (x, y) in zip(texts, points, strict=True):
        size = text.get_window_extent(renderer)
        wide, high = size.width + 4, size.height + 2
        for distance, (right, up) in product(range(12, 160, 8), _AROUND):
            middle_x = x + right * distance + np.sign(right) * wide / 2
            middle_y = y + up * distance + np.sign(up) * high / 2
            box = Bbox.from_bounds(middle_x - wide / 2, middle_y - high / 2, wide, high)
            inside = room.x0 <= box.x0 and box.x1 <= room.x1 and room.y0 <= box.y0 <= room.y1 - high
            if inside and not box.count_overlaps(taken):
                break
        else:
            box = Bbox.from_bounds(room.x1 + 10, below - high, wide, high)
            below = box.y0
            distance = 1000
        taken.append(box)
        text.set_position(((box.x0 + 2 - x) / scale, ((box.y0 + box.y1) / 2 - y) / scale))
        if distance > 12:  # not beside its point: a line leads there
            end = np.clip((x, y), (box.x0, box.y0), (box.x1, box.y1)) - (x, y)
            ax.annotate(
                "",
                xy=text.xy,
                xytext=tuple(end / scale),
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": "#8b98a5", "linewidth": 0.8, "shrinkA": 0},
            )
