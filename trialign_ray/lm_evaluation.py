"""lm-evaluation-harness on a run's adapters, under each group's own profile.

So that a user can set a group's adapter beside numbers that others published. The harness is an
extra and is imported only here, when it is asked for.
"""

import hashlib
import importlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trialign_ray.checkpoint import write_json
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.run_directory import RunDirectory
from trialign_ray.run_models import (
    RunBase,
    groups_of,
    load_dtype,
    require_sound_adapters,
    run_base,
    trained_groups,
)

FOLDER = "lm_eval"
BASE = "_base"
"""Names the base without adapter and profile; no group's name begins with an underscore."""
_PACKAGES = ("lm_eval", "torch", "transformers", "peft", "datasets")
_MAX_NAME = 100


@dataclass(frozen=True)
class HarnessOptions:
    """tasks: names or patterns of the harness, or of YAML files in include. limit: first so many
    documents of each task, for trying out. with_base: also the base alone, without a profile.
    device: None for a GPU if there is one."""

    tasks: tuple[str, ...]
    groups: tuple[str, ...] = ()
    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 8
    include: Path | None = None
    with_base: bool = False
    device: str | None = None


@dataclass(frozen=True)
class HarnessResult:
    """What the harness says of one group (or `BASE`): metrics by task, and where they are kept."""

    group: str
    metrics: dict[str, dict[str, float]]
    file: Path

    def lines(self) -> list[tuple[str, str, float, str]]:
        """Task, metric, value and standard error (text; "" where there is none)."""
        found = []
        for task, metrics in self.metrics.items():
            for name, value in metrics.items():
                metric, _, kind = name.partition(",")
                if not kind or metric.endswith("_stderr"):
                    continue
                error = metrics.get(f"{metric}_stderr,{kind}")
                found.append((task, name, value, "" if error is None else f"{error:.4f}"))
        return found


def evaluate_with_harness(
    run: RunDirectory, config: Config, options: HarnessOptions
) -> list[HarnessResult]:
    """Runs the tasks for every group in turn, each under its profile as the system message.

    The prompt is the explicit one, in its first wording. Results are written to
    `lm_eval/<group>/<tasks>.json` in the run, with versions; the same tasks again replace them.
    Raises: ConfigError without the extra, for a task that does not exist, or for a group whose
    profile is not at hand; DataError if adapters are missing or a task's data cannot be read.
    """
    if options.limit is not None and options.limit < 1:
        raise ConfigError(f"--limit is {options.limit}; expected 1 or more, or none for all")
    if not options.tasks:
        raise ConfigError("--tasks is empty; name at least one, e.g. arc_easy,gsm8k")
    harness = _harness()
    manager = _task_manager(options)
    names = _known_tasks(manager, options)
    hashes = trained_groups(run, options.groups)
    require_sound_adapters(run, hashes)
    profiles = _profiles(config, tuple(hashes))
    base = run_base(run, config)
    members: list[str] = [BASE, *hashes] if options.with_base else list(hashes)
    results = []
    for member in members:
        model = _model(run, config, base, None if member == BASE else member, options)
        said = _evaluate(harness, model, names, manager, profiles.get(member), options)
        record = _record(member, profiles.get(member), base, said, options)
        file = run.root / FOLDER / member / _file_name(names, options)
        write_json(file, record)
        results.append(HarnessResult(member, record["results"], file))
        del model  # before the next one is loaded
    return results


def _harness() -> Any:
    try:
        return importlib.import_module("lm_eval")
    except ImportError as error:
        raise ConfigError(
            f"lm-evaluation-harness is not installed ({error}); install it with `pip install "
            "'trialign-ray[lm-eval]'`"
        ) from error


def _task_manager(options: HarnessOptions) -> Any:
    tasks = importlib.import_module("lm_eval.tasks")
    if options.include is not None and not options.include.is_dir():
        raise ConfigError(
            f"--include is {options.include}, which is no folder; give the folder of your tasks' "
            "YAML files"
        )
    if options.include is None:
        return tasks.TaskManager()
    include = str(options.include.resolve())
    own = tasks.TaskManager(include_path=include, include_defaults=False)
    if all(own.match_tasks([name]) for name in options.tasks):
        return own  # the harness's own thousands of files take long to read
    return tasks.TaskManager(include_path=include)


def _known_tasks(manager: Any, options: HarnessOptions) -> list[str]:
    """The tasks asked for, patterns spelled out. Raises: ConfigError naming the unknown ones."""
    import difflib

    found: list[str] = []
    for name in options.tasks:
        matches = manager.match_tasks([name])
        if not matches:
            near = difflib.get_close_matches(name, manager.all_tasks, n=3)
            hint = f"did you mean {', '.join(near)}?" if near else "see `lm-eval ls tasks`"
            where = f" and {options.include}" if options.include else ""
            raise ConfigError(
                f"--tasks names {name!r}, which is no task of lm-evaluation-harness "
                f"{version('lm_eval')}{where}; {hint}"
            )
        found += matches
    return list(dict.fromkeys(found))


def _profiles(config: Config, groups: Sequence[str]) -> dict[str, str]:
    profiles = {}
    for name, group in groups_of(config, groups).items():
        if group is None:
            raise ConfigError(
                f"pack {config.world.groups!r} has no group {name!r} (any more), so its profile is "
                "not known; put the pack back that the run was trained with"
            )
        profiles[name] = group.profile
    return profiles


def _model(
    run: RunDirectory, config: Config, base: RunBase, group: str | None, options: HarnessOptions
) -> Any:
    import torch

    from trialign_ray.chat_template import TEMPLATE_ARGUMENTS
    from trialign_ray.language_model import load_tokenizer

    adapter = {} if group is None else {"peft": str(run.adapter_dir(group))}
    model_class = importlib.import_module("lm_eval.models.huggingface").HFLM
    return model_class(
        pretrained=str(base.folder),
        tokenizer=load_tokenizer(base.folder, config.model),
        dtype=load_dtype(config, base),
        max_length=config.model.max_length,
        batch_size=options.batch_size,
        device=options.device or ("cuda" if torch.cuda.is_available() else "cpu"),
        trust_remote_code=config.model.trust_remote_code,
        chat_template_args=dict(TEMPLATE_ARGUMENTS),
        **adapter,
    )


def _evaluate(
    harness: Any,
    model: Any,
    names: list[str],
    manager: Any,
    profile: str | None,
    options: HarnessOptions,
) -> dict[str, Any]:
    try:
        said = harness.simple_evaluate(
            model=model,
            tasks=names,
            num_fewshot=options.num_fewshot,
            batch_size=options.batch_size,
            limit=options.limit,
            system_instruction=profile,
            apply_chat_template=True,
            task_manager=manager,
            log_samples=False,
        )
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"lm-evaluation-harness cannot run {', '.join(names)}: {type(error).__name__}: "
            f"{error}; the data sets of most tasks are fetched from the Hub"
        ) from error
    assert said is not None, "only other ranks of a distributed evaluation get None"
    return said


def _record(
    member: str,
    profile: str | None,
    base: RunBase,
    said: dict[str, Any],
    options: HarnessOptions,
) -> dict[str, Any]:
    """What is kept: plain numbers, with all that is needed to run it again."""
    return {
        "group": None if member == BASE else member,
        "system_instruction": profile,
        "base": base.name,
        "revision": base.revision,
        "results": {task: _numbers(metrics) for task, metrics in said["results"].items()},
        "num_documents": {t: dict(n) for t, n in said.get("n-samples", {}).items()},
        "num_fewshot": dict(said.get("n-shot", {})),
        "task_versions": dict(said.get("versions", {})),
        "limit": options.limit,
        "packages": {name: version(name) for name in _PACKAGES},
    }


def _numbers(metrics: dict[str, Any]) -> dict[str, float]:
    """Metrics by the harness's names ("acc,none"); what it could not compute (N/A) is left out."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _file_name(names: Sequence[str], options: HarnessOptions) -> str:
    settings = [f"{options.num_fewshot}shot"] if options.num_fewshot is not None else []
    settings += [f"limit{options.limit}"] if options.limit is not None else []
    name = re.sub(r"[^\w.+-]", "_", "+".join([*names, *settings]))
    if len(name) > _MAX_NAME:
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        name = f"{name[:_MAX_NAME]}-{digest}"
    return f"{name}.json"
