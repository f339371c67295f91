"""Question sources: benchmarks by name, from the Hub or local files, and files of one's own."""

import re
from pathlib import Path

from envs.errors import ConfigError, DataError
from envs.questions import facts, maths, mmlu, science, social_bias, truthfulqa
from envs.questions.hub import hub_rows
from envs.questions.own_files import READERS, load_questions
from envs.questions.source import Source, checked
from envs.types import Question

SOURCES: dict[str, Source] = {
    source.name: source
    for family in (truthfulqa, mmlu, maths, science, social_bias, facts)
    for source in family.SOURCES
}


def load_source(name: str, data_dir: str | None = None) -> list[Question]:
    """The questions of a source; gold verifies itself, options stand in a fixed shuffled order.

    Args:
        name: one of `SOURCES`, `source:part` (mmlu:world_religions), or the path of a file of
            questions (.jsonl, .csv, .parquet).
        data_dir: folder with local files of the named sources. None: from the Hub.
    Raises: ConfigError for an unknown name; DataError for missing or wrong data.
    """
    if Path(name).suffix.lower() in READERS:
        return load_questions(name)
    source, part = source_of(name)
    if data_dir is None:
        return load_from_hub(source, part)
    files = source.files(Path(data_dir), part)
    if not files:
        raise DataError(_no_file(source, part, data_dir))
    return checked(name, (q for file in files for q in source.from_file(file, part)))


def count_local(source: Source, data_dir: str) -> int | None:
    """The number of questions in a source's local files; None where there are none.

    Raises: DataError if a file is wrong.
    """
    files = source.files(Path(data_dir), None)
    return sum(1 for file in files for _ in source.from_file(file, None)) if files else None


def load_from_hub(source: Source, part: str | None = None) -> list[Question]:
    """The questions of a named source by the Hub's own copy.

    Raises: ConfigError where the Hub has none or the library is missing; DataError.
    """
    sets = source.hub(part)
    if source.from_hub is None or not sets:
        raise ConfigError(
            f"source {source.name!r} is not on the Hub; get {source.origin}, put it into a folder "
            f"as {source.local}, and name the folder in world.data_dir (--data-dir)"
        )
    return checked(source.name, source.from_hub(hub_rows(source.name, sets), part))


def source_of(name: str) -> tuple[Source, str | None]:
    """The source of a name and the part asked for. Raises: ConfigError listing what there is."""
    base, colon, part = name.partition(":")
    source = SOURCES.get(base)
    if source is None:
        raise ConfigError(
            f"there is no question source {name!r}; there are {', '.join(SOURCES)}, and the path "
            f"of a file of your own works too ({', '.join(READERS)})"
        )
    if colon and not (source.parts and re.fullmatch(r"[\w-]+", part)):
        known = f"part is a {source.parts}" if source.parts else f"{base} has no parts"
        raise ConfigError(f"question source {name!r}: {known}")
    return source, part or None


def _no_file(source: Source, part: str | None, data_dir: str) -> str:
    wanted = Path(data_dir) / source.local
    there = [p.name for p in source.files(Path(data_dir), None)] if part else []
    name = f"{source.name}:{part}" if part else source.name
    return (
        f"source {name!r}: there is no {wanted}"
        + (f" for {part!r}, only {', '.join(there)}" if there else "")
        + "; put the file there, or leave world.data_dir (--data-dir) out to load from the Hub"
    )
