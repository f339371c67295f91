"""Stage 5, clone: a group's LoRA learns its share of the central solution.

    L_g = E_x l(pi_g; x) + kappa KL(pi_g || pi_ref)

with l by `extraction` (default: cloning, - sum_k q_k mean_t log pi). The KL is taken over the
candidates of a question, from the reference log-probabilities that were stored with the data: no
reference model runs during training. One adapter may also serve several groups (`sharing`): then a
batch holds as many rows of each, and their losses are mixed by `GroupMixer`.

Shapes: B questions of a batch, K candidates, G groups that share the adapter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trialign_ray.adapters import adapter_tensors, set_adapter_tensors
from trialign_ray.checkpoint import Checkpoint
from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import DataError
from trialign_ray.extraction import CandidateBatch, extraction_by_name
from trialign_ray.group_mixer import GroupMixer
from trialign_ray.ops.policy_losses import candidate_kl
from trialign_ray.seeds import derive_seed
from trialign_ray.tree_batch import Tree, candidate_logprobs, model_limits, pack_trees

WARMUP_STEPS = 10
MAX_GRAD_NORM = 1.0
REFERENCE_TOLERANCE = 0.05
"""Nats between stored and fresh log-probability of a candidate, of a token of it where the base is
in half precision; float noise is far below it."""


@dataclass(frozen=True)
class CloneRow:
    """One question of one group: tree of candidates and, for each, target q, log-probability under
    the reference, share mu in the log, return (NaN: not known) and MODPO's second objective."""

    group: str
    tree: Tree
    target_K: tuple[float, ...]
    reference_logprob_K: tuple[float, ...]
    prior_K: tuple[float, ...]
    value_K: tuple[float, ...]
    margin_K: tuple[float, ...]


def candidate_batch(model: Any, rows: Sequence[CloneRow], pad_id: int) -> CandidateBatch:
    """The rows as tensors, with fresh log-probabilities under `model` (differentiable)."""
    batch = pack_trees([r.tree for r in rows], pad_id, model_limits(model).max_length)
    logprob_BK, length_BK = candidate_logprobs(model, batch)
    return CandidateBatch(
        logprob_BK=logprob_BK,
        length_BK=length_BK,
        target_BK=_padded([r.target_K for r in rows], 0.0),
        reference_BK=_padded([r.reference_logprob_K for r in rows], 0.0),
        prior_BK=_padded([r.prior_K for r in rows], 0.0),
        value_BK=_padded([r.value_K for r in rows], math.nan),
        margin_BK=_padded([r.margin_K for r in rows], 0.0),
        mask_BK=length_BK > 0,
    )


def candidate_policy(log_ratio_BK: Tensor, prior_BK: Tensor, mask_BK: Tensor) -> Tensor:
    """What pi answers among the candidates: mu pi / pi_ref, normalised, shape (B, K)."""
    logit = torch.where(mask_BK, prior_BK, 1.0).log() + log_ratio_BK
    return torch.where(mask_BK, logit, -math.inf).softmax(-1)


class CloneTrainer:
    """Updates one adapter. A step is a function of (seed, step): a replay changes nothing."""

    def __init__(
        self,
        model: Any,
        pad_id: int,
        rows: Sequence[CloneRow],
        config: CloneConfig,
        seed: int,
        mixer: GroupMixer | None = None,
    ):
        if not rows:
            raise DataError("this group has no training rows; see `trialign data check`")
        self._model, self._pad_id, self._config, self._seed = model, pad_id, config, seed
        self._rows_by_group: dict[str, list[CloneRow]] = {}
        for row in rows:
            self._rows_by_group.setdefault(row.group, []).append(row)
        self._mixer = mixer or GroupMixer("pooled", tuple(self._rows_by_group))
        self._extraction = extraction_by_name(config.extraction)
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=0.0
        )
        self.step = 0
        self.losses: list[float] = []

    def require_reference(self) -> None:
        """Raises: DataError if the model at the start is not the stored reference."""
        rows = [row for rows in self._rows_by_group.values() for row in rows[:4]]
        with torch.no_grad():
            batch = candidate_batch(self._model, rows, self._pad_id)
        dtypes = {p.dtype for p in self._model.parameters()}
        half = bool(dtypes & {torch.bfloat16, torch.float16})
        unit_BK = batch.length_BK.clamp_min(1) if half else torch.ones_like(batch.length_BK)
        worst = float((batch.log_ratio_BK.abs() / unit_BK).max())
        if not worst <= REFERENCE_TOLERANCE:
            raise DataError(
                f"stored reference log-probabilities differ by {worst:.3g} nats from those of the "
                "model that is to be trained: they belong to another model; delete the run's "
                "critic/ and targets/ folders and run again"
            )

    def step_once(self) -> float:
        """One update; returns its loss."""
        rows = self._batch_rows(self.step)
        self._model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * self._rate(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng():  # a base with dropout draws the same masks on a replay
            torch.manual_seed(derive_seed(self._seed, "step", self.step))
            loss = self._loss(rows)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
        self._optimizer.step()
        self._model.eval()
        self.step += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def _loss(self, rows: Sequence[CloneRow]) -> Tensor:
        batch = candidate_batch(self._model, rows, self._pad_id)
        loss_B = self._extraction(batch, self._config)
        if self._config.kl_weight > 0:
            kl_B = candidate_kl(batch.logprob_BK, batch.reference_BK, batch.mask_BK)
            loss_B = loss_B + self._config.kl_weight * kl_B
        return self._mixer.mix(loss_B, batch, [r.group for r in rows])

    def _rate(self, step: int) -> float:
        decay = 0.5 * (1 + math.cos(math.pi * step / self._config.steps))
        return min((step + 1) / WARMUP_STEPS, 1.0) * max(0.02, decay)

    def _batch_rows(self, step: int) -> list[CloneRow]:
        """The rows of update `step`, as many of each group: the data cursor is a function of the
        step alone."""
        return [
            rows[i]
            for rows in self._rows_by_group.values()
            for i in batch_indices(len(rows), self._config.batch_size, step, self._seed)
        ]

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        """Adapter, AdamW moments, losses so far, group weights, and `identity` of run and data."""
        tensors = {f"adapter.{k}": v for k, v in adapter_tensors(self._model).items()}
        for i, parameter in enumerate(self._parameters):
            for name, value in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{i}.{name}"] = value.detach().clone()
        state = {**identity, "losses": self.losses, "mixer": self._mixer.state()}
        return Checkpoint(self.step, tensors, state)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continues from a checkpoint exactly where it was written."""
        prefix = "adapter."
        set_adapter_tensors(
            self._model,
            {k[len(prefix) :]: v for k, v in checkpoint.tensors.items() if k.startswith(prefix)},
        )
        for key, value in checkpoint.tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".")
                parameter = self._parameters[int(index)]
                moved = value if name == "step" else value.to(parameter.device)
                self._optimizer.state[parameter][name] = moved.clone()
        self.step = checkpoint.step
        self.losses = list(checkpoint.state["losses"])
        self._mixer.restore(checkpoint.state["mixer"])


def batch_indices(num_rows: int, batch_size: int, step: int, seed: int) -> list[int]:
    """Rows of batch `step`: shuffled passes over the data, laid end to end; it never ends."""
    size = min(batch_size, num_rows)
    wanted = range(step * size, (step + 1) * size)
    orders: dict[int, list[int]] = {}
    for epoch in {i // num_rows for i in wanted}:
        generator = torch.Generator().manual_seed((seed + epoch) % 2**63)
        orders[epoch] = torch.randperm(num_rows, generator=generator).tolist()
    return [orders[i // num_rows][i % num_rows] for i in wanted]


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
