"""Tree batches: all candidates of a prompt in one sequence.

    [padding] prompt | c_1 | c_2 | .. | c_K | [padding]

Each candidate sees the prompt and itself, its positions restart after the prompt, so every
log-probability equals that of the separate row prompt + c_k. The prompt is computed once.

A model that cannot be given this mask (recurrent layers, attention biased by distance) or for which
the mask would be too wide (a sliding window shorter than prompt + c_k) gets one row per candidate,
padded on the right. Which it is, is read off the configuration and tried on a small tree, once per
loaded model.

Shapes: B prompts, K candidates (padded to the most of the batch), L tokens of the packed row, N
candidate tokens (padded likewise).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from trialign_ray.errors import DataError
from trialign_ray.model_limits import ModelLimits, config_limits
from trialign_ray.separate_rows import row_logprobs

logger = logging.getLogger(__name__)
LIMITS = "trialign_limits"
"""Attribute of a loaded model that holds its `ModelLimits`; PEFT's wrappers pass it through."""


@dataclass(frozen=True)
class Tree:
    """One prompt and its candidates, as token ids."""

    prompt: Sequence[int]
    candidates: Sequence[Sequence[int]]

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest candidate."""
        return len(self.prompt) + max(map(len, self.candidates))


@dataclass(frozen=True)
class TreeBatch:
    """Packed trees. Token n of a row is predicted at kept position `source_BN`."""

    trees: Sequence[Tree]
    pad_id: int
    input_ids_BL: Tensor
    position_ids_BL: Tensor
    mask_B1LL: Tensor
    prompt_length: int
    source_BN: Tensor
    target_BN: Tensor
    candidate_BN: Tensor
    num_candidates: int


def pack_trees(trees: Sequence[Tree], pad_id: int, max_length: int | None) -> TreeBatch:
    """Packs trees, prompts aligned at their end.

    Args: max_length: most positions of prompt + one candidate that the model takes.
    Raises: DataError naming a prompt or candidate that is empty or too long; nothing is truncated.
    """
    limits = ModelLimits(max_length)
    for i, tree in enumerate(trees):
        longest = max((len(c) for c in tree.candidates), default=0)
        if not tree.prompt or not longest or not all(tree.candidates):
            raise DataError(f"tree {i} of the batch has an empty prompt or an empty candidate")
        limits.require_length(len(tree.prompt), longest)
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
        trees=trees,
        pad_id=pad_id,
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

    Both lie on the CPU, wherever the model is. Differentiable in the model.
    Raises: DataError if a prompt with its candidate is longer than the model takes.
    """
    limits = model_limits(model)
    for tree in batch.trees:
        limits.require_length(len(tree.prompt), tree.longest - len(tree.prompt))
    if limits.takes_tree([tree.longest for tree in batch.trees]):
        return tree_logprobs(model, batch)
    return row_logprobs(model, batch.trees, batch.pad_id)


def tree_logprobs(model: Any, batch: TreeBatch) -> tuple[Tensor, Tensor]:
    """`candidate_logprobs` by one packed row per tree.

    Logits are computed from the prompt's last token on only.
    """
    weight = model.get_input_embeddings().weight
    device, dtype = weight.device, weight.dtype
    kept = torch.arange(batch.prompt_length - 1, batch.input_ids_BL.shape[1], device=device)
    bias = torch.zeros(batch.mask_B1LL.shape, dtype=dtype)
    bias.masked_fill_(~batch.mask_B1LL, torch.finfo(dtype).min)
    logits = model(
        input_ids=batch.input_ids_BL.to(device),
        attention_mask=bias.to(device),
        position_ids=batch.position_ids_BL.to(device),
        logits_to_keep=kept,
        use_cache=False,
    ).logits
    rows = torch.arange(len(logits), device=device).unsqueeze(-1)
    token_logits = logits[rows, batch.source_BN.to(device)].float()
    chosen = token_logits.gather(-1, batch.target_BN.to(device).unsqueeze(-1)).squeeze(-1)
    logprob_BN = (chosen - torch.logsumexp(token_logits, -1)).cpu()
    valid = batch.candidate_BN >= 0
    index = batch.candidate_BN.clamp_min(0)
    zeros = logprob_BN.new_zeros(len(logits), batch.num_candidates)
    total = zeros.scatter_add(1, index, torch.where(valid, logprob_BN, 0.0))
    return total, zeros.scatter_add(1, index, valid.to(zeros.dtype))


def model_limits(model: Any, max_length: int | None = None) -> ModelLimits:
    """The model's limits: by its configuration, and by trying a small tree; kept with the model.

    Args: max_length: the user's own limit, when they are first asked for.
    """
    known = getattr(model, LIMITS, None)
    if known is not None:
        return known
    limits = config_limits(model.config, max_length)
    if not limits.no_trees:
        limits = replace(limits, no_trees=_refuses_trees(model))
    name = type(model).__name__
    if limits.no_trees:
        logger.warning("%s: candidates are separate rows, not trees: %s", name, limits.no_trees)
    elif limits.window is not None:
        logger.warning(
            "%s: prompts with answers of more than %d tokens, its attention window, are separate "
            "rows, not trees",
            name,
            limits.window,
        )
    setattr(model, LIMITS, limits)
    return limits


def _refuses_trees(model: Any) -> str:
    """Why a small tree does not come out as its separate rows do; empty if it does.

    A candidate must not feel which sibling it has, and must score as in a row of its own.
    """
    ids = [(7 * i + 3) % model.config.get_text_config().vocab_size for i in range(13)]
    tree, cousin = Tree(ids[:5], [ids[5:8], ids[8:10]]), Tree(ids[:5], [ids[10:13], ids[8:10]])
    exact = model.get_input_embeddings().weight.dtype == torch.float32
    trains = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            packed, _ = tree_logprobs(model, pack_trees([tree, cousin], 0, None))
            rows, _ = row_logprobs(model, [tree, cousin], 0)
    except (TypeError, ValueError, RuntimeError, IndexError, AttributeError) as error:
        return f"its forward pass refuses them ({type(error).__name__}: {str(error)[:100]})"
    finally:
        for module in trains:
            module.training = True
    leak, off = float((packed[0, 1] - packed[1, 1]).abs()), float((packed - rows).abs().max())
    if not leak <= (1e-4 if exact else 1e-3):
        return f"a candidate sees its siblings (they move it by {leak:.1g} nats)"
    if not off <= (1e-3 if exact else 0.25):
        return f"log-probabilities are off by {off:.1g} nats"
    return ""


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
