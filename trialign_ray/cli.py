"""The command line. Heavy libraries are imported inside the commands, so that --help is quick."""

import logging
import os
import sys
from typing import Annotated

import typer

from trialign_ray import __version__
from trialign_ray.commands import auditing, inspecting, running, sharing, studies, tuning
from trialign_ray.commands.options import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_INTERRUPTED
from trialign_ray.errors import ConvergenceError, Interrupted, TrialignError, WorkerError

app = typer.Typer(
    help="TriAlign on Ray: personalize a language model for groups, keep facts equal for all.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for part in (running, auditing, tuning, sharing, studies, inspecting):
    app.add_typer(part.app)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: honest exit codes, one message per error."""
    level = os.environ.get("TRIALIGN_LOG_LEVEL", "WARNING").upper()
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s")
    try:
        app()
    except TrialignError as error:
        if isinstance(error, Interrupted):
            print(error, file=sys.stderr)
            sys.exit(EXIT_INTERRUPTED)
        print(f"error: {error}", file=sys.stderr)
        failed = isinstance(error, WorkerError | ConvergenceError)
        sys.exit(EXIT_FAILED if failed else EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        print("interrupted; go on with --resume", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
