"""The figures of a comparison in words: what terminal, Markdown and page have in common."""

from collections.abc import Mapping
from math import isnan

from trialign_ray.comparison.analysis import Analysis, Rival, Section
from trialign_ray.comparison.cell_results import BEHAVIOUR
from trialign_ray.comparison.methods import OURS
from trialign_ray.comparison.rows import CONFIDENCE, NUM_RESAMPLES, Row, Spread
from trialign_ray.ops.seeds_statistics import SeedDifference

NONE = "-"
"""What stands where there is no figure."""


def share(value: float | None) -> str:
    """A share or a score, three digits."""
    return NONE if value is None or isnan(value) else f"{value:.3f}"


def spread(value: Spread | None, num_seeds: int) -> str:
    """Mean and range over seeds."""
    if value is None or num_seeds < 2:
        return share(value.mean if value else None)
    return f"{value.mean:.3f} ({value.low:.3f}..{value.high:.3f})"


def difference(value: SeedDifference | None) -> str:
    """A signed difference with its interval."""
    if value is None:
        return NONE
    low, high = value.interval
    known = "(one seed)" if isnan(low) else f"[{low:+.3f}, {high:+.3f}]"
    return f"{value.mean:+.3f} {known}"


def mark(row: Row) -> str:
    """Empty for a method that is behind ours (for sure; of one seed, by the difference itself);
    else what must be said of it."""
    if row.versus is None:
        return "ours" if row.method.name == OURS else "not paired"
    if row.versus.verdict == "one seed":
        return "not behind" if row.marked else ""
    return {"behind": "", "ties": "ties", "beats": "BEATS"}[row.versus.verdict]


def style_verdict(row: Row) -> str:
    """Whether our style is not inferior to the row's."""
    if row.versus is None or row.versus.style is None:
        return NONE
    return {True: "yes", False: "no", None: "one seed"}[row.versus.style_kept]


def rival_sentences(section: Section) -> list[str]:
    """The best of the others by name, and how ours stands against it."""
    if section.ours is None:
        return [f"{OURS} has no result in {section.name}."]
    return [_rival(rival) for rival in section.rivals]


def _rival(rival: Rival) -> str:
    if rival.row is None:
        return f"Best of the {rival.among}: there is none."
    row = rival.row
    start = f"Best of the {rival.among}: {row.method.name}, {row.truth.mean:.3f}"
    if row.versus is None:
        return f"{start}; it shares no seed with {OURS}."
    against = f"{OURS} - {row.method.name} = {difference(row.versus.truth)}"
    ends = {
        "behind": f"{OURS} is better",
        "ties": "the interval includes 0: a tie",
        "beats": f"{OURS} loses",
        "one seed": "no interval",
    }
    return f"{start}; {against}: {ends[row.versus.verdict]}."


def missing_lines(analysis: Analysis) -> list[str]:
    """What is not finished, a line per world: its cells, or that it has none at all."""
    by_world: dict[str, list[str]] = {}
    for name in analysis.not_finished:
        world, cell = name.split("/", 1)
        by_world.setdefault(world, []).append(cell)
    lines = []
    for world, cells in by_world.items():
        named = cells if world in analysis.worlds_begun else [f"all its {len(cells)} cells"]
        lines.append(f"{world}: {', '.join(named)}")
    return lines


def front_sentence(section: Section) -> str:
    """The methods that no other dominates in both objectives."""
    front = ", ".join(row.method.name for row in section.rows if row.on_front)
    return f"Not dominated in (worst group's truth, worst group's style): {front or 'none'}."


def interval_note() -> str:
    """How intervals are made, and what they do not cover."""
    return (
        f"Differences are {OURS} minus the row's method, paired by seed and question. Intervals: "
        f"{CONFIDENCE:.0%} percentile of {NUM_RESAMPLES} hierarchical resamples, seeds outside and "
        "questions inside; where all seeds have the same test facts, one draw of facts serves all "
        "seeds. They are too narrow by about sqrt((S - 1) / S) for S seeds, and not corrected for "
        "the number of methods. One seed has no interval. A row that is not surely behind is "
        f"marked. Style kept: mean within 2 points of {BEHAVIOUR}'s. {OURS}'s style is not "
        "inferior to a row's where the lower bound of the difference is above -2 points."
    )


def facts(analysis: Analysis) -> dict[str, str]:
    """What the comparison is, for a header."""
    record, (low, high) = analysis.record, analysis.num_facts
    tuning = record.get("tuning_world")
    return {
        "command": str(record.get("command") or "unknown"),
        "commit": str(record.get("git_commit") or "unknown"),
        "seeds": _numbers(record["seeds"]),
        "test facts": str(low) if low == high else f"{low} to {high}, by world",
        "groups": str(len(analysis.groups)),
        "settings": f"chosen on the validation split of {tuning}, of which no row is"
        if tuning
        else "the first of each method, unseen",
    }


def _numbers(seeds: list[int]) -> str:
    seeds = sorted(seeds)
    run = len(seeds) > 2 and seeds == list(range(seeds[0], seeds[-1] + 1))
    return f"{seeds[0]}-{seeds[-1]}" if run else ", ".join(map(str, seeds))


def short_settings(overrides: tuple[str, ...]) -> str:
    """Overrides without the name of their stage."""
    return ", ".join(override.split(".", 1)[-1] for override in overrides) or NONE


def trial_of(trials: tuple[Mapping, ...], index: int) -> Mapping:
    """The scores of one setting; empty where it has none."""
    return next((t for t in trials if t["index"] == index), {})


def compact_cell(row: Row | None) -> str:
    """Worst group's truth, `=` where the method ties ours, `>` where it beats it (of one seed: by
    the difference itself), `~` where it does not keep the style."""
    if row is None:
        return NONE
    return " ".join(
        filter(None, (share(row.truth.mean), _sign(row), "" if row.keeps_style else "~"))
    )


def _sign(row: Row) -> str:
    if row.versus is None or not row.marked:
        return ""
    if row.versus.verdict == "one seed":
        return ">" if row.versus.truth.mean < 0 else "="
    return "=" if row.versus.verdict == "ties" else ">"
