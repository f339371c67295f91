"""Commands that take a run's adapters and data out, and others' data in."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from trialign_ray.commands.options import ConfigPath, RunPath, Sets

app = typer.Typer()
data_app = typer.Typer()
"""Merged into `trialign data`: the command group of `commands.inspecting`."""

Groups = Annotated[
    list[str] | None, typer.Option("--group", help="A group; repeatable. All if left out.")
]


@app.command()
def export(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    group: Groups = None,
    merged: Annotated[
        bool, typer.Option("--merged", help="Also the base with each adapter merged in.")
    ] = False,
    link: Annotated[
        bool, typer.Option("--link/--copy", help="Hard links to the run's weights, or copies.")
    ] = False,
) -> None:
    """Write a run's adapters as PEFT folders with model cards."""
    from trialign_ray.export import ExportOptions, export_run
    from trialign_ray.run_directory import existing_run

    options = ExportOptions(groups=tuple(group or ()), merged=merged, link=link)
    written = export_run(*existing_run(run), out, options, tell=print)
    print(f"{len(written.groups)} adapters in {written.folder}: {', '.join(written.groups)}")


@app.command()
def serve(
    run: RunPath,
    group: Groups = None,
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = 8000,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds until it must answer.")] = 600.0,
    show: Annotated[
        bool, typer.Option("--print", help="Show vLLM's command; start nothing.")
    ] = False,
    ray_serve: Annotated[
        Path | None, typer.Option(help="Write a Ray Serve configuration; start nothing.")
    ] = None,
    adapters_at: Annotated[
        str, typer.Option(help="Ray Serve: cloud folder with the exported adapters.")
    ] = "",
    accelerator: Annotated[str | None, typer.Option(help="Ray Serve: e.g. A10G.")] = None,
    max_replicas: Annotated[int, typer.Option(min=1, help="Ray Serve: most replicas.")] = 2,
) -> None:
    """Serve all groups' adapters on one base by vLLM, OpenAI-compatible, a model name per group."""
    from trialign_ray import serve as server
    from trialign_ray import serve_plan as plans
    from trialign_ray.run_directory import existing_run

    run_dir, config = existing_run(run)
    plan = plans.serve_plan(run_dir, config, tuple(group or ()))
    if ray_serve is not None:
        cluster = plans.ClusterOptions(adapters_at, accelerator, max_replicas=max_replicas)
        plans.write_ray_serve(run_dir, plan, cluster, ray_serve)
        print(f"{ray_serve}: start it with `serve run {ray_serve}` on the cluster")
        return
    command = plans.vllm_command(plan, host, port, server.serves_on_cpu())
    if show:
        print(plans.shown(command))
        return
    first = next(iter(plan.adapters))
    code = server.serve(
        command,
        host,
        port,
        lambda url: print(
            f"serving {plan.base.name} and {', '.join(plan.adapters)} at {url}/v1\n"
            + plans.example_request(url, first),
            flush=True,
        ),
        timeout,
    )
    raise typer.Exit(code)


@app.command("lm-eval")
def lm_eval(
    run: RunPath,
    tasks: Annotated[str, typer.Option(help="Comma-separated names, e.g. arc_easy,gsm8k.")],
    group: Groups = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many of each task.")
    ] = None,
    num_fewshot: Annotated[
        int | None, typer.Option(min=0, help="Examples in the prompt; the task's own if out.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Requests per forward pass.")] = 8,
    include: Annotated[
        Path | None, typer.Option(help="Folder with YAML files of tasks of your own.")
    ] = None,
    base: Annotated[
        bool, typer.Option("--base", help="Also the base alone, without a profile.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="E.g. cuda:0; a GPU if there is one.")] = None,
) -> None:
    """Run lm-evaluation-harness with each group's adapter under the group's profile."""
    from rich.console import Console
    from rich.table import Table

    from trialign_ray.lm_evaluation import BASE, HarnessOptions, evaluate_with_harness
    from trialign_ray.run_directory import existing_run

    names = tuple(name.strip() for name in tasks.split(",") if name.strip())
    options = HarnessOptions(
        names, tuple(group or ()), limit, num_fewshot, batch_size, include, base, device
    )
    results = evaluate_with_harness(*existing_run(run), options)
    table = Table("group", "task", "metric", "value", "standard error")
    for result in results:
        who = "base, no profile" if result.group == BASE else result.group
        for task, metric, value, error in result.lines():
            table.add_row(who, task, metric, f"{value:.4f}", error)
    Console().print(table)
    print(f"results: {results[0].file.parents[1]}")


@data_app.command("export-trl")
def data_export_trl(
    run: RunPath,
    out: Annotated[Path, typer.Option(help="Folder to write; must not exist.")],
    kind: Annotated[
        list[str] | None,
        typer.Option("--format", help="preference, unpaired or sft; repeatable. All if out."),
    ] = None,
    prompts: Annotated[
        str, typer.Option(help="messages, or text as the chat template rendered it.")
    ] = "messages",
    margin: Annotated[float, typer.Option(help="Least difference of scores, 0 to 1.")] = 0.05,
    max_pairs: Annotated[int, typer.Option(min=1, help="Pairs per question and group.")] = 4,
    parquet: Annotated[bool, typer.Option("--parquet", help="Parquet, not JSON lines.")] = False,
) -> None:
    """Write a run's log and targets in TRL's formats, with a group column."""
    from trialign_ray.run_directory import existing_run
    from trialign_ray.trl.export import export_trl
    from trialign_ray.trl.format import TrlOptions

    options = TrlOptions(margin=margin, max_pairs=max_pairs, prompts=prompts, parquet=parquet)
    for name, count in export_trl(*existing_run(run), out, tuple(kind or ()), options).items():
        print(f"{name}: {count} rows" + ("" if count else ", no file: see --margin"))


@data_app.command("import-trl")
def data_import_trl(
    file: Annotated[Path, typer.Argument(help="TRL data with a group column: JSONL or Parquet.")],
    config: ConfigPath = None,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Run directory to make; not yet there.")
    ] = None,
    questions_out: Annotated[
        Path | None, typer.Option(help="Only write the data's questions, for world.questions.")
    ] = None,
    sets: Sets = None,
) -> None:
    """Make a run's log of TRL preference or unpaired data; `train --resume` goes on from it."""
    from trialign_ray.launch import default_dir, resolved_config
    from trialign_ray.trl.imported_log import import_log
    from trialign_ray.trl.reading import read_trl, write_questions

    if questions_out is not None:
        number = write_questions(read_trl(file), questions_out)
        print(f"{questions_out}: {number} questions; name it in world.questions")
        return
    where = run_dir or default_dir(config)
    log = import_log(file, resolved_config(config, sets, None), where)
    for group, count in log.by_group.items():
        print(f"{group}: {count} answers")
    print(f"{log.num_held_out} answers to held-out questions were left out")
    again = ["trialign", "train", *([str(config)] if config else []), "--run-dir", str(where)]
    again += ["--resume", *(part for s in sets or () for part in ("--set", s))]
    print(f"log: {where}; go on with `{shlex.join(again)}`")


@data_app.command("card")
def data_card(
    run: RunPath,
    out: Annotated[Path | None, typer.Option(help="File; dataset/README.md if left out.")] = None,
) -> None:
    """Write a card of a run's log: content, groups, licences, limits."""
    from trialign_ray.checkpoint import write_atomically
    from trialign_ray.dataset_card import dataset_card
    from trialign_ray.run_directory import existing_run

    run_dir, config = existing_run(run)
    file = out or run_dir.log_file.with_name("README.md")
    write_atomically(file, dataset_card(run_dir, config).encode())
    print(file)
