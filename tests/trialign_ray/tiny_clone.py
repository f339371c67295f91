"""A trainer on the shipped base and rows of two candidates, small enough to run many times."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from trialign_ray.adapters import add_adapter
from trialign_ray.clone import CloneRow, CloneTrainer
from trialign_ray.config_sections import CloneConfig
from trialign_ray.group_mixer import GroupMixer
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

CONFIG = CloneConfig(steps=8, batch_size=2, lora_rank=4, learning_rate=1e-2, extraction="clone")
STALE = (-5.0, -9.0)
"""No model's log-probabilities."""


def clone_row(i: int, group: str = "a", reference: tuple[float, ...] = STALE) -> CloneRow:
    return CloneRow(
        group=group,
        tree=Tree([2, 30 + i], [[50 + i, 3], [60 + i, 61, 3]]),
        target_K=(0.8, 0.2),
        reference_logprob_K=reference,
        prior_K=(1.5, 0.5),
        value_K=(1.0, 0.25),
        margin_K=(0.0, 0.0),
    )


ROWS = [clone_row(i) for i in range(3)]


def trainer(
    config: CloneConfig = CONFIG,
    rows: Sequence[CloneRow] = ROWS,
    mixer: GroupMixer | None = None,
):
    """Base, adapted model and a trainer at its first step."""
    base = load_language_model(SHIPPED_BASE)
    model = add_adapter(base, config, seed=1)
    learner = CloneTrainer(model, base.tokenizer.pad_token_id, rows, config, seed=2, mixer=mixer)
    return base, model, learner


def referenced(rows: Sequence[CloneRow]) -> list[CloneRow]:
    """The rows with log-probabilities of the shipped base, as the critic stores them."""
    model = load_language_model(SHIPPED_BASE).model
    with torch.no_grad():
        sums, _ = candidate_logprobs(model, pack_trees([r.tree for r in rows], 0, 256))
    pairs = [(float(first), float(second)) for first, second in sums]
    return [replace(r, reference_logprob_K=p) for r, p in zip(rows, pairs, strict=True)]


def fingerprint(model: Any, adapter: bool) -> dict[str, Tensor]:
    """The weights of the adapter, or of all but the adapter, copied."""
    named = [(n, p) for n, p in model.named_parameters() if ("lora_" in n) == adapter]
    return {n: p.detach().clone() for n, p in named}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Bit for bit."""
    return all(torch.equal(one[n], other[n]) for n in one)
