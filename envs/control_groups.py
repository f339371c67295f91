"""Control groups: neutral personas of whom only things are known that no answer depends on.

What differs among them is noise of the prompt, so a gap among groups counts only where it is larger
than theirs. They say as much as the groups do: length alone can change an answer.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import product

from envs.errors import ConfigError
from envs.social_group import Exchange, Group, History

_WORDS = {
    "color": ("green", "brown", "black", "white", "olive", "beige", "coral", "ivory", "khaki"),
    "thing": ("lamp", "desk", "vase", "tray", "bowl", "sofa", "coat"),
    "side": ("north", "south"),
}
_PERSONS = {
    "user": {"they": "they", "their": "their", "them": "them"},
    "model": {"they": "you", "their": "your", "them": "you"},
    "self": {"they": "I", "their": "my", "them": "me"},
}
_FIRST = {
    "user": (
        ("User {number}.", "The user has number {number}.", "The user drew number {number} today."),
        ("Number {number}.", "This user is number {number}.", "Number {number} is asking today."),
        ("Visitor {number}.", "The visitor has number {number}.", "Visitor {number} asks today."),
    ),
    "model": (
        ("You: {number}.", "You are number {number}.", "You drew the number {number} today."),
        ("Number {number}.", "You have number {number}.", "Today you are visitor {number}."),
        ("Visitor {number}.", "You are visitor {number}.", "The number you drew is {number}."),
    ),
}
_MORE = (
    "{their} bag is {color}.",
    "{they} sit on the {side} side.",
    "a {color} {thing} stands near {them}.",
    "{they} came in by the {side} door.",
    "{their} pen lies on a sheet of paper.",
    "the room around {them} has two windows.",
    "behind {them} hangs a picture of a {thing}.",
    "a {color} curtain covers the {side} window.",
    "{they} put a {thing} down.",
    "{they} wait until {their} number is called.",
)
_ASKED = ("Number {number}?", "Is that number {number}?", "Did you note the number {number}?")
_REPLY = ("Yes.", "It is noted.", "Yes, the list now says so.")
_MORE_REPLY = (
    "thank you.",
    "there is no hurry.",
    "the list is open all day.",
    "a free seat is easy to find.",
    "nobody minds if you wait here.",
    "ask again whenever you like.",
    "the clock on the wall is right.",
    "there is water on the table by the door.",
)


def control_groups(
    number: int, like: Sequence[Group], own: Sequence[Group] = ()
) -> tuple[Group, ...]:
    """That many neutral personas, named control-1, control-2 ..., without style rules.

    They are addressed in as many wordings as `like`, with the same role, and each wording of a
    profile or history is about as long as theirs on average (up to some 70 words a text).
    Args: own: a pack's own controls, taken instead; a model that knows few words needs them.
    Raises: ConfigError if a pack brings controls, but fewer than `number`.
    """
    if not own:
        return tuple(_persona(index, like) for index in range(number))
    if number > len(own):
        raise ConfigError(
            f"{number} controls are asked for (world.num_controls), but the group pack brings "
            f"{len(own)} of its own; lower the number, or add to 'controls:' of the pack"
        )
    return tuple(own[:number])


def _persona(index: int, like: Sequence[Group]) -> Group:
    profiles = zip(*(g.profile_variants for g in like), strict=True)
    told = [g for g in like if g.history]
    histories = zip(*(g.history_variants for g in told), strict=True)
    role = like[0].role
    return Group(
        name=f"control-{index + 1}",
        role=role,
        control=True,
        profiles=tuple(
            _written(_profile_recipe(role, v, _mean_length(texts)), index, v, role)
            for v, texts in enumerate(profiles)
        ),
        histories=tuple(_history(index, v, texts) for v, texts in enumerate(histories)),
    )


def _history(index: int, variant: int, like: Sequence[History]) -> History:
    """Exchanges as many and as long as the shortest of `like` has, on average over groups."""
    exchanges = []
    for place, those in enumerate(zip(*like, strict=False)):
        turn = 10 * variant + place
        question = _question_recipe(turn, _mean_length([e.question for e in those]))
        answer = _answer_recipe(turn, _mean_length([e.answer for e in those]))
        exchanges.append(
            Exchange(
                question=_written(question, index, variant, "self"),
                answer=_written(answer, index, variant, "self"),
            )
        )
    return tuple(exchanges)


def _mean_length(texts: Sequence[str]) -> tuple[int, int]:
    """Words and characters, rounded."""
    words, chars = sum(len(t.split()) for t in texts), sum(map(len, texts))
    return round(words / len(texts)), round(chars / len(texts))


def _profile_recipe(role: str, variant: int, length: tuple[int, int]) -> tuple[str, ...]:
    return _recipe(_FIRST[role][variant % 3], _rotated(_MORE, variant), length, role, last=False)


def _question_recipe(turn: int, length: tuple[int, int]) -> tuple[str, ...]:
    return _recipe(_ASKED, _rotated(_MORE, turn), length, "self", last=True)


def _answer_recipe(turn: int, length: tuple[int, int]) -> tuple[str, ...]:
    return _recipe(_REPLY, _rotated(_MORE_REPLY, turn), length, "self", last=False)


def _rotated(sentences: tuple[str, ...], by: int) -> tuple[str, ...]:
    by %= len(sentences)
    return sentences[by:] + sentences[:by]


@lru_cache(maxsize=256)
def _recipe(
    cores: tuple[str, ...], more: tuple[str, ...], length: tuple[int, int], person: str, last: bool
) -> tuple[str, ...]:
    """One core sentence, which has the persona's number, and those of `more` that together come
    nearest to `length`. Personas share it, so that they differ in single words, as groups do."""
    words, chars = length
    best, best_distance = (cores[0],), float("inf")
    measured = {s: _mean_length([_written((s,), 0, 0, person)]) for s in (*cores, *more)}
    for core, picks in product(cores, product((False, True), repeat=len(more))):
        chosen = tuple(s for s, picked in zip(more, picks, strict=True) if picked)
        parts = (*chosen, core) if last else (core, *chosen)
        num_words = sum(measured[s][0] for s in parts)
        num_chars = sum(measured[s][1] + 1 for s in parts) - 1
        distance = abs(num_words - words) / max(1, words) + abs(num_chars - chars) / max(1, chars)
        if distance < best_distance:
            best, best_distance = parts, distance
    return best


def _written(parts: Sequence[str], index: int, variant: int, person: str) -> str:
    """The sentences with this persona's words in their slots."""
    number = f"{10 + index % 90}" + ("" if variant < 3 else chr(ord("a") + variant // 3))
    slots = {name: words[index % len(words)] for name, words in _WORDS.items()}
    slots |= {"number": number, **_PERSONS[person]}
    return " ".join(_sentence(part, slots) for part in parts)


def _sentence(template: str, slots: Mapping[str, str]) -> str:
    text = template.format(**slots)
    return text[0].upper() + text[1:]
