"""Training that starts from fitted weights: ``transfer`` and ``partial_fit``."""

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
        """Decorate a method that only objects have for which ``check`` returns True."""

else:
    from sklearn.utils.metaestimators import available_if

# Attributes that partial_fit keeps.
_KNOWN = (
    *("n_features_in_", "feature_names_in_", "input_shape_", "scaler_", "encoder_", "columns_"),
    "window_",
)


def _trained_in_steps(detector: Any) -> bool:
    """Return True if a detector trains weights by gradients, and raise AttributeError if not."""
    if not (detector.auto_epochs and detector._in_steps):
        raise AttributeError(
            f"{type(detector).__name__} has no partial_fit, because it trains no weights by "
            "gradients: call fit with all rows instead."
        )
    return True


class Continues:
    """Training that starts from fitted weights."""

    auto_epochs: ClassVar[int]
    # False if ``fit`` takes no optimiser steps, or a further fit could not continue them.
    _in_steps: ClassVar[bool] = True
    # Set by ``transfer``: the weights that ``fit`` starts from. None stands for new weights.
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
            Parameters that ``fit`` does not train. None freezes nothing. "encoder" freezes the
            parts of ``module_`` with that name, or everything but the head if there are none, as
            in :class:`deepod.series.LSTMAD`. Other strings are names of parts or parameters of
            ``module_``, such as "encoder.0" or "decoder". An int n freezes the first n layers that
            have parameters.
        lr_scale : float, default=1.0
            Factor by which learning rates are multiplied.
        reset_head : bool, default=False
            Whether to give new weights to the head: to the parts of ``module_`` called head, or to
            its last layer if there are none.

        Returns
        -------
        detector : object
            An unfitted detector with the parameters that this one was fitted with.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If this detector is not fitted.
        TypeError
            If the method trains no weights by gradients.
        ValueError
            If ``freeze`` names a part that does not exist or leaves nothing to train, if the head
            is both frozen and reset, or if ``lr_scale`` is not positive. The ``fit`` of the
            returned detector raises it if the samples have another shape, or if its parameters
            were changed so that the network is a different one.

        Notes
        -----
        ``fit`` learns scaling, encoding of categories, threshold and calibration from its own rows
        alone, and runs all phases of the method. Frozen parameters do not change by a single bit.
        The running means and variances of BatchNorm are not parameters: they start from the fitted
        values and follow the new rows, also in frozen parts, as the scaling does (Li et al.,
        Revisiting Batch Normalization For Practical Domain Adaptation, 2016). After few steps they
        are still a mixture of both. Centres and similar quantities that a method computes from its
        rows are computed anew. A phase whose parameters are all frozen takes no steps.

        The weights to start from are not a hyper-parameter, so ``get_params`` does not list them.
        scikit-learn's ``clone`` copies them, and so do searches, pipelines, ensembles and pickle.
        Each call of ``fit`` starts from them again. ``save`` does not write them.

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
                f"{name} cannot be transferred, because it trains no weights by gradients: fit a "
                "new one on the rows of the target."
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
                f"freeze={freeze!r} freezes parameters to which reset_head=True would give new "
                f"values: {sorted(set(frozen) & set(fresh))}. Set reset_head=False, or freeze "
                "other parts."
            )
        shape = self.input_shape_  # type: ignore[attr-defined]
        detector._start = Start(weights_of(module), shape, frozen, fresh, float(lr_scale))
        return detector

    @available_if(_trained_in_steps)
    @fixed()
    def partial_fit(self, X: Any, y: Any = None) -> Self:
        """Continue training with new rows, from the present weights.

        The first call is the same as ``fit``. Methods that train no weights by gradients do not
        have ``partial_fit``.

        Parameters
        ----------
        X : array-like
            At least two rows in memory, shaped like those of ``fit``. Rows on disk have to be
            given in parts: ``X.read(start, stop)`` of a source of :mod:`deepod.sources`, or
            ``X[start:stop]`` of a memory map, each of at most ``memory_limit`` bytes.
        y : array-like, optional
            Labels, as in ``fit``.

        Returns
        -------
        self : object
            The same detector. If training fails or is interrupted, it is left unchanged.

        Raises
        ------
        ValueError, FloatingPointError, KeyboardInterrupt
            In the same cases as ``fit``.

        Notes
        -----
        **Scaling, encoding of categories, imputed values and the window of a series are kept**: the
        weights were trained in these units, and a new scaling would hide a drift of the data from
        them. **Threshold, ``decision_scores_`` and calibration scores are those of the new rows
        alone**, with cross-fitting as in ``fit``, because the earlier rows are not stored. With few
        rows, the threshold is therefore uncertain: collect some hundreds of rows, or call
        ``calibrate`` or ``set_threshold`` afterwards. To remember earlier rows, pass some of them
        again, or use :class:`deepod.continual.ContinualTrainer`.

        Each call runs all phases of the method with a new optimiser. With ``epochs="auto"``, it
        makes at most as many passes over the new rows as the call before made over its rows, so
        that a few new rows do not outweigh many old ones. ``freeze`` and ``lr_scale`` of
        ``transfer`` still apply. scikit-learn's callbacks (``set_callbacks``) are called by ``fit``
        only.

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
        """Continue training from the present weights, with ``changes`` of the start."""
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
        if self._start is not None:  # keep what transfer has set
            start = replace(start, frozen=self._start.frozen, lr_scale=self._start.lr_scale)
        return self._fit_from(replace(start, **changes), X, y)

    def _fit_from(self, start: Start, X: Any, y: Any = None) -> Self:
        (error,) = fit_all([self], [X], [y], start)
        if error is not None:
            raise error
        return self

    def __sklearn_clone__(self) -> Self:
        """Clone the detector, with the weights that ``transfer`` has set."""
        copy: Self = BaseEstimator.__sklearn_clone__(self)
        if self._start is not None:
            copy._start = self._start
        return copy
