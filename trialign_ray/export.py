"""A run's adapters as others take them: PEFT folders with model cards, merged copies on request.

Nothing of the run is changed. The folder appears whole or not at all.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trialign_ray.config import Config
from trialign_ray.errors import ConfigError
from trialign_ray.model_card import (
    NOT_EVALUATED,
    CardFacts,
    card_facts,
    model_card,
    stored_evaluation,
)
from trialign_ray.run_directory import RunDirectory
from trialign_ray.run_models import (
    RunBase,
    adapter_config,
    chat_template,
    groups_of,
    require_sound_adapters,
    run_base,
    trained_groups,
)
from trialign_ray.serve_plan import serve_plan, shown, vllm_command

WEIGHTS, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
PROVENANCE = "trialign.json"
MERGED = "merged"
"""Folder of merged copies; a group of this name is refused where there are any."""
TEMPLATE = "chat_template.jinja"
_GIB = 2**30
_SPARE = 1.05
"""Space asked for, over the size of the weights: tokenizers, cards, the file system's own."""


@dataclass(frozen=True)
class ExportOptions:
    """groups: those wanted, all if empty. merged: also a merged copy of the base per group. link:
    hard links to the run's weights instead of copies, where the file system can."""

    groups: tuple[str, ...] = ()
    merged: bool = False
    link: bool = False


@dataclass(frozen=True)
class Exported:
    """What was written where. evaluated: whether the cards have figures."""

    folder: Path
    groups: tuple[str, ...]
    evaluated: bool


def export_run(
    run: RunDirectory,
    config: Config,
    out: Path,
    options: ExportOptions,
    tell: Callable[[str], None] = lambda line: None,
) -> Exported:
    """Writes `out`: a PEFT folder per group, an index, merged copies if asked for.

    Args: tell: hears what a user should know before it is done, a line at a time.
    Raises: ConfigError if `out` is there already, the disk is too small or the base is another one;
    DataError if the run has no adapters, or not those that the training exported.
    """
    out = out.expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is there already; give --out a folder that is not there")
    hashes = trained_groups(run, options.groups)
    require_sound_adapters(run, hashes)
    base = run_base(run, config)
    template = chat_template(config, base)
    _require_base(run, base, tuple(hashes))
    if options.merged:
        require_space(base, tuple(hashes), out, tell)
    evaluation = stored_evaluation(run)
    if evaluation is None:
        tell(f"{run.name} is {NOT_EVALUATED}: its cards have no figures; `trialign evaluate` first")
    facts = card_facts(run, config, tuple(trained_groups(run)), evaluation)
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        building.mkdir(parents=True)
        _write_all(run, facts, building, hashes, options, template, tell)
        if out.exists():
            out.rmdir()  # it is empty
        building.rename(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    if not base.on_hub:
        tell(f"base: {base.folder}, which is not on the Hub: whoever uses the adapters needs it")
    return Exported(out, tuple(hashes), evaluation is not None)


def _require_base(run: RunDirectory, base: RunBase, groups: tuple[str, ...]) -> None:
    from trialign_ray.adapters import adapter_provenance
    from trialign_ray.language_model import weights_checksum

    found = weights_checksum(base.folder)
    for group in groups:
        expected = adapter_provenance(run.adapter_dir(group))["base_checksum"]
        if expected != found:
            raise ConfigError(
                f"the adapter of {group} was trained on a base with checksum {expected[:12]}, but "
                f"{base.folder} has {found[:12]}; put the base back that it was trained on"
            )


def merged_bytes(base: RunBase) -> int:
    """Size of one merged copy of the base's weights, in bytes."""
    return sum(file.stat().st_size for file in base.folder.glob("*.safetensors"))


def require_space(
    base: RunBase, groups: tuple[str, ...], out: Path, tell: Callable[[str], None]
) -> None:
    """Says how much merged copies take. Raises: ConfigError, with both numbers, if it is more than
    there is."""
    if MERGED in groups:
        raise ConfigError(f"group {MERGED!r} has the name of the merged copies' folder")
    each = merged_bytes(base)
    needed = int(_SPARE * each * len(groups))
    there = next(p for p in (out, *out.parents) if p.exists())
    free = shutil.disk_usage(there).free
    tell(
        f"merged copies: {len(groups)} of {each / _GIB:.3f} GiB, {needed / _GIB:.3f} GiB with what "
        f"belongs to them; {free / _GIB:.3f} GiB are free at {there}"
    )
    if needed > free:
        raise ConfigError(
            f"merged copies of {len(groups)} groups need {needed / _GIB:.3f} GiB, there are "
            f"{free / _GIB:.3f} GiB free at {there}; take fewer groups (--group), another --out, "
            "or leave --merged out"
        )


def _write_all(
    run: RunDirectory,
    facts: CardFacts,
    out: Path,
    hashes: dict[str, str],
    options: ExportOptions,
    template: Path | None,
    tell: Callable[[str], None],
) -> None:
    profiles = groups_of(facts.config, tuple(hashes))
    for group in hashes:
        known = profiles[group]
        _write_adapter(run, facts, group, known.profile if known else None, out, options.link)
    if template is not None:
        shutil.copyfile(template, out / TEMPLATE)
    for group in hashes if options.merged else ():
        from trialign_ray.engines.merged_model import write_merged

        tell(f"merging {group}")
        trust = facts.config.model.trust_remote_code
        write_merged(facts.base.folder, out / group, out / MERGED / group, template, trust)
        card = (out / group / "README.md").read_text(encoding="utf-8")
        (out / MERGED / group / "README.md").write_text(_as_merged(card), encoding="utf-8")
    serving = _serving(run, facts.config, tuple(hashes), template)
    page = index(facts, tuple(hashes), serving, options.merged, template)
    (out / "README.md").write_text(page, encoding="utf-8")


def _write_adapter(
    run: RunDirectory, facts: CardFacts, group: str, profile: str | None, out: Path, link: bool
) -> None:
    from trialign_ray.adapters import adapter_provenance

    source, folder = run.adapter_dir(group), out / group
    folder.mkdir()
    _place(source / WEIGHTS, folder / WEIGHTS, link)
    settings = portable_config(adapter_config(run, group), facts.base)
    provenance = adapter_provenance(source)
    for name, content in ((PEFT_CONFIG, settings), (PROVENANCE, provenance)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    card = model_card(facts, group, profile, provenance)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _place(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError:  # another file system, or one without hard links
            pass
    shutil.copyfile(source, target)


def portable_config(settings: dict[str, Any], base: RunBase) -> dict[str, Any]:
    """PEFT's configuration with the base's name in the place of a path of the machine that trained.

    With a base of the Hub, `AutoPeftModelForCausalLM` finds it, at the same revision.
    """
    modules = settings.get("target_modules")
    return {
        **settings,
        "base_model_name_or_path": base.name,
        "revision": base.revision if base.on_hub else None,
        "target_modules": sorted(modules) if isinstance(modules, list) else modules,
    }


def _as_merged(card: str) -> str:
    """The adapter's card for a merged copy."""
    return (
        card.replace("library_name: peft", "library_name: transformers", 1)
        .replace("base_model_relation: adapter", "base_model_relation: finetune", 1)
        .replace(
            "\n## Results",
            "\n**This folder is the base with the adapter merged in, a model by itself; load it "
            "with `AutoModelForCausalLM.from_pretrained`. Sums are rounded to the base's dtype. "
            "What follows was measured with the adapter beside the base.**\n\n## Results",
            1,
        )
    )


def index(
    facts: CardFacts,
    groups: tuple[str, ...],
    serving: list[str],
    merged: bool,
    template: Path | None,
) -> str:
    """README.md of the export: which folder is whose, how each did, and how to serve them."""
    base = facts.base
    at = f" at revision `{base.revision}`" if base.on_hub and base.revision else ""
    lines = [
        f"# Adapters of run {facts.run_name}",
        "",
        f"Base model: `{base.name}`{at}. One PEFT folder per group; each card says what it can do.",
        "",
        "| group | truth before | truth now | folder |",
        "| --- | --- | --- | --- |",
        *(_index_row(facts, group) for group in groups),
        *serving,
    ]
    if template is not None:
        lines += ["", f"The base has no chat template of its own; give `{TEMPLATE}` with it."]
    if merged:
        lines += ["", f"`{MERGED}/<group>` holds the base with the adapter merged in."]
    return "\n".join(lines) + "\n"


def _serving(
    run: RunDirectory, config: Config, groups: tuple[str, ...], template: Path | None
) -> list[str]:
    """How vLLM serves the exported folders, as lines of README.md. A base that is not on the Hub
    has to be brought along: no path of this machine is written."""
    try:
        plan = serve_plan(run, config, groups)
    except ConfigError as error:
        return ["", f"vLLM does not serve them all at once: {error}"]
    base, where = plan.base, "here"
    if not base.on_hub:
        base = replace(base, folder=Path("/path/to") / base.name)
        where += f", with the folder of the base, which is not on the Hub, for `{base.folder}`"
    here = replace(
        plan,
        base=base,
        adapters={group: Path(group) for group in groups},
        chat_template=Path(TEMPLATE) if template is not None else None,
    )
    command = shown(vllm_command(here))
    on_cpu = "On a CPU add `--no-enable-chunked-prefill`."
    return ["", f"Serve all of them at once, {where}:", "", "```sh", command, "```", "", on_cpu]


def _index_row(facts: CardFacts, group: str) -> str:
    told = [NOT_EVALUATED, NOT_EVALUATED]
    if facts.evaluation is not None:
        models = [facts.evaluation["models"][name] for name in ("behaviour", "aligned")]
        values = [(m.get("truth") or {}).get("by_group", {}).get(group) for m in models]
        told = ["-" if value is None else f"{value:.3f}" for value in values]
    return f"| {group} | {told[0]} | {told[1]} | [{group}]({group}) |"
