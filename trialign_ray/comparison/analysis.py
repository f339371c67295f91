"""What a comparison says, as plain data: tables by knob and track, choices, what is missing.

Terminal, Markdown and page all render this. Methods that lose or tie are rows like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trialign_ray.comparison.cell_results import BEHAVIOUR, CellResult
from trialign_ray.comparison.methods import OURS, Method
from trialign_ray.comparison.results import Results
from trialign_ray.comparison.rows import BySeed, Row, make_rows
from trialign_ray.comparison.sweeps import HeadLine, Sweep, head_lines, sweeps

WITHIN = ("ablation", "option")
"""Families of our own method with something else in it; they have a table of their own."""


@dataclass(frozen=True)
class SeedLine:
    """The worst group of one seed, (name, truth), of the deployed model and of ours; None where
    that has no result."""

    seed: int
    before: tuple[str, float] | None
    after: tuple[str, float] | None


@dataclass(frozen=True)
class Rival:
    """The best worst-group truth among methods that keep the style; row: None if none does."""

    among: str
    row: Row | None


@dataclass(frozen=True)
class Section:
    """One knob and track. is_main: settings were chosen on a world of this knob. ablations: with
    options, and our own method for comparison."""

    knob: str
    track: str
    is_main: bool
    seeds: tuple[int, ...]
    rows: tuple[Row, ...]
    ablations: tuple[Row, ...]
    rivals: tuple[Rival, ...]
    seed_lines: tuple[SeedLine, ...]
    heads: tuple[HeadLine, ...]

    @property
    def name(self) -> str:
        return f"{self.knob} {self.track}"

    @property
    def ours(self) -> Row | None:
        return next((row for row in self.rows if row.method.name == OURS), None)


@dataclass(frozen=True)
class Choice:
    """The setting that a method's rows are of. trials: every setting with its validation score, as
    in `comparison.json`; empty where settings were taken unseen."""

    method: Method
    index: int
    overrides: tuple[str, ...]
    reason: str
    trials: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class Analysis:
    """The whole comparison. num_facts: smallest and largest number of test questions with a known
    answer. worlds_begun: those with a finished cell. notes: what is in the files but not in the
    tables, and rows with fewer seeds."""

    record: Mapping[str, Any]
    sections: tuple[Section, ...]
    choices: tuple[Choice, ...]
    sweeps: tuple[Sweep, ...]
    methods: tuple[Method, ...]
    groups: tuple[str, ...]
    num_facts: tuple[int, int]
    worlds_begun: frozenset[str]
    not_finished: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def main(self) -> tuple[Section, ...]:
        return tuple(s for s in self.sections if s.is_main)

    @property
    def secondary(self) -> tuple[Section, ...]:
        return tuple(s for s in self.sections if not s.is_main)


def analyse(source: Results | Analysis) -> Analysis:
    """The analysis of results (as it is, if it is one already). Raises: DataError."""
    if isinstance(source, Analysis):
        return source
    rows = [cell for cell in source.cells if source.is_row(cell)]
    sections = tuple(
        _section(source, knob, track, [c for c in rows if (c.world.knob, c.world.track) == key])
        for key in _sections(source.record, rows)
        for knob, track in (key,)
    )
    used = {c.method for c in source.cells} | set(source.record["methods"])
    facts = [len(c.test.question_ids) for c in rows] or [0]
    return Analysis(
        source.record,
        sections,
        _choices(source),
        sweeps(source),
        tuple(m for name, m in source.methods.items() if name in used),
        tuple(dict.fromkeys(g for c in rows for g in c.test.groups)),
        (min(facts), max(facts)),
        frozenset(c.world.name for c in source.cells),
        source.not_finished,
        (*_left_out(source), *_fewer_seeds(sections)),
    )


def compact_rows(
    analysis: Analysis, sections: Sequence[Section]
) -> list[tuple[Method, list[Row | None]]]:
    """Each method's row in each of the sections, without methods that have none."""
    found = [{r.method.name: r for r in (*s.ablations, *s.rows)} for s in sections]
    lines = [(m, [by_name.get(m.name) for by_name in found]) for m in analysis.methods]
    return [(method, rows) for method, rows in lines if any(rows)]


def _sections(record: Mapping[str, Any], rows: Sequence[CellResult]) -> list[tuple[str, str]]:
    """Knobs and tracks that have rows, those of the record first and in its order."""
    planned = [(k, t) for k in record["knobs"] for t in record["tracks"]]
    found = {(c.world.knob, c.world.track) for c in rows}
    return [key for key in planned if key in found] + sorted(found - set(planned))


def _section(results: Results, knob: str, track: str, cells: Sequence[CellResult]) -> Section:
    by_method: dict[str, dict[int, CellResult]] = {}
    for cell in cells:
        by_method.setdefault(cell.method, {})[cell.world.seed] = cell
    known = list(results.methods.values())
    table = make_rows([m for m in known if m.family not in WITHIN], by_method, (knob, track))
    ablated = [m for m in known if m.family in WITHIN or m.name == OURS]
    ablations = make_rows(ablated, by_method, (knob, track))
    if all(row.method.name == OURS for row in ablations):
        ablations = ()
    ours = by_method.get(OURS, {})
    seeds = tuple(sorted({cell.world.seed for cell in cells}))
    return Section(
        knob,
        track,
        _is_main(results, knob),
        seeds,
        table,
        ablations,
        _rivals(table),
        tuple(_seed_line(seed, by_method.get(BEHAVIOUR, {}), ours) for seed in seeds),
        head_lines([ours[seed] for seed in sorted(ours)]),
    )


def _is_main(results: Results, knob: str) -> bool:
    """A world is named knob-track-seed, where a knob has no plus sign."""
    if results.tuning_world is None:
        return knob == results.record["knobs"][0]
    return knob.replace("+", "") == results.tuning_world.rsplit("-", 2)[0]


def _rivals(rows: Sequence[Row]) -> tuple[Rival, ...]:
    """Rows are in order, so that the first is the best. Chosen on test: in the rivals' favour."""
    others = [r for r in rows if r.method.family in ("untrained", "baseline") and r.keeps_style]
    single = [r for r in others if r.calls == 1]
    return (
        Rival("baselines and untrained methods that keep the style", next(iter(others), None)),
        Rival("methods among these with one model call per answer", next(iter(single), None)),
    )


def _seed_line(seed: int, before: BySeed, after: BySeed) -> SeedLine:
    return SeedLine(seed, *(_worst(cells.get(seed)) for cells in (before, after)))


def _worst(cell: CellResult | None) -> tuple[str, float] | None:
    if cell is None:
        return None
    truth_G = cell.test.correct_GX.mean(-1)
    return cell.test.groups[int(truth_G.argmin())], float(truth_G.min())


def _choices(results: Results) -> tuple[Choice, ...]:
    choices = []
    for name in results.record["methods"]:
        method = results.methods.get(name)
        if method is None or len(method.settings) < 2:
            continue
        index = results.chosen(name)
        told = results.record.get("choice", {}).get(name, {})
        reason = f"as {method.tuned_as}" if method.tuned_as else told.get("reason", "")
        fixed = method.settings[index] if index < len(method.settings) else ()
        trials = tuple(told.get("trials", ()))
        choices.append(Choice(method, index, fixed, reason or "taken unseen", trials))
    return tuple(choices)


def _left_out(results: Results) -> list[str]:
    notes = []
    strange = sorted({c.method for c in results.cells} - set(results.methods))
    if strange:
        notes.append(f"methods that do not exist here and have no row: {', '.join(strange)}")
    other = [
        c.name
        for c in results.cells
        if c.world.name != results.tuning_world
        and c.method in results.methods
        and c.setting != results.chosen(c.method)
    ]
    if other:
        notes.append(f"of other settings than the chosen, in the files alone: {', '.join(other)}")
    return notes


def _fewer_seeds(sections: Sequence[Section]) -> list[str]:
    notes = []
    for section in sections:
        num_seeds = {r.method.name: len(r.seeds) for r in (*section.rows, *section.ablations)}
        few = [f"{name} {num}" for name, num in num_seeds.items() if num < len(section.seeds)]
        if few:
            notes.append(
                f"fewer than {len(section.seeds)} seeds in {section.name}: {', '.join(few)}"
            )
    return notes
