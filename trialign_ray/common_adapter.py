"""Where the adapter lies that all groups have in common. Apart from what trains it, so that whoever
only says where need not load a model library."""

from dataclasses import dataclass

COMMON_FOLDER = "_common"
"""Beside the groups' folders; no group's name begins with an underscore."""


@dataclass(frozen=True)
class CommonAdapterSpec:
    """The adapter that all groups have in common, beside their own.

    rows_file: all groups' rows; None but for the agent that trains it. adapter_dir: where it is
    exported. record_file: says what was exported; there as soon as its training is done.
    """

    rows_file: str | None
    checkpoint_dir: str
    adapter_dir: str
    record_file: str
    seed: int
