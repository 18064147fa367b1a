"""Draw the picture of the front page, ``docs/_static/overview.png``: ``python docs/picture.py``."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits, make_moons

from deepod import AutoEncoder, Consensus
from deepod.series import SeriesConsensus

FILE = Path(__file__).parent / "_static/overview.png"


def rows(ax) -> None:
    """Draw scores over the plane, and rows that are flagged."""
    rng = np.random.default_rng(0)
    X = make_moons(600, noise=0.07, random_state=0)[0]
    new = np.concatenate(
        [make_moons(120, noise=0.07, random_state=1)[0], rng.uniform(-2, 3, (25, 2))]
    )
    detector = Consensus(contamination=0.01, random_state=0).fit(X)
    x, y = np.meshgrid(np.linspace(-1.8, 2.8, 160), np.linspace(-1.6, 2.1, 130))
    heights = detector.decision_function(np.column_stack([x.ravel(), y.ravel()])).reshape(x.shape)
    ax.contourf(x, y, heights, levels=12, cmap="Blues", alpha=0.9)
    flagged = detector.predict(new) == 1
    ax.scatter(*new[~flagged].T, s=9, color="black", label="normal")
    ax.scatter(*new[flagged].T, s=22, color="tab:red", marker="x", label="flagged")
    ax.set(title="rows: Consensus()", xlim=(-1.8, 2.8), ylim=(-1.6, 2.1), xticks=[], yticks=[])
    ax.legend(loc="upper right", fontsize=8)


def series(figure) -> None:
    """Draw a series with a defect, the scores of its points, and what is flagged."""
    rng = np.random.default_rng(0)
    t = np.arange(3500)
    x = np.column_stack([np.sin(t / 6), np.cos(t / 9)]) + 0.1 * rng.normal(size=(3500, 2))
    x[3200:3230, 1] += 1.2 * np.hanning(30)
    detector = SeriesConsensus(random_state=0).fit(x[:3000]).set_event_rate(0.5)
    at, part = t[3000:] - 3000, x[3000:]
    scores = detector.decision_function(part, context=x[:3000])
    axes = figure.subplots(3, sharex=True)
    for ax, values in zip(axes, [*part.T, scores], strict=True):
        ax.plot(at, values, linewidth=0.9, color="tab:blue" if values is not scores else "black")
        for start, stop in detector.events(part, context=x[:3000]):
            ax.axvspan(start, stop, color="tab:red", alpha=0.25)
        ax.set(yticks=[])
        ax.margins(x=0)
    axes[2].axhline(detector.threshold_, color="tab:red", linestyle="--", linewidth=1)
    for ax, name in zip(axes, ["channel 0", "channel 1", "score"], strict=True):
        ax.set_ylabel(name, fontsize=8)
    axes[0].set_title("points in time: SeriesConsensus()")


def images(figure) -> None:
    """Draw digits with defects, and where their reconstruction fails."""
    rng = np.random.default_rng(1)
    digits = rng.permutation(load_digits().images)[:, None]
    train, test = digits[:1400], digits[1400:1404].copy()
    for image in test:
        row, column = rng.integers(1, 6, 2)
        image[0, row : row + 2, column : column + 2] = (
            16 - image[0, row : row + 2, column : column + 2]
        )
    detector = AutoEncoder(latent_dim=16, random_state=0).fit(train)
    axes = figure.subplots(2, len(test))
    for (above, below), image, errors in zip(axes.T, test, detector.score_map(test), strict=True):
        above.imshow(image[0], cmap="gray")
        below.imshow(errors, cmap="magma")
        above.axis("off")
        below.axis("off")
    figure.suptitle("images: AutoEncoder().score_map", fontsize=mpl.rcParams["axes.titlesize"])


def main() -> None:
    """Draw the three panels."""
    with mpl.rc_context({"axes.titlesize": 10, "font.size": 9}):
        figure = Figure(figsize=(11, 3.2), layout="constrained", facecolor="white")
        left, middle, right = figure.subfigures(1, 3, wspace=0.03)
        rows(left.subplots())
        series(middle)
        images(right)
        figure.savefig(FILE, dpi=100, pil_kwargs={"optimize": True}, metadata={"Software": None})


if __name__ == "__main__":
    main()
