"""What a person sees: bars on a TTY, plain lines in a job's log, the final tables."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from trialign_ray.summary import Summary

LINE_EVERY_S = 10.0
STAGE_TITLES = {
    "ray": "start Ray",
    "behaviour": "fit the personalized behaviour model",
    "actors": "start group actors and critic-learner",
    "collect": "collect dialogues of the groups' agents",
    "score": "score candidates once",
    "critic": "fit the truth head",
    "targets": "solve the central problem",
    "clone_common": "train the adapter that all groups share",
    "clone": "train each group's adapter",
    "off_policy": "judge adapters by the log and on validation",
    "evaluate": "evaluate on held-out questions",
    "report": "write the report",
    "tune": "choose every method's setting",
    "compare": "run all methods in all worlds",
    "frontier": "solve the central problem for every setting",
    "trained": "train points of the frontier",
    "prescreen": "sweep points of the space on the log alone",
    "trials": "train and judge trials",
}


class RichDisplay:
    """One bar per stage."""

    def __init__(self, console: Console):
        self._progress = Progress(
            SpinnerColumn(finished_text="[green]✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def start(self, stage: str, total: int) -> None:
        title = STAGE_TITLES.get(stage, stage)
        self._tasks[stage] = self._progress.add_task(title, total=total, note="")

    def advance(self, stage: str, completed: int, note: str = "") -> None:
        self._progress.update(self._tasks[stage], completed=completed, note=note)

    def finish(self, stage: str, note: str) -> None:
        task = self._tasks[stage]
        total = next(t.total for t in self._progress.tasks if t.id == task)
        self._progress.update(task, completed=total, note="")

    def close(self) -> None:
        self._progress.stop()


class LineDisplay:
    """Plain lines, for logs: at each stage's start and end, and now and then between."""

    def __init__(self, console: Console):
        self._console = console
        self._totals: dict[str, int] = {}
        self._spoke_at = 0.0

    def start(self, stage: str, total: int) -> None:
        self._totals[stage], self._spoke_at = total, time.monotonic()
        self._console.print(f"{STAGE_TITLES.get(stage, stage)} ...", highlight=False)

    def advance(self, stage: str, completed: int, note: str = "") -> None:
        if time.monotonic() - self._spoke_at >= LINE_EVERY_S:
            self._spoke_at = time.monotonic()
            line = f"  {stage}: {completed} of {self._totals[stage]}, {note}"
            self._console.print(line, highlight=False)

    def finish(self, stage: str, note: str) -> None:
        self._console.print(f"  {stage}: {note}", highlight=False)

    def close(self) -> None:
        pass


def result_table(summary: Summary) -> Table:
    """Truth and style by group, before and after."""
    table = Table(
        title=f"Held-out facts ({summary.num_truth_questions} questions)", title_justify="left"
    )
    table.add_column("group", no_wrap=True)
    for name in ("truth before", "truth after", "style before", "style after"):
        table.add_column(name, justify="right", no_wrap=True)
    for g in summary.lines:
        table.add_row(
            g.group,
            f"{g.truth_before:.3f}",
            f"{g.truth_after:.3f}",
            _share(g.style_before),
            _share(g.style_after),
        )
    return table


def _share(value: float | None) -> str:
    """ "-" for a group without style rules."""
    return "-" if value is None else f"{value:.3f}"


def shared_table(summary: Summary) -> Table:
    """What belongs to all groups at once, before and after."""
    table = Table(title="All groups together", title_justify="left")
    table.add_column("share of questions", no_wrap=True)
    table.add_column("before", justify="right")
    table.add_column("after", justify="right")
    for label, before, after in summary.shared:
        table.add_row(label, f"{before:.3f}", f"{after:.3f}")
    return table
