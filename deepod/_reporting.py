"""Support for the callbacks of scikit-learn 1.9 and later; with older versions it does nothing."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

Fitting = TypeVar("Fitting", bound=Callable[..., Any])

if TYPE_CHECKING:

    class CallbackSupport:
        """Mixin with the method ``set_callbacks``."""

        def set_callbacks(self, *callbacks: Any) -> Any:
            """Set scikit-learn's callbacks."""

    def reported(fit: Fitting) -> Fitting:
        """Make ``fit`` call scikit-learn's callbacks."""
        return fit

else:
    try:
        from sklearn.callback import CallbackSupportMixin as CallbackSupport
        from sklearn.callback import with_callbacks
    except ImportError:

        class CallbackSupport:
            """Empty mixin, because this scikit-learn has no callbacks."""

        def reported(fit: Fitting) -> Fitting:
            """Return ``fit`` unchanged, because this scikit-learn has no callbacks."""
            return fit

    else:

        def reported(fit: Fitting) -> Fitting:
            """Make ``fit`` call scikit-learn's callbacks when it begins and ends.

            :class:`deepod._training.reports.Reporter` calls them for phases and epochs.
            """

            @with_callbacks
            @wraps(fit)
            def told(detector: Any, X: Any, y: Any = None) -> Any:
                if not hasattr(detector, "_skl_callbacks"):
                    return fit(detector, X, y)
                context = detector._init_callback_context(max_subtasks=None)
                context.call_on_fit_task_begin(estimator=detector, X=X, y=y)
                fitted = fit(detector, X, y)
                context.call_on_fit_task_end(
                    estimator=detector, X=X, y=y, reconstruction_attributes=dict
                )
                return fitted

            return told
