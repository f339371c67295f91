"""Errors a user can act on. Each takes one message, so that it survives pickling between actors."""


class TrialignError(Exception):
    """Base of every error that TriAlign raises on purpose."""


class ConfigError(TrialignError):
    """A setting is wrong: which key, which value, what was expected, what to do."""


class WorkerError(TrialignError):
    """An actor or a service failed or did not answer: which one, where, how to go on."""


class DataError(TrialignError):
    """A file or a row is wrong: which file, which row, what was expected, what to do."""
