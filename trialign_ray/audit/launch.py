"""From the options of `trialign audit` to an audit: configuration, model, folder, asking."""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from trialign_ray.audit.folder import Subject, open_audit
from trialign_ray.config import Config, load_config, to_yaml
from trialign_ray.errors import ConfigError
from trialign_ray.resuming import require_free

DEFAULT_CONTROLS = 5
REMOTE = ("server", "ray_data")
"""Engines that have no weights in this process."""


@dataclass(frozen=True)
class AuditRequest:
    """What the command line asks for; see `trialign audit --help`."""

    config_path: Path | None = None
    model: str | None = None
    url: str | None = None
    model_per_group: bool = False
    run: Path | None = None
    adapters: bool = False
    groups: str | None = None
    questions: tuple[str, ...] = ()
    data_dir: str | None = None
    controls: int | None = None
    split: str | None = None
    run_dir: Path | None = None
    seed: int | None = None
    sets: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Names the folder if none is given."""
        source = self.run.expanduser().resolve().name if self.run else None
        source = source or (self.config_path.stem if self.config_path else None)
        kind = "audit-adapters" if self.adapters else "audit"
        return f"{kind}-{source}" if source else kind


def launch_audit(request: AuditRequest, dry_run: bool, resume: bool, console: Console) -> None:
    """Everything cheap is checked first; only then a model is loaded or an endpoint is asked.

    Raises: ConfigError, DataError, WorkerError.
    """
    from trialign_ray.audit.asking import run_audit, what_is_asked
    from trialign_ray.audit.report import write_reports
    from trialign_ray.display import LineDisplay, RichDisplay

    config = audit_config(request)
    split = request.split or ("test" if request.run else "all")
    asked = what_is_asked(config, split)
    root = request.run_dir or Path("runs") / request.name
    if dry_run:
        show_plan(asked, config, root, console)
        return
    require_free(root.expanduser().resolve(), resume)
    subject, respondents = whom_to_ask(request, config, [g.name for g in asked.groups])
    folder = open_audit(root, config, subject, split, resume)
    display = RichDisplay(console) if console.is_terminal else LineDisplay(console)
    try:
        result = run_audit(asked, subject, respondents, folder, config, display)
    finally:
        display.close()
    page = write_reports(folder, result, to_yaml(config))
    show_audit(result, page, console)


def audit_config(request: AuditRequest) -> Config:
    """The resolved configuration. Raises: ConfigError if options contradict each other."""
    if request.run and request.config_path:
        raise ConfigError("--run takes the run's own configuration; leave the YAML file out")
    if request.adapters and (request.run is None or request.url):
        raise ConfigError(
            "--adapters audits the adapters of a run in this process; give --run RUN_DIR and no "
            "--url (for a served run: --url URL --model-per-group)"
        )
    if request.run and request.model and not request.url:
        raise ConfigError("--run audits the run's own model; leave --model out")
    if request.model_per_group and not (request.url or _asks_server(request)):
        raise ConfigError("--model-per-group names models of an endpoint; give --url URL as well")
    path, overrides = request.config_path, [*_overrides(request), *request.sets]
    if request.run:
        from trialign_ray.run_directory import existing_run

        run, own = existing_run(request.run)
        config = load_config(run.config_file, overrides)
        _require_own_model(request, own, config)
    else:
        config = load_config(path, overrides)
    if request.run and not request.url and config.engine.kind in REMOTE:
        engine = config.engine.model_copy(update={"kind": "transformers"})  # its weights are here
        config = config.model_copy(update={"engine": engine})
    stated = request.controls is not None or any("world.num_controls" in s for s in request.sets)
    if config.world.num_controls == 0 and not stated:
        world = config.world.model_copy(update={"num_controls": DEFAULT_CONTROLS})
        config = config.model_copy(update={"world": world})
    return config


def _require_own_model(request: AuditRequest, run: Config, config: Config) -> None:
    """Raises: ConfigError where a --set names another model than the run's, which is asked."""
    for key in ("base", "model"):
        if getattr(config.behaviour, key) != getattr(run.behaviour, key):
            raise ConfigError(
                f"--set behaviour.{key}={getattr(config.behaviour, key)} names another behaviour "
                "model, but --run audits the one that the run has; leave it out, or audit another "
                "model without --run: --model FOLDER"
            )
    if request.url:
        return
    if config.engine.url != run.engine.url or (
        config.engine.kind != run.engine.kind and config.engine.kind in REMOTE
    ):
        raise ConfigError(
            f"--set engine.kind={config.engine.kind}, engine.url={config.engine.url} ask an "
            "endpoint, but --run asks the run's own model in this process; give the endpoint as "
            "--url URL, or leave it out"
        )


def _asks_server(request: AuditRequest) -> bool:
    path = request.config_path
    return load_config(path, list(request.sets)).engine.kind == "server"


def _overrides(request: AuditRequest) -> list[str]:
    """The options as keys of the configuration."""
    given: dict[str, Any] = {
        "seed": request.seed,
        "world.groups": request.groups,
        "world.questions": list(request.questions) or None,
        "world.data_dir": request.data_dir,
        "world.num_controls": request.controls,
        "engine.url": request.url,
        "engine.kind": "server" if request.url else None,
        "engine.model" if request.url else "behaviour.model": request.model,
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    return [*overrides, "world.num_groups=null"] if request.groups else overrides


def whom_to_ask(
    request: AuditRequest, config: Config, groups: list[str]
) -> tuple[Subject, Callable[[], Any]]:
    """Whose answers are audited, and how to start whoever gives them."""
    if config.engine.kind == "server":
        return _endpoint(request, config, groups)
    from trialign_ray.audit import respondents
    from trialign_ray.language_model import weights_checksum

    name, folder = _model(request, config)
    adapters, identity = _adapters(request, groups) if request.adapters else ({}, {})
    identity = {"weights_sha256": weights_checksum(folder), "adapter_sha256": identity}
    title = f"{name}, each group by its own adapter" if adapters else name
    model = respondents.ModelUnderAudit(folder, adapters)
    kind = (
        respondents.VLLMRespondents
        if config.engine.kind == "vllm"
        else respondents.TransformersRespondents
    )
    return Subject(title, identity), lambda: kind(model, config)


def _endpoint(
    request: AuditRequest, config: Config, groups: list[str]
) -> tuple[Subject, Callable[[], Any]]:
    from trialign_ray.audit.respondents import ServerRespondents, served_names
    from trialign_ray.engines.server import ServerEngine

    if config.evaluate.multiple_choice != "generate":
        raise ConfigError(
            f"evaluate.multiple_choice is {config.evaluate.multiple_choice!r}, but an endpoint "
            "tells no log-probabilities of options; set it to generate, or audit the model in this "
            "process (no --url)"
        )
    engine = ServerEngine(config.engine)
    name, served_as = served_names(engine, config.engine.model, groups, request.model_per_group)
    title = f"{name} at {config.engine.url}"
    if served_as:
        title = f"the models of each group at {config.engine.url} (others: {name})"
    identity = {"served_model": name, "served_as": served_as}
    return Subject(title, identity), lambda: ServerRespondents(engine, config, name, served_as)


def _model(request: AuditRequest, config: Config) -> tuple[str, Path]:
    """The model's name for people, and its folder."""
    if request.run:
        from trialign_ray.run_directory import existing_run
        from trialign_ray.run_models import run_base

        run, before = existing_run(request.run)
        return f"the behaviour model of run {run.name}", run_base(run, before).folder
    from trialign_ray.model_source import resolve_model

    name = config.behaviour.given
    title = "TruthWorld's facts base" if name == "truthworld" else name
    return title, resolve_model(name, config.model)


def _adapters(request: AuditRequest, groups: list[str]) -> tuple[dict[str, Path], dict[str, str]]:
    """Folders and checksums of the adapters that a run exported. Raises: DataError, ConfigError."""
    from trialign_ray.run_directory import existing_run
    from trialign_ray.run_models import require_sound_adapters, trained_groups

    assert request.run is not None
    run, _ = existing_run(request.run)
    hashes = trained_groups(run, groups)
    require_sound_adapters(run, hashes)
    return {g: run.adapter_dir(g) for g in groups}, hashes


def show_plan(asked: Any, config: Config, root: Path, console: Console) -> None:
    """What would be asked; nothing is loaded."""
    sources = Counter(q.source or "own questions" for q in asked.questions)
    engine = config.engine.kind if config.engine.kind != "server" else str(config.engine.url)
    lines = {
        "folder": f"{root}" + (" (exists)" if root.exists() else ""),
        "model": config.engine.model or config.behaviour.given,
        "engine": engine,
        "groups": ", ".join(g.name for g in asked.groups),
        "controls": ", ".join(g.name for g in asked.controls) or "none",
        "questions": ", ".join(f"{name} {count}" for name, count in sources.items()),
        "questions with a truth": str(len(asked.with_truth)),
        "answers": f"{len(asked.audiences) * len(asked.questions)} "
        f"({len(asked.audiences)} users x {len(asked.questions)} questions), of at most "
        f"{config.collect.max_new_tokens} tokens",
    }
    for name, value in lines.items():
        console.print(f"# {name}: {value}", highlight=False, markup=False, soft_wrap=True)
    console.print(to_yaml(config), highlight=False, markup=False, soft_wrap=True)


def show_audit(result: dict[str, Any], page: Path, console: Console) -> None:
    """The verdict, the table, and where the page is."""
    from trialign_ray.audit.report import consistency_rows, result_table

    console.print(result_table(result))
    for label, value in consistency_rows(result)[:4]:
        console.print(f"{label}: {value}", highlight=False)
    verdict = result["verdict"]
    style = "bold red" if verdict["outcome"] == "unequal" else "bold"
    plain: dict[str, Any] = {"highlight": False, "markup": False, "soft_wrap": True}
    console.print(verdict["sentence"], style=style, **plain)
    for sentence in verdict["behind"]:
        console.print(sentence, **plain)
    for caution in verdict["cautions"]:
        console.print(f"caution: {caution}", style="yellow", **plain)
    console.print(f"page: {page}", **plain)
