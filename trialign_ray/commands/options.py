"""Options that several commands share, and exit codes."""

from pathlib import Path
from typing import Annotated

import typer

EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED = 2, 1, 130

ConfigPath = Annotated[Path | None, typer.Argument(help="YAML file; the defaults if left out.")]
RunPath = Annotated[Path, typer.Argument(help="Run directory, e.g. runs/quickstart.")]
RunDir = Annotated[
    Path | None,
    typer.Option("--run-dir", help="Where results go; runs/<name of the YAML> if left out."),
]
Sets = Annotated[
    list[str] | None, typer.Option("--set", help="Override a key: section.key=value. Repeatable.")
]
Seed = Annotated[int | None, typer.Option(help="One seed decides everything random.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show configuration and resources; start nothing.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run directory, if there is one.")
]
Dashboard = Annotated[bool, typer.Option(help="Start the Ray dashboard with a local Ray.")]
