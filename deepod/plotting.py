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

    Raises
    ------
    ValueError
        If there are no scores, some are not finite, or ``y`` does not fit them.

    Examples
    --------
    >>> from deepod.plotting import plot_scores
    >>> ax = plot_scores([0.1, 0.2, 0.3, 4.0], y=[0, 0, 0, 1], threshold=1.0)
    """
    scores = np.asarray(scores, dtype=float)
    if scores.ndim != 1 or not scores.size or not np.isfinite(scores).all():
        raise ValueError(
            f"scores must be finite numbers of shape (n,), got shape {scores.shape} with "
            f"{np.count_nonzero(~np.isfinite(scores))} that are NaN or infinite."
        )
    if y is not None:
        y = np.asarray(y)
        if y.shape != scores.shape or not np.isin(y, (0, 1)).all():
            raise ValueError(
                f"y must hold 0 (normal) or 1 (anomaly) for each of {len(scores)} scores."
            )
    ax = _axes(ax)
    # Far anomalies have scores so high that the rest would shrink to one bar: the last bin
    # holds everything above the 98 % quantile.
    scores = np.minimum(scores, np.quantile(scores, 0.98))
    bins = np.histogram_bin_edges(scores, bins=40)
    if y is None:
        ax.hist(scores, bins, color="tab:blue", alpha=0.7)
    else:
        for label, name, color in ((0, "normal", "tab:blue"), (1, "anomaly", "tab:red")):
            part = scores[y == label]
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
        marker = "." if len(values) == 1 else ""  # a line of one point is not seen
        ax.plot(np.arange(1, len(values) + 1), values, style, marker=marker, label=name)
    ax.set_xlabel("epoch")
    ax.set_ylabel("weighted loss term")
    ax.legend()
    return ax


def plot_contributions(
    contributions: Any, feature_names: Any = None, n_features: int = 10, ax: Any = None
) -> Any:
    """Draw what the features of a table add to a score, the largest at the top.

    Parameters
    ----------
    contributions : array-like of shape (d,) or (n, d)
        Of one row, or of several, of which the mean is drawn: as ``detector.explain`` gives them
        for a table. Of windows, sum over the time first: ``detector.explain(X).sum(1)``.
    feature_names : array-like of str of shape (d,), optional
        Such as ``detector.feature_names_in_``; by default "feature 0" and so on.
    n_features : int, default=10
        Bars, by size; one more shows the sum of all other features.
    ax : matplotlib Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    ax : matplotlib Axes

    Raises
    ------
    ValueError
        If the shapes do not fit, or ``n_features`` is below 1.

    Examples
    --------
    >>> from deepod.plotting import plot_contributions
    >>> ax = plot_contributions([0.1, 2.0, -0.4], feature_names=["age", "height", "weight"])
    """
    values = np.asarray(contributions, dtype=float)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"contributions must be of shape (d,) or (n, d), got {values.shape}; sum over the time "
            "of windows first. For images, matplotlib's imshow shows more."
        )
    if n_features < 1:
        raise ValueError(f"n_features must be 1 or more, got {n_features!r}.")
    rows = 1 if values.ndim == 1 else len(values)
    values = values.reshape(rows, -1).mean(0)
    names = [f"feature {j}" for j in range(len(values))]
    if feature_names is not None:
        names = [str(name) for name in feature_names]
    if len(names) != len(values):
        raise ValueError(
            f"feature_names holds {len(names)} names for {len(values)} features of contributions."
        )
    ax = _axes(ax)
    order = np.argsort(-np.abs(values), kind="stable")
    shown, others = order[:n_features], order[n_features:]
    bars = [(names[j], values[j]) for j in shown]
    colors = ["tab:red" if value > 0 else "tab:blue" for _, value in bars]
    if len(others):
        bars.append((f"{len(others)} others", values[others].sum()))
        colors.append("tab:gray")
    # At places, not at names: two columns may have the same name.
    ax.barh(range(len(bars)), [value for _, value in bars], color=colors, alpha=0.7)
    # A dollar in a name is a dollar.
    ax.set_yticks(range(len(bars)), [name for name, _ in bars], parse_math=False)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("contribution to the score" + (f", mean of {rows} rows" if rows > 1 else ""))
    return ax


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]  # long names have room
