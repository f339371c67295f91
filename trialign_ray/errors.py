"""The error family. Every error says what was wrong, where, what was expected and what to do."""

from envs.errors import ConfigError, DataError, TrialignError, WorkerError

__all__ = [
    "ConfigError",
    "ConvergenceError",
    "DataError",
    "Interrupted",
    "ShapeError",
    "TrialignError",
    "UnreachableModel",
    "WorkerError",
]


class Interrupted(TrialignError):
    """The user stopped a run; the message says how to go on."""


class UnreachableModel(ConfigError):
    """A model of the Hub is not in the local cache, and the Hub does not give it: why."""


class ShapeError(TrialignError):
    """A tensor has another shape than the operation needs."""


class ConvergenceError(TrialignError):
    """A solver ended without the certificate that was asked for."""
