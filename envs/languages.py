"""Which language a text is in, by py3langid: 4.5 MB, offline, the same answer every time."""

import copy
import functools
from collections.abc import Sequence
from typing import Any

from envs.errors import ConfigError

MIN_LETTER_BYTES = 16
"""Letters a text must have, in bytes of UTF-8, to be told: 16 Latin ones, 6 Chinese ones."""


def language_of(text: str, among: tuple[str, ...] = ()) -> str | None:
    """The ISO 639-1 code of the most likely language; None where the text is too short to tell.

    Args: among: the languages to choose from; empty: all that the detector knows.
    """
    letters = "".join(c for c in text if c.isalpha())
    if len(letters.encode()) < MIN_LETTER_BYTES:
        return None
    return str(_detector(among).classify(" ".join(text.split()))[0])


def require_known_languages(languages: Sequence[str]) -> None:
    """Raises: ConfigError if the detector does not know one of the codes."""
    if not languages:
        return
    known = [str(label) for label in _detector(()).labels]
    for language in languages:
        if language not in known:
            raise ConfigError(
                f"language {language!r} is not one that the detector knows; it knows the ISO 639-1 "
                f"codes {', '.join(sorted(known))}"
            )


@functools.lru_cache(maxsize=64)
def _detector(among: tuple[str, ...]) -> Any:
    if not among:
        return _load()
    detector = copy.copy(_detector(()))  # the weights are shared
    detector.set_languages(list(among))
    return detector


def _load() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ConfigError(
            "a style rule checks the language, which needs the package py3langid; install it "
            "(pip install 'py3langid>=0.4') or take `language` out of the group pack"
        ) from error
    return LanguageIdentifier.from_model_file(MODEL_FILE)
