"""How long the groups' prompts are. A group must not hear more words than another: length alone
can change an answer, and would pass for an effect of the group."""

from collections.abc import Sequence
from typing import NamedTuple

from envs.preferences import StyleRules
from envs.social_group import Group, history_text

MAX_WORD_SPREAD = 2
"""Words by which prompts of one paraphrase number may differ without a warning."""
MAX_CHAR_SPREAD = 0.25
"""The same in characters, as a share of the longest."""


class LengthSpread(NamedTuple):
    """Shortest and longest prompt among the groups, for one paraphrase number of one field."""

    field: str
    shortest: str
    longest: str
    words: tuple[int, int]
    chars: tuple[int, int]

    @property
    def is_wide(self) -> bool:
        """Whether prompts differ so much in length that it could pass for an effect."""
        wide = self.chars[0] < (1 - MAX_CHAR_SPREAD) * self.chars[1]
        return wide and self.words[1] - self.words[0] > MAX_WORD_SPREAD

    def __str__(self) -> str:
        return (
            f"{self.field} has {self.words[0]} words ({self.chars[0]} characters) for group "
            f"{self.shortest!r} and {self.words[1]} ({self.chars[1]}) for group {self.longest!r}"
        )


def length_spreads(groups: Sequence[Group]) -> list[LengthSpread]:
    """Spread of each paraphrase number of profiles and histories. Groups need as many of both.

    Where groups have style rules, the answers of a history show that style and may differ in
    length; it is then enough that what the users say is equally long.
    """
    told = [g for g in groups if g.history]
    styled = any(g.style != StyleRules() for g in groups)
    spreads = [
        _spread(f"profiles[{i}]", groups, texts)
        for i, texts in enumerate(zip(*(g.profile_variants for g in groups), strict=True))
    ]
    for i, histories in enumerate(zip(*(g.history_variants for g in told), strict=True)):
        spread = _spread(f"histories[{i}]", told, [history_text(h) for h in histories])
        if styled and spread.is_wide:
            asked = [" ".join(e.question for e in h) for h in histories]
            spread = _spread(f"questions of histories[{i}]", told, asked)
        spreads.append(spread)
    return spreads


def length_warnings(groups: Sequence[Group]) -> list[str]:
    """What in the groups' prompts could pass for an effect of the group, in words."""
    wide = [spread for spread in length_spreads(groups) if spread.is_wide]
    warnings = [f"{spread}; make them equally long" for spread in wide]
    without = [g.name for g in groups if not g.history]
    if 0 < len(without) < len(groups):
        warnings.append(
            f"group {without[0]!r} has no history, others do: under the implicit prompt nothing "
            "is known of it"
        )
    told: dict[tuple[str, ...], str] = {}
    for group in groups:
        first = told.setdefault(group.profile_variants, group.name)
        if first != group.name:
            warnings.append(
                f"groups {first!r} and {group.name!r} have the same profile: under the explicit "
                "prompt nothing tells them apart"
            )
    return warnings


def _spread(field: str, groups: Sequence[Group], texts: Sequence[str]) -> LengthSpread:
    by_length = sorted(zip(texts, (g.name for g in groups), strict=True), key=lambda t: len(t[0]))
    words = sorted(len(t.split()) for t in texts)
    chars = sorted(map(len, texts))
    return LengthSpread(
        field,
        shortest=by_length[0][1],
        longest=by_length[-1][1],
        words=(words[0], words[-1]),
        chars=(chars[0], chars[-1]),
    )
