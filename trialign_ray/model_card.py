"""A model card for every adapter: what it is, for whom, how well it did, and its limits."""

from typing import Any

from envs.groups import Group
from trialign_ray.adapters import adapter_provenance
from trialign_ray.checkpoint import write_atomically
from trialign_ray.run_directory import RunDirectory


def write_model_cards(
    run: RunDirectory, evaluation: dict[str, Any], groups: tuple[Group, ...]
) -> None:
    """Writes README.md into every adapter's folder."""
    for group in groups:
        folder = run.adapter_dir(group.name)
        card = _card(group, evaluation, adapter_provenance(folder))
        write_atomically(folder / "README.md", card.encode())


def _card(group: Group, evaluation: dict[str, Any], provenance: dict[str, Any]) -> str:
    rows = []
    for name in ("behaviour", "aligned"):
        model = evaluation["models"][name]
        truth, style = model["truth"], next(iter(model["adherence"].values()))
        low, high = truth["ci"]["by_group"][group.name]
        rows.append(
            f"| {name} | {truth['by_group'][group.name]:.3f} [{low:.3f}, {high:.3f}] "
            f"| {style['by_group'][group.name]:.3f} |"
        )
    return f"""---
library_name: peft
tags: [trialign, lora, personalization]
---
# Adapter of group {group.name}

A LoRA adapter that answers in the style of group `{group.name}` ("{group.profile}") and keeps facts
equal to those that every other group of the run is told. Trained by TriAlign
({evaluation["algorithm"]}, seed {evaluation["seed"]}, {provenance["step"]} updates).

| model | truth on held-out questions [interval] | style adherence |
| --- | --- | --- |
{chr(10).join(rows)}

- Base weights (sha256 over safetensors files): `{provenance["base_checksum"]}`. The adapter fits no
  other base.
- Load: `PeftModel.from_pretrained(base, folder)`.
- Limits: {evaluation["num_truth_questions"]} held-out questions of one source; a tiny embedded
  language model shows the mechanism and is no evidence about real social groups or large models.
"""
