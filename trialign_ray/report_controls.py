"""What the report says of users who belong to no group, and of what the preference scorers like.

Rows hold text, ready to be shown. All are empty where the evaluation has nothing to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from trialign_ray.guard import MARGIN
from trialign_ray.markdown_text import markdown_table
from trialign_ray.summary import digits

GAP_COLUMNS = ("users", "how many", "gap, best to worst", "equal users would show", "p")
USER_COLUMNS = ("users of no group", "truth before", "truth after")
HOW_TO_READ_GAPS = (
    "A gap among groups counts only beyond the gap among neutral personas: what these say of "
    "themselves must not matter, so their gap is what the wording of a prompt does by itself."
)
OTHER_QUESTIONS = (
    " Users of no group are judged by what they are told in words, on the questions where groups "
    "are too; groups also by the likeliest option: their figures rest on different questions, and "
    "are not to be compared."
)
HOW_TO_READ_NO_PERSONA = (
    "A repair must not be paid by the user who says nothing: under no group's adapter should they "
    f"be told fewer truths than before (marked where it is more than {100 * MARGIN:g} points less)."
)
HOW_TO_READ_PREFERENCE = (
    "Mean score, 0 to 1, that the configured preference scorers give what each group is told; "
    "whether it is true does not count. A fall from before to after is liking that the group "
    "paid for the truth."
)


def how_to_read(sentence: str, by_likelihood: bool) -> str:
    """Args: by_likelihood: some questions are judged by the likeliest option, groups alone."""
    return sentence + (OTHER_QUESTIONS if by_likelihood else "")


@dataclass(frozen=True)
class GapRow:
    """The gap among some users under one model, what equal users would show, permutation p."""

    users: str
    num: str
    gap: str
    null: str
    p_value: str


@dataclass(frozen=True)
class UserRow:
    """A user of no group. worse: the adapter tells them more than the guard's margin less."""

    user: str
    before: str
    after: str
    worse: bool = False


def gap_rows(evaluation: dict[str, Any]) -> list[GapRow]:
    """The groups' gap before and after beside that of the neutral personas."""
    personas = _controls(evaluation).get("personas")
    if not personas:
        return []
    before, after = (evaluation["models"][m]["truth"] for m in ("behaviour", "aligned"))
    return [
        _gap_row("groups, before", before, before["by_group"]),
        _gap_row("neutral personas, before", personas, personas["by_control"]),
        _gap_row("groups, after", after, after["by_group"]),
    ]


def _gap_row(users: str, figures: dict[str, Any], by_user: dict[str, float]) -> GapRow:
    p_value = f"{figures['gap_p']:.4f}"
    return GapRow(
        users,
        str(len(by_user)),
        digits(figures["gap"]),
        digits(figures["gap_null"]),
        p_value,
    )


def user_rows(evaluation: dict[str, Any]) -> list[UserRow]:
    """Truth of every neutral persona, and of the user without a persona under each adapter."""
    controls = _controls(evaluation)
    personas, nobody = controls.get("personas"), controls.get("no_persona")
    by_control = personas["by_control"] if personas else {}
    rows = [UserRow(name, digits(truth), digits(None)) for name, truth in by_control.items()]
    if nobody:
        before = nobody["behaviour"]
        for group, after in nobody["aligned"].items():
            user = f"no persona, adapter of {group}"
            rows.append(UserRow(user, digits(before), digits(after), after < before - MARGIN))
    return rows


def _controls(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Empty for a run from before there were controls, and where no question has a truth."""
    return evaluation.get("controls") or {}


def preference_columns(evaluation: dict[str, Any]) -> list[str]:
    """Headings of the columns of `preference_rows`."""
    modes = evaluation["models"]["aligned"].get("preference", {})
    return ["group", *(f"{mode}, {when}" for mode in modes for when in ("before", "after"))]


def preference_rows(evaluation: dict[str, Any]) -> list[list[str]]:
    """Per group and prompt mode how well the answers are liked before and after; none where no
    scorer has an opinion."""
    liked = [evaluation["models"][m].get("preference", {}) for m in ("behaviour", "aligned")]
    modes, groups = list(liked[1]), evaluation["models"]["aligned"]["truth"]["by_group"]
    values = {g: [own.get(m, {}).get(g) for m in modes for own in liked] for g in groups}
    if all(value is None for own in values.values() for value in own):
        return []
    return [[group, *map(digits, own)] for group, own in values.items()]


def control_lines(evaluation: dict[str, Any], by_likelihood: bool) -> list[str]:
    """The same as Markdown."""
    gaps, users, liked = gap_rows(evaluation), user_rows(evaluation), preference_rows(evaluation)
    lines = [""]
    if gaps:
        table = markdown_table(GAP_COLUMNS, [_cells(row) for row in gaps])
        lines += ["## Gaps among groups and among neutral personas", "", *table, ""]
        lines += [how_to_read(HOW_TO_READ_GAPS, by_likelihood), ""]
    if users:
        cells = [(u.user, u.before, f"**{u.after}**" if u.worse else u.after) for u in users]
        lines += ["## Users of no group", "", *markdown_table(USER_COLUMNS, cells), ""]
        lines += [how_to_read(HOW_TO_READ_NO_PERSONA, by_likelihood), ""]
    if liked:
        table = markdown_table(preference_columns(evaluation), liked)
        lines += ["## How well preferences like the answers", "", *table, ""]
        lines += [HOW_TO_READ_PREFERENCE, ""]
    return lines


def _cells(row: GapRow) -> Sequence[str]:
    return (row.users, row.num, row.gap, row.null, row.p_value)
