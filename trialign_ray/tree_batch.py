"""Tree batches: all candidates of a prompt in one sequence.

    [padding] prompt | c_1 | c_2 | .. | c_K | [padding]

Each candidate sees the prompt and itself, its positions restart after the prompt, so every
log-probability equals that of the separate row prompt + c_k. The prompt is computed once.

Shapes: B prompts, K candidates (padded to the most of the batch), L tokens of the packed row, N
candidate tokens (padded likewise).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trialign_ray.errors import DataError


@dataclass(frozen=True)
class Tree:
    """One prompt and its candidates, as token ids."""

    prompt: Sequence[int]
    candidates: Sequence[Sequence[int]]


@dataclass(frozen=True)
class TreeBatch:
    """Packed trees. Token n of a row is predicted at kept position `source_BN`."""

    input_ids_BL: Tensor
    position_ids_BL: Tensor
    mask_B1LL: Tensor
    prompt_length: int
    source_BN: Tensor
    target_BN: Tensor
    candidate_BN: Tensor
    num_candidates: int


def pack_trees(trees: Sequence[Tree], pad_id: int, max_length: int) -> TreeBatch:
    """Packs trees, prompts aligned at their end.

    Args: max_length: most positions of prompt + one candidate that the model takes.
    Raises: DataError naming a prompt or candidate that is empty or too long; nothing is truncated.
    """
    for i, tree in enumerate(trees):
        longest = max((len(c) for c in tree.candidates), default=0)
        if not tree.prompt or not longest or not all(tree.candidates):
            raise DataError(f"tree {i} of the batch has an empty prompt or an empty candidate")
        if len(tree.prompt) + longest > max_length:
            raise DataError(
                f"prompt of {len(tree.prompt)} and answer of {longest} tokens exceed the model's "
                f"{max_length} positions; shorten them or use a model with a longer context"
            )
    prompt_length = max(len(t.prompt) for t in trees)
    num_tokens = max(sum(map(len, t.candidates)) for t in trees)
    batch, length = len(trees), prompt_length + num_tokens
    ids = torch.full((batch, length), pad_id)
    positions = torch.zeros(batch, length, dtype=torch.long)
    segment = torch.full((batch, length), -1)
    source = torch.zeros(batch, num_tokens, dtype=torch.long)
    target, candidate = torch.zeros_like(source), torch.full_like(source, -1)
    for b, tree in enumerate(trees):
        start = prompt_length - len(tree.prompt)
        ids[b, start:prompt_length] = torch.tensor(tree.prompt)
        positions[b, start:prompt_length] = torch.arange(len(tree.prompt))
        segment[b, start:prompt_length] = 0
        cursor = 0
        for k, tokens in enumerate(tree.candidates):
            end = cursor + len(tokens)
            place = slice(prompt_length + cursor, prompt_length + end)
            ids[b, place] = torch.tensor(tokens)
            positions[b, place] = len(tree.prompt) + torch.arange(len(tokens))
            segment[b, place] = k + 1
            source[b, cursor:end] = torch.arange(cursor, end)
            source[b, cursor] = 0
            target[b, cursor:end] = torch.tensor(tokens)
            candidate[b, cursor:end] = k
            cursor = end
    return TreeBatch(
        input_ids_BL=ids,
        position_ids_BL=positions,
        mask_B1LL=_tree_mask(segment),
        prompt_length=prompt_length,
        source_BN=source,
        target_BN=target,
        candidate_BN=candidate,
        num_candidates=max(len(t.candidates) for t in trees),
    )


def _tree_mask(segment_BL: Tensor) -> Tensor:
    """True where a query may look: earlier tokens of its own segment or of the prompt (0).

    Padding (-1) looks at itself alone, so that no row of the softmax is empty.
    """
    query, key = segment_BL.unsqueeze(-1), segment_BL.unsqueeze(-2)
    length = segment_BL.shape[-1]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    visible = causal & (key >= 0) & ((key == 0) | (key == query)) & (query >= 0)
    return (visible | torch.eye(length, dtype=torch.bool)).unsqueeze(1)


def candidate_logprobs(model: Any, batch: TreeBatch) -> tuple[Tensor, Tensor]:
    """Sum of token log-probabilities of every candidate, and its number of tokens, both (B, K).

    Logits are computed from the prompt's last token on only. Differentiable in the model.
    """
    kept = torch.arange(batch.prompt_length - 1, batch.input_ids_BL.shape[1])
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    bias = torch.zeros(batch.mask_B1LL.shape, dtype=dtype)
    bias.masked_fill_(~batch.mask_B1LL, torch.finfo(dtype).min)
    logits = model(
        input_ids=batch.input_ids_BL,
        attention_mask=bias,
        position_ids=batch.position_ids_BL,
        logits_to_keep=kept,
        use_cache=False,
    ).logits
    rows = torch.arange(len(logits)).unsqueeze(-1)
    token_logits = logits[rows, batch.source_BN].float()
    chosen = token_logits.gather(-1, batch.target_BN.unsqueeze(-1)).squeeze(-1)
    logprob_BN = chosen - torch.logsumexp(token_logits, -1)
    valid = batch.candidate_BN >= 0
    index = batch.candidate_BN.clamp_min(0)
    zeros = logprob_BN.new_zeros(len(logits), batch.num_candidates)
    total = zeros.scatter_add(1, index, torch.where(valid, logprob_BN, 0.0))
    return total, zeros.scatter_add(1, index, valid.to(zeros.dtype))


def separate_logprobs(model: Any, trees: Sequence[Tree]) -> list[list[Tensor]]:
    """The same sums of log-probabilities, one plain row per candidate: slow and easy to check."""
    results = []
    for tree in trees:
        row = []
        for tokens in tree.candidates:
            ids = torch.tensor([[*tree.prompt, *tokens]])
            logits = model(input_ids=ids, use_cache=False).logits[0, len(tree.prompt) - 1 : -1]
            logprob = logits.float().log_softmax(-1)
            row.append(logprob.gather(-1, torch.tensor(tokens).unsqueeze(-1)).sum())
        results.append(row)
    return results
