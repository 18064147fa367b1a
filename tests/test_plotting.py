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


def test_plot_contributions__dollars_in_names__drawn(ax):
    names = ["US$ to A$", r"$\frac{$"]
    plotting.plot_contributions([1, 2], names, ax=ax)
    ax.figure.draw_without_rendering()
    assert [tick.get_text() for tick in ax.get_yticklabels()] == names[::-1]
