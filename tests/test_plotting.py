"""Pictures show what they are given."""

import numpy as np
import pytest

from deepod import plotting

from .cases import NAMES, fast, samples

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


@pytest.mark.parametrize("name", NAMES)
def test_plot_history__one_line_per_term(name, ax):
    detector = fast(name, validation_fraction=0.2).fit(samples())
    plotting.plot_history(detector, ax=ax)
    terms = set().union(*detector.history_) - {"phase", "epoch", "seconds"}
    assert {line.get_label() for line in ax.lines} == terms
