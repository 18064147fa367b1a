"""Plots of scores, losses, contributions and series; they need ``deepod[plots]`` (matplotlib)."""

from __future__ import annotations

from typing import Any

import numpy as np

from deepod._inputs.series import Series, as_series

_STRETCHES = 4000  # a longer line is cut into so many; only their extremes are drawn


def plot_scores(scores: Any, y: Any = None, threshold: float | None = None, ax: Any = None) -> Any:
    """Draw a histogram of anomaly scores, with a colour for each label if labels are given.

    The last bar counts all scores above the 98 % quantile, or a little above the threshold if that
    is higher.

    Parameters
    ----------
    scores : array-like of shape (n,)
        Scores as returned by ``decision_function``.
    y : array-like of shape (n,), optional
        Labels: 0 = normal, 1 = anomaly. The histogram of each label then shows shares.
    threshold : float, optional
        Position of a vertical line, for example ``detector.threshold_``.
    ax : matplotlib Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axes with the plot.

    Raises
    ------
    ValueError
        If ``scores`` is empty or not finite, or ``y`` does not have a label for each score.

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
    # The scores of far anomalies are so high that all others would fall into one bar. Therefore
    # the last bin holds everything above the 98 % quantile. The threshold is always inside.
    last = np.quantile(scores, 0.98)
    if threshold is not None and threshold > last:
        last = threshold + 0.1 * (threshold - scores.min())
    scores = np.minimum(scores, last)
    bins = np.histogram_bin_edges(scores, bins=40)
    if y is None:
        ax.hist(scores, bins, color="tab:blue", alpha=0.7)
    else:
        for label, name, color in ((0, "normal", "tab:blue"), (1, "anomaly", "tab:red")):
            part = scores[y == label]
            # Shares instead of counts, so that a rare class is visible too.
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
    """Draw each loss term of a fitted detector over the epochs of training.

    Parameters
    ----------
    detector : BaseDetector
        A fitted detector with at least one epoch in ``history_``.
    ax : matplotlib Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axes with the plot.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod import AutoEncoder
    >>> from deepod.plotting import plot_history
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> ax = plot_history(AutoEncoder(epochs=5, random_state=0).fit(X))
    """
    ax = _axes(ax)
    names = dict.fromkeys(name for entry in detector.history_ for name in entry)
    for name in [n for n in names if n not in ("phase", "epoch", "seconds")]:
        values = [entry.get(name, np.nan) for entry in detector.history_]
        style = ":" if name.startswith("validation_") else "-"
        marker = "." if len(values) == 1 else ""  # a line of one point is invisible
        ax.plot(np.arange(1, len(values) + 1), values, style, marker=marker, label=name)
    ax.set_xlabel("epoch")
    ax.set_ylabel("weighted loss term")
    ax.legend()
    return ax


def plot_contributions(
    contributions: Any, feature_names: Any = None, n_features: int = 10, ax: Any = None
) -> Any:
    """Draw a bar for the contribution of each feature to a score, the largest at the top.

    Parameters
    ----------
    contributions : array-like of shape (d,) or (n, d)
        Contributions of one row or of several rows of a table, as returned by ``detector.explain``.
        The mean of several rows is drawn. For windows, sum over the time first:
        ``detector.explain(X).sum(1)``.
    feature_names : array-like of str of shape (d,), optional
        Names of the features, such as ``detector.feature_names_in_``; by default "feature 0" and so
        on.
    n_features : int, default=10
        Number of features to draw, those with the largest absolute contributions. One more bar
        shows the sum of all others.
    ax : matplotlib Axes, optional
        Axes to draw on; by default those of a new figure.

    Returns
    -------
    ax : matplotlib Axes
        The axes with the plot.

    Raises
    ------
    ValueError
        If ``contributions`` has another shape, ``feature_names`` has another length, or
        ``n_features`` is below 1.

    Examples
    --------
    >>> from deepod.plotting import plot_contributions
    >>> ax = plot_contributions([0.1, 2.0, -0.4], feature_names=["age", "height", "weight"])
    """
    values = np.asarray(contributions, dtype=float)
    if values.ndim not in (1, 2) or not values.size:
        raise ValueError(
            f"contributions must be of shape (d,) or (n, d), got {values.shape}. For windows, sum "
            "over the time first: detector.explain(X).sum(1). For images, use matplotlib's imshow."
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
    # At numbers instead of names, because two columns may have the same name.
    ax.barh(range(len(bars)), [value for _, value in bars], color=colors, alpha=0.7)
    # A dollar sign in a name does not begin a formula.
    ax.set_yticks(range(len(bars)), [name for name, _ in bars], parse_math=False)
    ax.invert_yaxis()
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("contribution to the score" + (f", mean of {rows} rows" if rows > 1 else ""))
    return ax


def plot_series(
    detector: Any,
    X: Any,
    y: Any = None,
    *,
    context: Any = None,
    scores: Any = None,
    feature_names: Any = None,
    n_channels: int = 8,
    figure: Any = None,
) -> Any:
    """Draw a time series with the scores of its points, the threshold and the flagged stretches.

    Each channel has its own panel, and the last panel shows the scores. Stretches with scores above
    the threshold are shaded in all panels. Several series are drawn one after the other.

    Parameters
    ----------
    detector : SeriesDetector
        A fitted detector of :mod:`deepod.series`.
    X : array-like of shape (T,), (T, channels) or (n, T, channels), or a list of series
        The series to score and draw. The time axis is the index if X is a single DataFrame.
    y : array-like, optional
        Labels of the points in the form of X: 0 = normal, 1 = anomaly. They are drawn below the
        scores.
    context : array-like, optional
        The points before X, as in ``decision_function``.
    scores : array-like of shape (n_points,), optional
        The scores of X, if they have been computed already.
    feature_names : array-like of str of shape (channels,), optional
        Names of the channels. By default those of X or of the detector, or "channel 0" and so on.
    n_channels : int, default=8
        Largest number of channels to draw. If there are more, those are drawn that contribute most
        to the scores of the flagged points (of all points if none is flagged), in the order of X.
    figure : matplotlib Figure, optional
        Figure to draw on; by default a new one.

    Returns
    -------
    figure : matplotlib Figure
        The figure with the plot.

    Raises
    ------
    ValueError
        If the detector cannot score X, if ``y``, ``scores`` or ``feature_names`` have another
        length than X, or if ``n_channels`` is below 1.
    TypeError
        If there are more than ``n_channels`` channels and the detector has no ``explain``.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.plotting import plot_series
    >>> from deepod.series import RidgeAR
    >>> x = np.sin(np.arange(2000) / 5)
    >>> detector = RidgeAR().fit(x[:1500])
    >>> figure = plot_series(detector, x[1500:])
    """
    if n_channels < 1:
        raise ValueError(f"n_channels must be 1 or more, got {n_channels!r}.")
    series = as_series(X, channels=detector.n_features_in_)
    if scores is None:
        scores = detector.decision_function(series, context=context)
    scores = np.asarray(scores, dtype=float)
    if scores.shape != (len(series),):
        raise ValueError(
            f"scores must be of shape ({len(series)},), one for each point of X, got "
            f"{scores.shape}."
        )
    y = None if y is None else _points_labelled(y, series)
    names = _channel_names(feature_names, series, detector)
    flagged = scores > detector.threshold_
    shown = list(range(len(names)))
    if len(names) > n_channels:
        shown = _largest(detector, series, context, flagged, n_channels)
    if figure is None:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=(9, 3 + len(shown)), layout="constrained")
    heights = [*([1] * len(shown)), 2]
    axes = figure.subplots(len(heights), sharex=True, height_ratios=heights)
    at, dates = _places(series)
    values = np.asarray(series.rows)
    for ax, j in zip(axes, shown, strict=False):
        _draw_lines(ax, at, values[:, j].astype(float), series, "tab:blue")
        # A dollar sign in a name does not begin a formula.
        ax.set_ylabel(names[j], rotation="horizontal", ha="right", va="center", parse_math=False)
    if len(shown) < len(names):
        title = f"{len(shown)} of {len(names)} channels, those that add most to the scores"
        axes[0].set_title(title, fontsize="medium")
    _draw_scores(axes[-1], at, scores, detector.threshold_, series)
    for ax in axes:
        _shade(ax, at, flagged, series, (0, 1), color="tab:red", alpha=0.25, label="flagged")
        for start in series.starts[1:]:
            ax.axvline((at[start - 1] + at[start]) / 2, color="gray", linestyle=":", linewidth=0.8)
        ax.margins(x=0)
    if y is not None:
        _shade(axes[-1], at, y == 1, series, (0, 0.05), color="black", label="labelled")
    _name_times(axes[-1], dates)
    axes[-1].legend(loc="upper left", fontsize="small")
    return figure


def _points_labelled(y: Any, series: Series) -> np.ndarray:
    """Return the labels of the points of series."""
    y = np.concatenate([np.ravel(part) for part in y]) if isinstance(y, list) else np.ravel(y)
    if len(y) != len(series) or not np.isin(y, (0, 1)).all():
        raise ValueError(f"y must hold 0 (normal) or 1 (anomaly) for each of {len(series)} points.")
    return y


def _channel_names(given: Any, series: Series, detector: Any) -> list[str]:
    width = series.rows.shape[1]
    found = getattr(series.rows, "columns", getattr(detector, "feature_names_in_", None))
    found = found if given is None else given
    names = [f"channel {j}" for j in range(width)] if found is None else [str(n) for n in found]
    if len(names) != width:
        raise ValueError(f"feature_names holds {len(names)} names for {width} channels of X.")
    return names


def _largest(
    detector: Any, series: Series, context: Any, flagged: np.ndarray, n_channels: int
) -> list[int]:
    """Return the channels that contribute most to the scores of the flagged points, in order."""
    total = series.joined(detector.explain(series, context=context))[
        flagged if flagged.any() else slice(None)
    ].sum(0)
    return sorted(np.argsort(-total, kind="stable")[:n_channels].tolist())


def _places(series: Series) -> tuple[np.ndarray, bool]:
    """Return the positions of the points on the time axis, and whether they are dates."""
    index = series.index
    if index is None:
        return np.arange(len(series), dtype=float), False
    if hasattr(index, "to_timestamp"):  # of periods
        index = index.to_timestamp()
    if index.dtype.kind == "m":
        return index.total_seconds().to_numpy(), False
    if index.dtype.kind != "M":
        return index.to_numpy().astype(float), False
    from matplotlib.dates import date2num

    return date2num(index.tz_localize(None).to_numpy()), True


def _name_times(ax: Any, dates: bool) -> None:
    if not dates:
        ax.set_xlabel("time")
        return
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator()
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))


def _draw_lines(ax: Any, at: np.ndarray, values: np.ndarray, series: Series, color: str) -> None:
    """Draw each series as a line; of long ones, only the extremes of short stretches."""
    size = -(-len(series) // _STRETCHES)
    for start, length in zip(series.starts.tolist(), series.lengths, strict=True):
        own, part = at[start : start + length], values[start : start + length]
        if size > 1:
            firsts = np.arange(0, length, size)
            # These functions ignore NaN.
            ends = np.fmin.reduceat(part, firsts), np.fmax.reduceat(part, firsts)
            own, part = np.repeat(own[firsts], 2), np.column_stack(ends).ravel()
        ax.plot(own, part, color=color, linewidth=0.8, marker="." if length == 1 else "")


def _draw_scores(
    ax: Any, at: np.ndarray, scores: np.ndarray, threshold: float, series: Series
) -> None:
    _draw_lines(ax, at, scores, series, "black")
    ax.axhline(threshold, color="tab:red", linestyle="--", linewidth=0.8, label="threshold")
    ax.set_ylabel("score")
    # Beside scores a hundred times as high, the threshold would coincide with the axis.
    if 0 < 100 * threshold < scores.max():
        ax.set_yscale("log")
        ax.set_ylim(bottom=threshold / 100)


def _shade(
    ax: Any,
    at: np.ndarray,
    chosen: np.ndarray,
    series: Series,
    heights: tuple[float, float],
    **style: Any,
) -> None:
    """Shade runs of chosen points, between two heights of the axes from 0 to 1."""
    bars = []
    for start, length in zip(series.starts.tolist(), series.lengths, strict=True):
        own, part = at[start : start + length], chosen[start : start + length]
        middles = (own[1:] + own[:-1]) / 2
        edges = np.concatenate([own[:1], middles, own[-1:]])
        steps = np.diff(np.concatenate([[0], part.astype(int), [0]]))
        for first, end in zip(*map(np.flatnonzero, (steps == 1, steps == -1)), strict=True):
            bars.append((edges[first], edges[end] - edges[first]))
    if bars:
        low, high = heights
        transform = ax.get_xaxis_transform()
        ax.broken_barh(bars, (low, high - low), transform=transform, linewidth=0.5, **style)


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.subplots(layout="constrained")[1]  # leaves room for long names
