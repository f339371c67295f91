"""The command that looks at a model before anything is trained: audit."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from trialign_ray.commands.options import ConfigPath, DryRun, Resume, RunDir, Seed, Sets
from trialign_ray.errors import Interrupted

app = typer.Typer()

Model = Annotated[
    str | None, typer.Option(help="Folder or Hub name; with --url the name served there.")
]
Url = Annotated[str | None, typer.Option(help="OpenAI-compatible endpoint, up to /v1.")]
ModelPerGroup = Annotated[
    bool, typer.Option(help="At --url each group is served by the model of its own name.")
]
Run = Annotated[
    Path | None, typer.Option(help="Audit a run's behaviour model, on its test questions.")
]
Adapters = Annotated[
    bool, typer.Option("--adapters", help="With --run: each group by its own adapter.")
]
Groups = Annotated[str | None, typer.Option(help="Group pack, or YAML file of groups.")]
Questions = Annotated[
    list[str] | None, typer.Option(help="Source or file of questions. Repeatable.")
]
DataDir = Annotated[str | None, typer.Option(help="Folder with local files of the named sources.")]
Controls = Annotated[int | None, typer.Option(help="Neutral personas; 5 if left out everywhere.")]
AskedSplit = Annotated[
    Literal["all", "test"] | None, typer.Option(help="Questions asked; all, of a run test.")
]


@app.command()
def audit(
    config: ConfigPath = None,
    model: Model = None,
    url: Url = None,
    model_per_group: ModelPerGroup = False,
    run: Run = None,
    adapters: Adapters = False,
    groups: Groups = None,
    questions: Questions = None,
    data_dir: DataDir = None,
    controls: Controls = None,
    split: AskedSplit = None,
    run_dir: RunDir = None,
    seed: Seed = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    resume: Resume = False,
) -> None:
    """Which groups are told fewer truths, and how sure is that? Before any training."""
    from trialign_ray.audit.launch import AuditRequest, launch_audit

    request = AuditRequest(
        config_path=config,
        model=model,
        url=url,
        model_per_group=model_per_group,
        run=run,
        adapters=adapters,
        groups=groups,
        questions=tuple(questions or ()),
        data_dir=data_dir,
        controls=controls,
        split=split,
        run_dir=run_dir,
        seed=seed,
        sets=tuple(sets or ()),
    )
    try:
        launch_audit(request, dry_run, resume, Console())
    except KeyboardInterrupt as error:
        raise Interrupted(
            "interrupted; what was answered is kept: go on with the same command and --resume"
        ) from error
