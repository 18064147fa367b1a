"""Going on from what was learned: on other rows by ``transfer``, on new rows by ``partial_fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

from sklearn.base import BaseEstimator, clone
from sklearn.utils.validation import check_is_fitted

from deepod._inputs.settings import fixed
from deepod._training.starts import Start, frozen_names, head_names, weights_of
from deepod._training.together import fit_all
from deepod.sources import Source, is_mapped

Method = TypeVar("Method", bound=Callable[..., Any])

if TYPE_CHECKING:  # scikit-learn's has no types

    def available_if(check: Callable[[Any], bool]) -> Callable[[Method], Method]:
        """Give a method to the objects that ``check`` is true of."""

else:
    from sklearn.utils.metaestimators import available_if

# What partial_fit leaves as it was, if it is there.
_KNOWN = (
    *("n_features_in_", "feature_names_in_", "input_shape_", "scaler_", "encoder_", "columns_"),
    "window_",
)


def _trained_in_steps(detector: Any) -> bool:
    """Tell whether a detector's weights are trained; raise an error that says so if not."""
    if not (detector.auto_epochs and detector._in_steps):
        raise AttributeError(
            f"{type(detector).__name__} trains no weights by gradients, from which training could "
            "go on: give fit all rows."
        )
    return True


class Continues:
    """Training that starts from fitted weights."""

    auto_epochs: ClassVar[int]
    # False where ``fit`` takes no steps, or none that the next one could go on from.
    _in_steps: ClassVar[bool] = True
    # What ``transfer`` has given: a fit begins with it. None: with new weights.
    _start: Start | None = None

    @fixed()
    def transfer(
        self,
        freeze: str | int | Iterable[str] | None = None,
        *,
        lr_scale: float = 1.0,
        reset_head: bool = False,
    ) -> Self:
        """Return an unfitted detector whose ``fit`` starts from the weights of this one.

        Parameters
        ----------
        freeze : None, "encoder", str, int or iterable of str, default=None
            What ``fit`` leaves as it is: nothing; the parts called encoder (where there are none,
            as in :class:`deepod.series.LSTMAD`, all but the head); parts or parameters, by
            their names in ``module_``, such as "encoder.0" or "decoder"; or the first layers that
            have parameters, so many of them, in the order of ``module_``.
        lr_scale : float, default=1.0
            Factor of the learning rates.
        reset_head : bool, default=False
            Whether the head starts from new weights: the parts of ``module_`` called head, or else
            its last layer.

        Returns
        -------
        detector : object
            With the parameters of this one, as they were when it was fitted.

        Raises
        ------
        NotFittedError
            If this one is not fitted.
        TypeError
            If the method trains no weights by gradients.
        ValueError
            If ``freeze`` names what is not there, or leaves nothing to train; by ``fit``, if
            samples have another shape, or parameters were set by which the network is another one.

        Notes
        -----
        ``fit`` learns the scaling, the encoding of categories, threshold and calibration anew, from
        its rows alone, and goes through all phases of the method. Frozen parameters end with the
        bits they had. Statistics are no parameters: BatchNorm's means and variances, also those
        inside frozen parts, start from the fitted ones and follow the new rows, as the scaling does
        (Li et al., Revisiting Batch Normalization For Practical Domain Adaptation, 2016); after
        few steps they are a mixture of both. Centres and the like that a method finds from its rows
        are found anew, and a phase that could train frozen parameters alone takes no steps.

        What to start from is no parameter: ``get_params`` does not know of it. scikit-learn's
        ``clone``, and with it searches, pipelines and ensembles, hands it on; so does pickle.
        ``fit`` starts from it again each time. A file that was saved does not hold it.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> rng = np.random.default_rng(0)
        >>> W = rng.normal(size=(2, 6))
        >>> source = AutoEncoder(epochs=5, random_state=0).fit(rng.normal(size=(500, 2)) @ W)
        >>> target = source.transfer("encoder", lr_scale=0.1)
        >>> target = target.fit(3 * rng.normal(size=(50, 2)) @ W + 1)
        >>> bool((target.module_.encoder[1].weight == source.module_.encoder[1].weight).all())
        True
        """
        check_is_fitted(self)
        module = self.module_  # type: ignore[attr-defined]
        name = type(self).__name__
        if not (self.auto_epochs and self._in_steps):
            raise TypeError(
                f"{name} trains no weights by gradients, which a transfer could start from: fit it "
                "on the target's rows."
            )
        if isinstance(lr_scale, bool) or not 0 < lr_scale < float("inf"):
            raise ValueError(f"lr_scale must be a positive number, got {lr_scale!r}.")
        params = self.get_params(deep=False)  # type: ignore[attr-defined]
        params |= self._fitted_params  # type: ignore[attr-defined]
        detector = type(self)(**{key: clone(value, safe=False) for key, value in params.items()})
        frozen = frozen_names(module, freeze)
        fresh = head_names(module) if reset_head else ()
        if set(frozen) & set(fresh):
            raise ValueError(
                f"freeze={freeze!r} holds the head still, which reset_head=True begins anew: "
                f"{sorted(set(frozen) & set(fresh))}."
            )
        shape = self.input_shape_  # type: ignore[attr-defined]
        detector._start = Start(weights_of(module), shape, frozen, fresh, float(lr_scale))
        return detector

    @available_if(_trained_in_steps)
    @fixed()
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Go on training with new rows, from the weights that there are.

        Without any, it is ``fit``. Methods that train no weights by gradients do not have it.

        Parameters
        ----------
        X : array-like
            At least two rows in memory, shaped like those of ``fit``. Rows on disk have to be
            given in parts: ``X.read(start, stop)`` of a source of :mod:`deepod.sources`, or
            ``X[start:stop]`` of a memory map, each of at most ``memory_limit`` bytes.
        y : array-like, optional
            As in ``fit``.

        Returns
        -------
        self : object
            If it fails or is interrupted, self is as it was before.

        Raises
        ------
        ValueError, FloatingPointError, KeyboardInterrupt
            As ``fit``.

        Notes
        -----
        **The scaling stays**, as do the encoding of categories, what takes the place of NaN and
        the window of a series: the weights know their input in those units, and a level that moves
        would be hidden from them by a new scaling. **Threshold, ``decision_scores_`` and
        calibration are those of the new rows alone**, cross-fitted as in ``fit``: how
        earlier rows would score with the weights of now is not known without them. Few rows thus
        make an uncertain threshold; collect some hundreds, or call ``calibrate`` or
        ``set_threshold`` afterwards. To keep what was known of earlier rows too, give some of
        them again, or see :class:`deepod.continual.ContinualTrainer`.

        It goes through all phases of the method with a new optimiser. With ``epochs="auto"``, it
        takes no more passes over the new rows than were taken over those before, so that a few new
        ones do not outweigh many old ones. What ``transfer`` has frozen stays so, and ``lr_scale``
        holds. scikit-learn's callbacks (``set_callbacks``) are told of ``fit`` alone.

        Examples
        --------
        >>> import numpy as np
        >>> from deepod import AutoEncoder
        >>> rng = np.random.default_rng(0)
        >>> detector = AutoEncoder(epochs=10, random_state=0)
        >>> for day in range(3):
        ...     detector = detector.partial_fit(rng.normal(loc=day, size=(300, 4)))
        >>> float(np.mean(detector.predict(rng.normal(loc=2, size=(300, 4))))) < 0.2
        True
        """
        if not self.__sklearn_is_fitted__():  # type: ignore[attr-defined]
            return self.fit(X, y)  # type: ignore[attr-defined]
        return self._go_on(X, y)

    def _go_on(self, X: Any, y: Any = None, **changes: Any) -> Self:
        """Train on from the weights there are, with ``changes`` of the start."""
        mapped = is_mapped(X) and X.nbytes > self.memory_limit  # type: ignore[attr-defined]
        if mapped or isinstance(X, Source):
            part = "X[start:stop]" if mapped else "X.read(start, stop)"
            raise ValueError(
                f"X, {len(X)} rows on disk, cannot be given to partial_fit as a whole: call it "
                f"with one part after the other, as {part}; or call fit(X), which learns anew."
            )
        state = vars(self)
        known = {name: state[name] for name in _KNOWN if name in state}
        start = Start(
            weights_of(state["module_"]),
            state["input_shape_"],
            scaler=state["scaler_"],
            known=known,
            passes=state["epochs_"],
        )
        if self._start is not None:  # what it has held, it holds on
            start = replace(start, frozen=self._start.frozen, lr_scale=self._start.lr_scale)
        return self._fit_from(replace(start, **changes), X, y)

    def _fit_from(self, start: Start, X: Any, y: Any = None) -> Self:
        (error,) = fit_all([self], [X], [y], start)
        if error is not None:
            raise error
        return self

    def __sklearn_clone__(self) -> Self:
        """Clone, with what ``transfer`` has given."""
        copy: Self = BaseEstimator.__sklearn_clone__(self)
        if self._start is not None:
            copy._start = self._start
        return copy
