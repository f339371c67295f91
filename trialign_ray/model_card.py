"""A model card for every adapter: what it is, for whom, how well it did, and its limits.

The front matter is what the Hugging Face Hub reads. A figure that nobody measured is said to be
missing, never left out.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from envs.groups import Group
from trialign_ray.adapters import adapter_provenance
from trialign_ray.checkpoint import write_atomically
from trialign_ray.config import Config
from trialign_ray.guard import guard_sentence, read_guard
from trialign_ray.log_figures import LogFigures, log_figures
from trialign_ray.run_directory import RunDirectory, existing_run
from trialign_ray.run_models import RunBase, run_base

NOT_EVALUATED = "not evaluated"
LICENCE_TO_DECIDE = (
    "To be decided by whoever publishes this adapter. It inherits what the licences of the base "
    "model and of the training data ask for (see Data); replace `license: other` above and this "
    "paragraph before you share it."
)


@dataclass(frozen=True)
class CardFacts:
    """What the cards of one run have in common. evaluation: None where there is none yet."""

    run_name: str
    config: Config
    base: RunBase
    groups: tuple[str, ...]
    evaluation: dict[str, Any] | None
    guard: dict[str, Any] | None
    log: LogFigures | None


def card_facts(
    run: RunDirectory, config: Config, groups: tuple[str, ...], evaluation: dict[str, Any] | None
) -> CardFacts:
    """Facts of a run. Args: evaluation: what `evaluation.json` holds or is about to hold."""
    log = log_figures(run.log_file) if run.log_file.is_file() else None
    guard = read_guard(run)
    return CardFacts(run.name, config, run_base(run, config), groups, evaluation, guard, log)


def stored_evaluation(run: RunDirectory) -> dict[str, Any] | None:
    """evaluation.json; None where the run is not evaluated."""
    path = run.evaluation_file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def write_model_cards(
    run: RunDirectory, evaluation: dict[str, Any], groups: tuple[Group, ...]
) -> None:
    """Writes README.md into every adapter's folder."""
    config = existing_run(run.root)[1]
    facts = card_facts(run, config, tuple(g.name for g in groups), evaluation)
    for group in groups:
        folder = run.adapter_dir(group.name)
        card = model_card(facts, group.name, group.profile, adapter_provenance(folder))
        write_atomically(folder / "README.md", card.encode())


def model_card(
    facts: CardFacts, group: str, profile: str | None, provenance: Mapping[str, Any]
) -> str:
    """The card of a group's adapter, Markdown with YAML front matter.

    Args: profile: what the group's prompt says of the user; None where the pack is not at hand.
    provenance: what `adapters.export_adapter` noted beside the weights.
    """
    sections = (
        ("", _opening(facts, group, profile)),
        ("Results on held-out questions", _results(facts, group)),
        ("Use", _use(facts, group, provenance)),
        ("Training", _training(facts, provenance)),
        ("Data", _data(facts, group)),
        ("Limits", _limits(facts)),
        ("Licence", LICENCE_TO_DECIDE),
    )
    body = "\n\n".join(f"## {title}\n\n{text}" if title else text for title, text in sections)
    return f"---\n{_front_matter(facts, group)}---\n\n{body}\n"


def _front_matter(facts: CardFacts, group: str) -> str:
    matter: dict[str, Any] = {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": "to-be-decided",
        "tags": ["trialign", "lora", "personalization", "fairness", f"group:{group}"],
    }
    if facts.base.on_hub:
        matter |= {"base_model": facts.base.name, "base_model_relation": "adapter"}
        if facts.base.revision:
            matter["base_model_revision"] = facts.base.revision
    return yaml.safe_dump(matter, sort_keys=False, allow_unicode=True)


def _opening(facts: CardFacts, group: str, profile: str | None) -> str:
    who = f'("{profile}")' if profile else "(its profile is not at hand; see the group pack)"
    return (
        f"# Adapter of group {group}\n\n"
        f"A LoRA adapter that answers in the style of group `{group}` {who} and is trained to "
        "keep facts equal to those that every other group is told.\n\n"
        f"One of {len(facts.groups)} adapters of the run `{facts.run_name}`: "
        f"{', '.join(facts.groups)}. Trained by TriAlign ({facts.config.algorithm}, seed "
        f"{facts.config.seed})."
    )


def _results(facts: CardFacts, group: str) -> str:
    evaluation = facts.evaluation
    if evaluation is None:
        return (
            f"This adapter is **{NOT_EVALUATED}**: nobody measured what it says. Run `trialign "
            f"evaluate` on the run `{facts.run_name}` and export it again."
        )
    lines = [
        f"{evaluation['num_questions']} questions of the {evaluation['split']} split, "
        f"{evaluation['num_truth_questions']} of them with a known answer; intervals are "
        f"{100 * facts.config.evaluate.confidence:g} % bootstrap intervals over questions.",
        "",
        "| model | truth [interval] | style adherence [interval] |",
        "| --- | --- | --- |",
        *_model_rows(evaluation, group),
        "",
        *_comparison(evaluation, group),
        *_controls(evaluation, group),
    ]
    verdict = "not judged: the run has no selection.json"
    if facts.guard is not None:
        verdict = guard_sentence(facts.guard)
    return "\n".join([*lines, f"- Guard (all groups, validation questions): {verdict}"])


def _model_rows(evaluation: Mapping[str, Any], group: str) -> Iterator[str]:
    labels = {"facts_base": "facts base", "behaviour": "personalized model before"}
    for name in ("facts_base", "behaviour", "aligned"):
        model = evaluation["models"].get(name)
        if model is None:
            continue
        truth, adherence = model.get("truth"), next(iter(model["adherence"].values()))
        told = _with_interval(truth["by_group"], truth["ci"]["by_group"], group) if truth else "-"
        kept = _with_interval(adherence["by_group"], adherence["ci"], group)
        yield f"| {labels.get(name, '**this adapter**')} | {told} | {kept} |"


def _with_interval(values: Mapping[str, Any], intervals: Mapping[str, Any], group: str) -> str:
    value, interval = values.get(group), intervals.get(group)
    if value is None and group in values:
        return "-"  # no style rules that it could keep
    if value is None:
        return "not known"
    if not interval or None in interval:
        return f"{value:.3f}"
    return f"{value:.3f} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _comparison(evaluation: Mapping[str, Any], group: str) -> Iterator[str]:
    change = evaluation.get("aligned_minus_behaviour") or {}
    for key, label in (("truth_by_group", "truth"), ("adherence_by_group", "style adherence")):
        found = (change.get(key) or {}).get(group)
        if found is not None and None not in found["ci"]:
            low, high = found["ci"]
            yield (
                f"- Change of {label}: {found['difference']:+.3f} [{low:+.3f}, {high:+.3f}] "
                "against the personalized model before."
            )
    truth = evaluation["models"]["aligned"].get("truth")
    if truth is not None:
        yield (
            f"- All groups of the run: worst {truth['worst']:.3f}, mean {truth['mean']:.3f}, gap "
            f"{truth['gap']:.3f} (equal groups would show {truth['gap_null']:.3f}, p = "
            f"{truth['gap_p']:.3f})."
        )


def _controls(evaluation: Mapping[str, Any], group: str) -> Iterator[str]:
    controls = evaluation.get("controls")
    if not controls:
        yield "- Controls (neutral personas): not measured."
        return
    personas, plain = controls.get("personas"), controls["no_persona"]
    if personas:
        yield (
            f"- Controls: {len(personas['by_control'])} neutral personas of the model before show "
            f"a gap of {personas['gap']:.3f} (p = {personas['gap_p']:.3f}); a gap among groups "
            "counts where it is larger."
        )
    else:
        yield "- Controls (neutral personas): none were asked (world.num_controls is 0)."
    own = plain["aligned"].get(group)
    if own is not None:
        yield (
            f"- A user without a profile is told the truth in {own:.3f} of the questions by this "
            f"adapter, in {plain['behaviour']:.3f} by the model before."
        )


def _use(facts: CardFacts, group: str, provenance: Mapping[str, Any]) -> str:
    base = facts.base
    source = base.name if base.on_hub else f"/path/to/{base.name}"
    revision = f', revision="{base.revision}"' if base.on_hub and base.revision else ""
    if base.on_hub:
        where = f"`{base.name}`" + (f" at revision `{base.revision}`" if base.revision else "")
    else:
        where = f"`{base.name}`, a model that is not on the Hub"
    return (
        f"Base model: {where}; sha256 over its safetensors files "
        f"`{provenance['base_checksum']}`. The adapter fits no other base.\n\n"
        "```python\n"
        "from peft import PeftModel\n"
        "from transformers import AutoModelForCausalLM\n\n"
        f'base = AutoModelForCausalLM.from_pretrained("{source}"{revision}, dtype="auto")\n'
        f'model = PeftModel.from_pretrained(base, "{group}")  # this folder\n'
        "```\n\n"
        "It was trained under the group's own prompt: give the profile as the system message "
        f"(prompt mode of the log: {facts.config.world.prompt_mode})."
    )


def _training(facts: CardFacts, provenance: Mapping[str, Any]) -> str:
    clone, targets = facts.config.clone, facts.config.targets
    step = provenance.get("step", "not noted")
    ranks = f"{clone.lora_rank}"
    if clone.shared_rank:
        ranks += f" (own) and {clone.shared_rank} (common to all groups), written as one LoRA"
    return "\n".join(
        [
            f"- Updates {step}, batch size {clone.batch_size}, learning rate "
            f"{clone.learning_rate:g}, extraction {clone.extraction or 'of the algorithm'}.",
            f"- LoRA rank {ranks}, alpha {clone.lora_alpha}, modules {clone.target_modules}.",
            f"- Central problem: welfare {targets.welfare}, penalty {targets.penalty} with weight "
            f"{targets.penalty_weight:g}, KL weight {targets.kl_weight:g}.",
            f"- Truth head {facts.config.critic.truth_head}; weights of the frozen base "
            f"{facts.config.model.dtype}, of the adapter float32 while it was trained.",
            f"- Configuration sha256 `{provenance.get('config_sha256', 'not noted')}`.",
        ]
    )


def _data(facts: CardFacts, group: str) -> str:
    log = facts.log
    if log is None:
        return "The log that it was trained on is not at hand."
    sources = ", ".join(f"{name} ({n})" for name, n in log.questions_by_source.items())
    return (
        f"A log of {log.num_episodes} dialogues of {log.num_turns} turns about "
        f"{log.num_questions} questions, the gold of {log.num_visible} of them visible; "
        f"{log.by_group.get(group, 0)} utterances are of this group. Questions by source: "
        f"{sources}. Content sha256 `{log.content_sha256}`. `trialign data card` writes the "
        "data's own card."
    )


def _limits(facts: CardFacts) -> str:
    limits = [
        "Truth was measured on the questions named above alone; other subjects, languages and "
        "prompts were not asked.",
        "A group is a prompt here. Nothing shows how real members of a group are served; a person "
        "should never be sorted into a group without being asked.",
        "Style adherence is the share of answers that keep the pack's checkable rules, not what "
        "users think of them.",
    ]
    if facts.evaluation is None:
        limits.insert(0, f"The adapter is {NOT_EVALUATED}.")
    if facts.guard is not None and facts.guard.get("passed") is False:
        limits.insert(0, "The run's own guard did not pass: do not deploy it unexamined.")
    if facts.config.behaviour.base == "truthworld":
        limits.append(
            "The base is a tiny embedded language model that shows the mechanism; it is no "
            "evidence about real social groups or large models."
        )
    return "\n".join(f"- {line}" for line in limits)
