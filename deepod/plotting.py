"""Pictures; matplotlib (the extra ``deepod[plots]``) is imported when one is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np


def plot_scores(scores: Any, y: Any = None, threshold: float | None = None, ax: Any = None) -> Any:
    """Draw the distribution of anomaly scores, split by label where labels are known.

    The last bar holds all scores above the 98 % quantile.

    Parameters
    ----------
    scores : array-like of shape (n,)
        As ``decision_function`` gives them.
    y : array-like of shape (n,), optional
        0 = normal, 1 = anomaly.
    threshold : float, optional
        Drawn as a vertical line, for instance ``detector.threshold_``.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    ax : matplotlib Axes

    Examples
    --------
    >>> from deepod.plotting import plot_scores
    >>> ax = plot_scores([0.1, 0.2, 0.3, 4.0], y=[0, 0, 0, 1], threshold=1.0)
    """
    scores = np.asarray(scores, dtype=float)
    ax = _axes(ax)
    # Far anomalies have scores so high that the rest would shrink to one bar: the last bin
    # holds everything above the 98 % quantile.
    scores = np.minimum(scores, np.quantile(scores, 0.98))
    bins = np.histogram_bin_edges(scores, bins=40)
    if y is None:
        ax.hist(scores, bins, color="tab:blue", alpha=0.7)
    else:
        for label, name, color in ((0, "normal", "tab:blue"), (1, "anomaly", "tab:red")):
            part = scores[np.asarray(y) == label]
            # Shares, so that a rare class is seen as well as a common one.
            share = np.full(len(part), 1 / max(1, len(part)))
            ax.hist(part, bins, weights=share, color=color, alpha=0.6, label=name)
    if threshold is not None:
        ax.axvline(threshold, color="black", linestyle="--", label="threshold")
    ax.set_xlabel("anomaly score")
    ax.set_ylabel("rows" if y is None else "share of the class")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


def plot_history(detector: Any, ax: Any = None) -> Any:
    """Draw each loss term of a fitted detector over the epochs.

    Parameters
    ----------
    detector : BaseDetector
        Fitted, with at least one epoch in ``history_``.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    ax : matplotlib Axes
    """
    ax = _axes(ax)
    names = dict.fromkeys(name for entry in detector.history_ for name in entry)
    for name in [n for n in names if n not in ("phase", "epoch", "seconds")]:
        values = [entry.get(name, np.nan) for entry in detector.history_]
        style = ":" if name.startswith("validation_") else "-"
        ax.plot(np.arange(1, len(values) + 1), values, style, label=name)
    ax.set_xlabel("epoch")
    ax.set_ylabel("weighted loss term")
    ax.legend()
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots()[1]
