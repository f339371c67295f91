"""Rows of data sets of the Hugging Face Hub, by the optional library `datasets`."""

from collections.abc import Iterator, Sequence

from envs.errors import ConfigError, DataError
from envs.questions.source import HubSet, Row


def hub_rows(name: str, sets: Sequence[HubSet]) -> Iterator[Row]:
    """The rows of all `sets`, one after the other.

    Raises: ConfigError without the library; DataError if a set cannot be loaded.
    """
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise ConfigError(
            f"source {name!r} comes from the Hub, for which the package datasets is missing; "
            "install trialign-ray[hub], or name a folder of local files in world.data_dir "
            "(--data-dir)"
        ) from error
    for one in sets:
        try:
            rows = load_dataset(one.id, one.config, split=one.split)
        except Exception as error:  # its causes: network, names, schemas, disk
            where = f"{one.id}{f', configuration {one.config}' if one.config else ''}"
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise DataError(
                f"source {name!r}: {where}, split {one.split}, cannot be loaded from the Hub "
                f"({type(error).__name__}: {reason}); look at the network, HF_HUB_OFFLINE and "
                "HF_TOKEN, or name a folder of local files in world.data_dir (--data-dir)"
            ) from error
        for row in rows:
            yield dict(row)
