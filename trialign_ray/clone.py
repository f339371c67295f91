"""Stage 5, clone: a group's LoRA imitates its share of the central solution.

    L_g = - E_x sum_k q_gxk mean_t log pi_g(a_gxk,t | o_gx, a_gxk,<t) + kappa KL(pi_g || pi_ref)

The KL is taken over the candidates of a question, from the reference log-probabilities that were
stored with the data: no reference model runs during training. Forward projection on the target is
mass-covering, and the absolute likelihood of targets rises.

Shapes: B questions of a batch, K candidates.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trialign_ray.adapters import adapter_tensors, set_adapter_tensors
from trialign_ray.checkpoint import Checkpoint
from trialign_ray.config import CloneConfig
from trialign_ray.errors import DataError
from trialign_ray.seeds import derive_seed
from trialign_ray.tree_batch import Tree, TreeBatch, candidate_logprobs, pack_trees

WARMUP_STEPS = 10
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class CloneRow:
    """One question of one group: tree of candidates, target q and reference log-probabilities."""

    tree: Tree
    target_K: tuple[float, ...]
    reference_logprob_K: tuple[float, ...]


def clone_loss(
    model: Any, batch: TreeBatch, target_BK: Tensor, reference_BK: Tensor, kl_weight: float
) -> Tensor:
    """The weighted cloning loss of a batch, a scalar.

    Args: target_BK: q, rows sum to 1, 0 for padding. reference_BK: sums of log-probabilities under
    the behaviour model, -inf for padding. kl_weight: kappa >= 0.
    """
    logprob_BK, length_BK = candidate_logprobs(model, batch)
    cloning = -(target_BK * logprob_BK / length_BK.clamp_min(1)).sum(-1).mean()
    if kl_weight == 0:
        return cloning
    padding = torch.isinf(reference_BK)
    log_pi = logprob_BK.masked_fill(padding, -math.inf).log_softmax(-1)
    log_ref = reference_BK.log_softmax(-1)
    terms = log_pi.exp() * (log_pi.masked_fill(padding, 0.0) - log_ref.masked_fill(padding, 0.0))
    return cloning + kl_weight * terms.sum(-1).mean()


class CloneTrainer:
    """Updates one adapter. A step is a function of (seed, step): a replay changes nothing."""

    def __init__(
        self, model: Any, pad_id: int, rows: Sequence[CloneRow], config: CloneConfig, seed: int
    ):
        if not rows:
            raise DataError("this group has no training rows; see `trialign data check`")
        self._model, self._pad_id, self._rows, self._config = model, pad_id, rows, config
        self._seed = seed
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._parameters, lr=config.learning_rate, weight_decay=0.0
        )
        self.step = 0
        self.losses: list[float] = []

    def step_once(self) -> float:
        """One update; returns its loss."""
        rows = [self._rows[i] for i in self._batch_indices(self.step)]
        batch = pack_trees(
            [r.tree for r in rows], self._pad_id, self._model.config.max_position_embeddings
        )
        target_BK = _padded([r.target_K for r in rows], 0.0)
        reference_BK = _padded([r.reference_logprob_K for r in rows], -math.inf)
        self._model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = self._config.learning_rate * self._rate(self.step)
        self._optimizer.zero_grad(set_to_none=True)
        with torch.random.fork_rng():  # a base with dropout draws the same masks on a replay
            torch.manual_seed(derive_seed(self._seed, "step", self.step))
            loss = clone_loss(self._model, batch, target_BK, reference_BK, self._config.kl_weight)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRAD_NORM)
        self._optimizer.step()
        self._model.eval()
        self.step += 1
        self.losses.append(float(loss.detach()))
        return self.losses[-1]

    def _rate(self, step: int) -> float:
        decay = 0.5 * (1 + math.cos(math.pi * step / self._config.steps))
        return min((step + 1) / WARMUP_STEPS, 1.0) * max(0.02, decay)

    def _batch_indices(self, step: int) -> list[int]:
        """The rows of update `step`: the data cursor is a function of the step alone.

        Passes over the data are shuffled one by one and laid end to end; the cursor never ends.
        """
        size = min(self._config.batch_size, len(self._rows))
        wanted = range(step * size, (step + 1) * size)
        orders: dict[int, list[int]] = {}
        for epoch in {i // len(self._rows) for i in wanted}:
            generator = torch.Generator().manual_seed((self._seed + epoch) % 2**63)
            orders[epoch] = torch.randperm(len(self._rows), generator=generator).tolist()
        return [orders[i // len(self._rows)][i % len(self._rows)] for i in wanted]

    def checkpoint(self, identity: dict[str, Any]) -> Checkpoint:
        """Adapter, AdamW moments, losses so far, and `identity` of run and data."""
        tensors = {f"adapter.{k}": v for k, v in adapter_tensors(self._model).items()}
        for i, parameter in enumerate(self._parameters):
            for name, value in self._optimizer.state[parameter].items():
                tensors[f"optimizer.{i}.{name}"] = value.detach().clone()
        return Checkpoint(self.step, tensors, {**identity, "losses": self.losses})

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
                self._optimizer.state[self._parameters[int(index)]][name] = value.clone()
        self.step = checkpoint.step
        self.losses = list(checkpoint.state["losses"])


def _padded(rows: Sequence[Sequence[float]], fill: float) -> Tensor:
    width = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (width - len(row))] for row in rows])
