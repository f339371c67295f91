"""Candidates as separate rows, for models that cannot be given a tree's mask.

    prompt | c_k | [padding]

Rows are padded on the right: what comes after a row's end is never seen by a causal model, whatever
its layers and positions.

Shapes: B prompts, K candidates (padded to the most of the batch), R rows, L tokens of a row.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trialign_ray.tree_batch import Tree

ROWS_PER_FORWARD = 64


def row_logprobs(model: Any, trees: Sequence["Tree"], pad_id: int) -> tuple[Tensor, Tensor]:
    """Sum of token log-probabilities of every candidate, and its number of tokens, both (B, K).

    Both lie on the CPU. Differentiable in the model.
    """
    places = [(b, k) for b, tree in enumerate(trees) for k in range(len(tree.candidates))]
    sums = torch.cat(
        [
            _row_sums(model, [_row(trees[b], k) for b, k in chunk], pad_id)
            for chunk in _chunks(places, ROWS_PER_FORWARD)
        ]
    )
    b_R, k_R = torch.tensor(places).unbind(-1)
    zeros = sums.new_zeros(len(trees), max(k_R.tolist()) + 1)
    lengths = torch.tensor([len(trees[b].candidates[k]) for b, k in places]).to(sums)
    return zeros.index_put((b_R, k_R), sums), zeros.index_put((b_R, k_R), lengths)


def _row(tree: "Tree", k: int) -> tuple[Sequence[int], Sequence[int]]:
    return tree.prompt, tree.candidates[k]


def _chunks(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _row_sums(
    model: Any, rows: Sequence[tuple[Sequence[int], Sequence[int]]], pad_id: int
) -> Tensor:
    """Sums of log-probabilities of the rows' answers, shape (R), on the CPU."""
    device = model.get_input_embeddings().weight.device
    length = max(len(p) + len(a) for p, a in rows)
    ids_RL = torch.full((len(rows), length), pad_id)
    real_RL, answer_RL = torch.zeros_like(ids_RL), torch.zeros_like(ids_RL, dtype=torch.bool)
    for r, (prompt, answer) in enumerate(rows):
        end = len(prompt) + len(answer)
        ids_RL[r, :end] = torch.tensor([*prompt, *answer])
        real_RL[r, :end] = 1
        answer_RL[r, len(prompt) : end] = True
    first = min(len(p) for p, _ in rows) - 1
    kept = {}
    if _keeps_logits(model):
        kept["logits_to_keep"] = length - first
    ids_RL = ids_RL.to(device)
    logits = model(input_ids=ids_RL, attention_mask=real_RL.to(device), use_cache=False, **kept)
    token_logits = logits.logits[:, first - length : -1].float()
    chosen = token_logits.gather(-1, ids_RL[:, first + 1 :].unsqueeze(-1)).squeeze(-1)
    logprob = (chosen - torch.logsumexp(token_logits, -1)).cpu()
    return torch.where(answer_RL[:, first + 1 :], logprob, 0.0).sum(-1)


def _keeps_logits(model: Any) -> bool:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return "logits_to_keep" in inspect.signature(inner.forward).parameters
