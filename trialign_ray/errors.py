"""The error family. Every error says what was wrong, where, what was expected and what to do."""

from envs.errors import ConfigError, DataError, TrialignError

__all__ = [
    "ConfigError",
    "ConvergenceError",
    "DataError",
    "Interrupted",
    "ShapeError",
    "TrialignError",
    "WorkerError",
]


class Interrupted(TrialignError):
    """The user stopped a run; the message says how to go on."""


class ShapeError(TrialignError):
    """A tensor has another shape than the operation needs."""


class ConvergenceError(TrialignError):
    """A solver ended without the certificate that was asked for."""


class WorkerError(TrialignError):
    """An actor failed or did not answer: which group, which actor, its log, how to resume."""
