"""Commands that look at something: configuration, logs, this machine; and the embedded world."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from trialign_ray.commands import sharing
from trialign_ray.commands.options import EXIT_BAD_INPUT, EXIT_FAILED, ConfigPath, Seed, Sets
from trialign_ray.launch import resolved_config

app = typer.Typer()
data_app = typer.Typer(help="Sources of questions, and logs of dialogues.", no_args_is_help=True)
config_app = typer.Typer(help="The configuration.", no_args_is_help=True)
world_app = typer.Typer(help="TruthWorld, the embedded benchmark.", no_args_is_help=True)
data_app.add_typer(sharing.data_app)
app.add_typer(data_app, name="data")
app.add_typer(config_app, name="config")
app.add_typer(world_app, name="world")


@app.command()
def doctor() -> None:
    """Check this machine: Python, packages, CPUs, memory, disk, and a Ray that starts."""
    from trialign_ray.doctor import examine

    healthy = True
    console = Console()
    for finding in examine():
        healthy &= finding.ok
        mark = "[green]ok  [/green]" if finding.ok else "[red]FAIL[/red]"
        console.print(f"{mark} {finding.what}: {finding.detail}", highlight=False)
    raise typer.Exit(0 if healthy else EXIT_FAILED)


@data_app.command("check")
def data_check(file: Annotated[Path, typer.Argument(help="Parquet log.")]) -> None:
    """Say what is wrong with a log, row by row; exit code 2 if anything is."""
    from trialign_ray.dataset import check_dataset, read_dataset

    problems = check_dataset(file)
    for problem in problems[:20]:
        print(f"{file}: {problem}", file=sys.stderr)
    if len(problems) > 20:
        print(f"{file}: and {len(problems) - 20} more", file=sys.stderr)
    if problems:
        raise typer.Exit(EXIT_BAD_INPUT)
    rows = read_dataset(file)
    questions = {r["question_id"] for r in rows}
    print(
        f"{file}: sound; {len(rows)} rows, {len(questions)} questions, groups "
        f"{', '.join(rows[0]['group_ids'])}"
    )


DataDir = Annotated[
    Path | None, typer.Option(help="Folder with local files. Without it: from the Hub.")
]


@data_app.command("sources")
def data_sources(data_dir: DataDir = None) -> None:
    """List the sources of questions: what they are, their licence, and where they come from."""
    from envs.questions import SOURCES, count_local

    for name, source in SOURCES.items():
        count = None if data_dir is None else count_local(source, str(data_dir))
        where = sorted({hub_set.id for hub_set in source.hub(None)}) or [source.origin]
        part = f"; {name}:part takes one {source.parts}" if source.parts else ""
        here = "" if data_dir is None else f"; {count or 'no'} questions in {data_dir}"
        print(f"{name:22}{source.kind:12}{source.licence}{here}")
        print(f"{'':22}{source.description}{part}\n{'':22}from {', '.join(where)}")
    print("\nThe path of a JSONL, CSV or Parquet file of your own questions works everywhere too.")


@data_app.command("groups")
def data_groups(
    pack: Annotated[
        str | None, typer.Argument(help="Shipped pack or YAML file; all if out.")
    ] = None,
) -> None:
    """Show a pack's groups: profiles, sizes, style rules, lengths of prompts; or list the packs."""
    from envs.groups import describe_pack, load_pack, shipped_packs

    print("\n".join(describe_pack(load_pack(pack)) if pack else shipped_packs()))


@data_app.command("questions")
def data_questions(
    source: Annotated[str, typer.Argument(help="Name (see `data sources`), name:part or file.")],
    data_dir: DataDir = None,
    limit: Annotated[int, typer.Option(min=1, help="Show so many.")] = 3,
) -> None:
    """Show a few questions of a source as the model will see them, with what counts as true."""
    from envs.questions import load_source

    questions = load_source(source, None if data_dir is None else str(data_dir))
    for question in questions[:limit]:
        print(f"--- {question.id} ({question.kind}, verifier {question.verifier})\n{question.text}")
        accepted = " | ".join(question.gold) if question.gold else "no answer is true"
        print(f">>> gold: {accepted}\n")
    print(f"{min(limit, len(questions))} of {len(questions)} questions of {source}")


@config_app.command("show")
def config_show(config: ConfigPath = None, sets: Sets = None, seed: Seed = None) -> None:
    """Print the resolved configuration as YAML; a file to start from."""
    from trialign_ray.checks import check_names
    from trialign_ray.config import to_yaml

    resolved = resolved_config(config, sets, seed)
    check_names(resolved)
    print(to_yaml(resolved), end="")


@config_app.command("schema")
def config_schema() -> None:
    """Print every key with its default and meaning as JSON schema."""
    import json

    from trialign_ray.config import Config

    print(json.dumps(Config.model_json_schema(), indent=2))


@world_app.command("build")
def world_build(
    out: Annotated[Path, typer.Option(help="Folder for the model; must not exist.")],
    epochs: Annotated[float | None, typer.Option(help="Passes over the facts corpus.")] = None,
    workers: Annotated[int, typer.Option(help="Data-parallel Ray Train workers.")] = 1,
) -> None:
    """Train the tiny facts base from nothing, by the recipe that built the shipped one."""
    from trialign_ray.run import start_ray
    from trialign_ray.tiny_lm import BaseRecipe, build_facts_base

    recipe = BaseRecipe() if epochs is None else BaseRecipe(epochs=epochs)
    start_ray()
    accuracy = build_facts_base(out.resolve(), recipe, workers)
    for group, value in accuracy.items():
        print(f"{group}: {value:.3f}")
