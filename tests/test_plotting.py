"""Pictures show what they are given."""

import numpy as np
import pytest

from deepod import plotting

from .cases import REPRESENTATIVES, fast, samples

figure = pytest.importorskip("matplotlib.figure")


@pytest.fixture
def ax():
    return figure.Figure().subplots()


def test_plot_scores__classes_and_threshold(ax):
    y = np.repeat([0, 1], [30, 10])
    plotting.plot_scores(np.arange(40.0), y, threshold=29.5, ax=ax)
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["normal", "anomaly", "threshold"]
    heights = [sum(bar.get_height() for bar in group) for group in ax.containers]
    assert heights == pytest.approx([1, 1])  # shares of each class


def test_plot_scores__threshold_above_nearly_all__bars_on_both_sides(ax):
    scores = np.append(np.linspace(0, 1, 1000), [50, 1000])
    plotting.plot_scores(scores, threshold=10, ax=ax)
    bars = ax.containers[0]
    assert sum(bar.get_height() for bar in bars if bar.get_x() > 10) == 2
    assert sum(bar.get_height() for bar in bars) == len(scores)


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_plot_history__one_line_per_term(name, ax):
    detector = fast(name, validation_fraction=0.2).fit(samples())
    plotting.plot_history(detector, ax=ax)
    terms = set().union(*detector.history_) - {"phase", "epoch", "seconds"}
    assert {line.get_label() for line in ax.lines} == terms


def test_plot_history__one_epoch__seen_as_a_point(ax):
    plotting.plot_history(fast("AutoEncoder", epochs=1).fit(samples()), ax=ax)
    assert [line.get_marker() for line in ax.lines] == ["."]


def bars(ax):
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    return list(zip(names, [bar.get_width() for bar in ax.patches], strict=True))


def test_plot_contributions__one_row__largest_first_and_the_sum_of_the_others(ax):
    values, names = [0.5, -3.0, 0.25, 1.0], list("abcd")
    assert plotting.plot_contributions(values, names, n_features=2, ax=ax) is ax
    assert bars(ax) == [("b", -3.0), ("d", 1.0), ("2 others", 0.75)]
    low, high = ax.get_ylim()
    assert low > high  # the first bar is at the top


def test_plot_contributions__several_rows__their_mean(ax):
    plotting.plot_contributions([[1.0, 4.0], [3.0, -2.0]], ax=ax)
    assert bars(ax) == [("feature 0", 2.0), ("feature 1", 1.0)]
    assert "2 rows" in ax.get_xlabel()


def test_plot_contributions__of_a_detector(ax):
    detector = fast("PLAD").fit(samples())
    contributions = detector.explain(samples(n=3))
    plotting.plot_contributions(contributions, n_features=1, ax=ax)
    assert sum(width for _, width in bars(ax)) == pytest.approx(contributions.sum(1).mean())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"contributions": np.zeros((2, 3, 4))}, "contributions"),
        ({"contributions": []}, "contributions"),
        ({"contributions": [1, 2], "feature_names": ["a"]}, "feature_names"),
        ({"contributions": [1, 2], "n_features": 0}, "n_features"),
    ],
)
def test_plot_contributions__bad_input__named(arguments, message, ax):
    with pytest.raises(ValueError, match=message):
        plotting.plot_contributions(**arguments, ax=ax)


@pytest.mark.parametrize(
    ("scores", "y", "message"),
    [
        ([], None, "scores must be finite numbers"),
        ([1, np.nan], None, "1 that are NaN or infinite"),
        ([[1, 2]], None, r"got shape \(1, 2\)"),
        ([1, 2, 3], [0, 1], "y must hold 0"),
        ([1, 2, 3], [-1, 1, 1], "for each of 3 scores"),
    ],
)
def test_plot_scores__what_cannot_be_drawn__refused(scores, y, message, ax):
    with pytest.raises(ValueError, match=message):
        plotting.plot_scores(scores, y, ax=ax)


class Distances:
    """A detector of series: a score is the sum of the distances to 0."""

    n_features_in_ = 3
    threshold_ = 2.0

    def decision_function(self, X, *, context=None):
        self.context = context
        return np.abs(X.rows).sum(axis=1)

    def explain(self, X, *, context=None):
        return X.shaped(np.abs(np.asarray(X.rows)))


SERIES = np.zeros((20, 3))
SERIES[5:8, 1], SERIES[15, 2] = 3.0, 9.0


def drawn_series(X=SERIES, y=None, **options):
    drawn = plotting.plot_series(Distances(), X, y, figure=figure.Figure(), **options)
    drawn.draw_without_rendering()
    return drawn.axes


def shaded(ax, label="flagged"):
    """From where to where stretches are shaded."""
    found = [c for c in ax.collections if c.get_label() == label]
    paths = [path.get_extents() for collection in found for path in collection.get_paths()]
    return [(float(path.x0), float(path.x1)) for path in paths]


def test_plot_series__channels_scores_threshold_and_flagged_stretches():
    *channels, scores = drawn_series()
    assert [ax.get_ylabel() for ax in channels] == ["channel 0", "channel 1", "channel 2"]
    for ax, values in zip([*channels, scores], [*SERIES.T, SERIES.sum(1)], strict=True):
        line = ax.lines[0]
        np.testing.assert_array_equal(line.get_ydata(), values)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(20))
        assert shaded(ax) == [(4.5, 7.5), (14.5, 15.5)]
    assert scores.lines[1].get_ydata() == [2.0, 2.0]
    texts = [text.get_text() for text in scores.get_legend().get_texts()]
    assert texts == ["threshold", "flagged"]


def test_plot_series__labels_and_context(ax):
    detector = Distances()
    y = np.arange(20) > 17
    drawn = plotting.plot_series(detector, SERIES, y, context=SERIES[:4], figure=figure.Figure())
    assert shaded(drawn.axes[-1], "labelled") == [(17.5, 19.0)]
    np.testing.assert_array_equal(detector.context, SERIES[:4])


def test_plot_series__many_channels__those_that_add_most_to_what_is_flagged():
    X = np.add(SERIES, [1.5, 0, 0])  # adds most, but not where a score is above the threshold
    *channels, _ = drawn_series(X, n_channels=2, feature_names=["a$", "b", "c"])
    assert [ax.get_ylabel() for ax in channels] == ["b", "c"]
    assert channels[0].get_title().startswith("2 of 3 channels")
    *channels, _ = drawn_series(np.full((20, 3), [0.1, 0, 0]), n_channels=1)
    assert [ax.get_ylabel() for ax in channels] == ["channel 0"]


def test_plot_series__several__one_after_the_other_and_no_stretch_across():
    parts = [SERIES[:7], SERIES[7:]]
    for X in (parts, np.stack([SERIES[:7], SERIES[7:14]])):
        ax = drawn_series(X, [np.zeros(7), np.ones(len(X[1]))])[0]
        assert [len(line.get_xdata()) for line in ax.lines[:2]] == [7, len(X[1])]
        assert shaded(ax)[:2] == [(4.5, 6.0), (7.0, 7.5)]


def test_plot_series__frame__its_names_and_times():
    pd = pytest.importorskip("pandas")
    dates = pytest.importorskip("matplotlib.dates")
    times = pd.date_range("2024-01-01", periods=20, freq="h")
    for index in (times, times.tz_localize("Europe/Berlin"), times.to_period("h")):
        axes = drawn_series(pd.DataFrame(SERIES, index, columns=["a", "b", "c"]))
        assert [ax.get_ylabel() for ax in axes] == ["a", "b", "c", "score"]
        np.testing.assert_array_equal(axes[0].lines[0].get_xdata(), dates.date2num(times))
    axes = drawn_series(pd.DataFrame(SERIES, times - times[0]))
    assert axes[0].lines[0].get_xdata()[:2].tolist() == [0, 3600]


def test_plot_series__long__extremes_are_kept():
    X = np.zeros((100_001, 3))
    X[70_000], X[100_000] = 5.0, -4.0
    *_, channel, scores = drawn_series(X)
    (line,) = channel.lines
    assert len(line.get_xdata()) < 10_000
    assert (line.get_ydata().max(), line.get_ydata().min()) == (5.0, -4.0)
    assert shaded(scores) == [(69_999.5, 70_000.5), (99_999.5, 100_000.0)]


def test_plot_series__very_high_scores__the_threshold_is_still_seen():
    assert drawn_series()[-1].get_yscale() == "linear"
    ax = drawn_series(SERIES * 1000)[-1]
    assert ax.get_yscale() == "log"
    assert ax.get_ylim()[0] < Distances.threshold_


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_channels": 0}, "n_channels must be 1 or more"),
        ({"y": [0, 1]}, "y must hold 0 .* for each of 20 points"),
        ({"y": np.full(20, 2)}, "y must hold 0"),
        (
            {"scores": np.zeros(3)},
            r"scores must be of shape \(20,\), one for each point of X, got \(3,\)",
        ),
        ({"feature_names": ["a"]}, "feature_names holds 1 names for 3 channels"),
        ({"X": np.zeros((2, 2, 2, 2))}, "X has 4 dimensions"),
    ],
)
def test_plot_series__bad_argument__named(options, message):
    with pytest.raises(ValueError, match=message):
        drawn_series(**options)


def test_plot_contributions__dollars_in_names__drawn(ax):
    names = ["US$ to A$", r"$\frac{$"]
    plotting.plot_contributions([1, 2], names, ax=ax)
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == names[::-1]
