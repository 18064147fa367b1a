"""C-LSTM: a network that tells abnormal windows from normal ones, learned from labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from deepod._scoring.points import Span
from deepod._training.series_fit import Smallest
from deepod.networks.layers import drawn_by
from deepod.params import integer, one_of, param, parameters, positive
from deepod.series._base import SeriesDetector
from deepod.series._errors import Errors
from deepod.types import Batch, Losses, Shape


class Classifier(nn.Module):
    """Convolutions, an LSTM over what they found, and two dense layers: (B, L, d) -> (B, 2).

    Parameters
    ----------
    window, channels : int
        Points and channels of a window.
    filters, kernel_size, hidden, dense : int
        Of both convolutions, of the LSTM and of the dense layer after it.
    flatten : bool
        Whether the LSTM makes one step, over all that was found in the window.

    Attributes
    ----------
    class_weights : Tensor of shape (2,)
        What the losses of normal and of abnormal windows are multiplied by.
    """

    class_weights: Tensor

    def __init__(
        self,
        window: int,
        channels: int,
        filters: int,
        kernel_size: int,
        hidden: int,
        dense: int,
        flatten: bool,
    ) -> None:
        super().__init__()
        self.flatten = flatten

        def block(inputs: int) -> list[nn.Module]:
            convolution = nn.Conv1d(inputs, filters, kernel_size, padding="same")
            return [convolution, nn.Tanh(), nn.MaxPool1d(2)]

        self.convolutions = nn.Sequential(*block(channels), *block(filters))
        steps = window // 2 // 2
        self.lstm = nn.LSTM(steps * filters if flatten else filters, hidden, batch_first=True)
        self.head = nn.Sequential(nn.Linear(hidden, dense), nn.Tanh(), nn.Linear(dense, 2))
        self.register_buffer("class_weights", torch.ones(2))
        self.errors = Errors(channels, 1, None)  # a window has a class, and values have no errors

    def forward(self, x: Tensor) -> Tensor:
        """Logits of both classes, (B, 2)."""
        found = self.convolutions(x.mT).mT  # (B, L // 4, filters)
        if self.flatten:
            found = found.flatten(1)[:, None]
        states, _ = self.lstm(found)
        return self.head(states[:, -1])


@parameters
class CLSTM(SeriesDetector):
    """Classifier of windows, C-LSTM: a point is abnormal if the windows around it look so.

    Two convolutions find features in a window, an LSTM reads them in the order of time, a dense
    layer and a softmax tell p, the probability that a point of the window is abnormal. A window's
    score is the logit of p, above 0 where p is above 1/2; a point's is the mean over the windows
    that cover it, or with ``smoothing="causal"`` that of the window that ends at it.

    Notes
    -----
    **The equations.** Two blocks of a convolution, tanh and the maximum over pairs of points make
    features F(1), ..., F(window // 4) of a window; h is the LSTM's last state on them, and
    p = softmax(V tanh(W h + b) + c). The loss is the mean of -w(y) log p(y) over windows, y being a
    window's class. A window's score is log p(1) - log p(0).

    **With labels**, ``supervision="supervised"`` and ``fit(X, y)``, it is the paper's method: a
    window is abnormal if one of its points is; the loss is the cross-entropy, each class weighted
    by ``class_weight``. It finds what is like the labelled anomalies, and may well miss others. The
    last ``validation_fraction`` of each series is held out: windows that are drawn at random
    overlap, so that some of each anomaly would be on either side. It needs anomalies before that
    part. Labelled ones are left out of the scaling and of ``p_values``; ``contamination`` counts
    them. The paper's rule, p > 1/2, is ``set_threshold(0.0)``.

    **Without labels**, by default, is not in the paper: half of the windows of a batch are made
    abnormal, by adding ``noise_std`` times a constant and white noise, in shares that are drawn, to
    a stretch of some channels. It finds jumps and noise, no patterns that come late or not at all.

    The paper's setting, for one channel, as a re-run tells it: ``CLSTM(supervision="supervised",
    flatten_before_lstm=True, class_weight=None, window=60, scaler="minmax", batch_size=512,
    epochs=500)``. The number of parameters in its table, 262,400 for the LSTM, is that of a single
    step over all 15 * 64 features; ``flatten_before_lstm=False`` reads 15 steps of 64 in the order
    of time, as the text has it (33,024). Its training and test windows are drawn at random and
    overlap, and its F1 of 0.92 on web traffic has not been reproduced publicly.

    The defaults were looked at on two development series, no more. ``docs/series.md`` has figures
    of other series.

    ``explain`` compares a window with itself with a channel at its mean: the difference is what the
    channel adds; channels share alike in what is left of the score. ``error_scale`` has no effect.

    References
    ----------
    T.-Y. Kim and S.-B. Cho. Web Traffic Anomaly Detection Using C-LSTM Neural Networks. Expert
    Systems with Applications 2018.

    Examples
    --------
    >>> import numpy as np
    >>> from deepod.series import CLSTM
    >>> x, y = np.sin(np.arange(2000) / 5), np.zeros(2000)
    >>> for start in range(100, 2000, 200):
    ...     x[start : start + 10], y[start : start + 10] = 0.0, 1
    >>> detector = CLSTM(supervision="supervised", window=20, epochs=15, random_state=0)
    >>> scores = detector.fit(x[:1500], y[:1500]).decision_function(x[1500:])
    >>> bool(scores[y[1500:] == 1].min() > 0 > np.median(scores))
    True
    """

    supervision: Literal["supervised"] | None = param(
        default=None,
        accepts=[one_of("supervised"), None],
        doc="None ignores y and makes anomalies. 'supervised': y holds the true labels of all "
        "points, 1 for anomalies.",
    )
    filters: int = param(default=64, accepts=[integer(1)], doc="Filters of both convolutions.")
    kernel_size: int = param(
        default=5, accepts=[integer(1)], doc="Points that a filter of a convolution spans."
    )
    hidden: int = param(default=64, accepts=[integer(1)], doc="Units of the LSTM.")
    dense: int = param(default=32, accepts=[integer(1)], doc="Units of the dense layer.")
    flatten_before_lstm: bool = param(
        default=False,
        accepts=["boolean"],
        doc="Whether the LSTM makes a single step over all features of a window, as the numbers of "
        "parameters in the paper say, or reads them in the order of time.",
    )
    class_weight: Literal["balanced"] | None = param(
        default="balanced",
        accepts=[one_of("balanced"), None],
        doc="'balanced': with labels, the windows of both classes count alike in the loss, however "
        "few one has. None: each window counts alike.",
    )
    noise_std: float = param(
        default=2.0,
        accepts=[positive()],
        doc="Standard deviation of what is added to windows that are made abnormal, for channels "
        "of standard deviation 1.",
    )
    smoothing_length = 1
    max_grad_norm = 1.0
    family = "classification"
    paper = "Kim and Cho, Web Traffic Anomaly Detection Using C-LSTM Neural Networks, 2018"
    auto_window = 60
    windowed = True

    def _smallest_window(self) -> Smallest:
        return Smallest(4)

    def _build_module(self, shape: Shape) -> nn.Module:
        if self.window_ < 4:
            raise ValueError(
                f"CLSTM halves a window twice, and window={self.window_} is too short for it: "
                "give 4 points or more."
            )
        sizes = self.filters, self.kernel_size, self.hidden, self.dense
        return Classifier(self.window_, shape[0], *sizes, self.flatten_before_lstm)

    def _learn_labels(self, module: Any, y: Tensor, spans: Sequence[tuple[int, int]]) -> None:
        """Weight the classes by how many windows of training each has."""
        windows = [y[start:stop].unfold(0, self.window_, 1).amax(1) for start, stop in spans]
        share = torch.cat(windows).mean()
        if not 0 < share < 1:
            which = "an anomaly in none" if share == 0 else "an anomaly in each"
            raise ValueError(
                f"supervision={self.supervision!r} needs windows of both classes, and there is "
                f"{which} of those to train on, which end before the last validation_fraction="
                f"{self.validation_fraction} of each series."
            )
        if self.class_weight == "balanced":
            module.class_weights.copy_(0.5 / torch.stack([1 - share, share]))

    # --- loss -----------------------------------------------------------------------------------

    def _noise(self, n: int, shape: Shape, generator: torch.Generator) -> Any:
        if self.supervision is not None:
            return None
        given, d = drawn_by(generator), shape[1]
        # Of each window, of its channels, and of its values.
        uniform = torch.rand(n, 5, **given), torch.rand(n, d, **given)
        return *uniform, torch.randn(n, 1, d, **given), torch.randn(n, *shape, **given)

    def _loss(self, module: Any, batch: Batch) -> Losses:
        if self.supervision is None:
            x, y = made_abnormal(batch.x, batch.noise, self.noise_std)
        else:
            assert batch.y is not None
            x, y = batch.x, batch.y.amax(1).long()  # one point is enough
        terms = cross_entropy(module(x), y, reduction="none")
        return {"detection": (module.class_weights[y] * terms).mean()}

    # --- score ----------------------------------------------------------------------------------

    def _errors(self, module: nn.Module, x: Tensor) -> Tensor:
        raise NotImplementedError  # the class of a window is no error of values

    def _learn_errors(self, module: Any, x: Tensor, spans: Sequence[Span]) -> None:
        pass

    def _totals(self, module: Any, x: Tensor) -> Tensor:
        return logit(module, x)[:, None, None].expand(-1, x.shape[1], 1)

    def _terms(self, module: Any, x: Tensor) -> Tensor:
        """Logits, divided among channels by what each adds where it comes last."""
        total, d = logit(module, x), x.shape[2]
        rest = 1 - torch.eye(d, dtype=x.dtype, device=x.device)
        own = torch.stack([total - logit(module, x * rest[c]) for c in range(d)], 1)
        own = own + (total - own.sum(1))[:, None] / d  # so that they sum up to the score
        return own[:, None].expand(-1, x.shape[1], -1)

    def _contributions_of(self, terms: np.ndarray) -> np.ndarray:
        return terms


def logit(module: Any, x: Tensor) -> Tensor:
    """Logit of the probability that a point of each window is abnormal, (B,)."""
    normal, abnormal = module(x).unbind(1)
    return abnormal - normal


def made_abnormal(x: Tensor, noise: tuple[Tensor, ...], size: float) -> tuple[Tensor, Tensor]:
    """Return windows of which about half are made abnormal, and which those are, (B,).

    A stretch of w^u points out of w, u uniform: as many short ones as long ones. One channel at
    least, any number being as likely.
    """
    uniform, of_channels, level, white = noise
    made, begin, length, channels, steady = uniform.unbind(1)
    window = x.shape[1]
    length = window**length
    begin = begin * (window - length)
    place = torch.arange(window, device=x.device)
    within = (place >= begin[:, None].floor()) & (place < (begin + length)[:, None].floor())
    chosen = of_channels >= channels[:, None] * of_channels.amax(1, keepdim=True)
    y = made < 0.5
    where = y[:, None, None] & within[..., None] & chosen[:, None]
    steady = steady[:, None, None]
    off = size * (steady.sqrt() * level + (1 - steady).sqrt() * white)
    return x + where * off, y.long()
