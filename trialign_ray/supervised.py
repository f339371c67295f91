"""Supervised fitting on dialogues: TruthWorld's facts base and behaviour model.

Plain torch; `actors/supervised_trainer.py` runs it data-parallel under Ray Train.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from envs.types import Message
from trialign_ray.language_model import answer_ids, chat_text, text_ids
from trialign_ray.supervised_settings import SupervisedSettings

IGNORED = -100


@dataclass(frozen=True)
class DialogueRow:
    """Token ids of a chat, labels (IGNORED where nothing is learned), and its kind: the number of
    its messages."""

    ids: list[int]
    labels: list[int]
    kind: int


def encode_dialogue(tokenizer: Any, messages: Sequence[Message], num_learned: int) -> DialogueRow:
    """A chat of which the last `num_learned` assistant messages are learned."""
    spoken = [i for i, m in enumerate(messages) if m["role"] == "assistant"][-num_learned:]
    ids: list[int] = []
    labels: list[int] = []
    for i in spoken:
        prefix = text_ids(tokenizer, chat_text(tokenizer, messages[:i]))
        answer = answer_ids(tokenizer, messages[i]["content"])
        labels += [IGNORED] * (len(prefix) - len(ids)) + answer
        ids = [*prefix, *answer]
    return DialogueRow(ids, labels, len(messages))


def pad_rows(rows: Sequence[DialogueRow], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows padded on the right: ids and labels, both (B, L)."""
    length = max(len(row.ids) for row in rows)
    ids_BL = torch.full((len(rows), length), pad_id)
    labels_BL = torch.full((len(rows), length), IGNORED)
    for b, row in enumerate(rows):
        ids_BL[b, : len(row.ids)] = torch.tensor(row.ids)
        labels_BL[b, : len(row.labels)] = torch.tensor(row.labels)
    return ids_BL, labels_BL


def supervised_loss(model: Any, ids_BL: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean cross-entropy over labelled tokens; logits are computed at these alone."""
    hidden = model.get_decoder()(input_ids=ids_BL).last_hidden_state[:, :-1]
    targets = labels_BL[:, 1:]
    labelled = targets != IGNORED
    logits = model.get_output_embeddings()(hidden[labelled])
    return nn.functional.cross_entropy(logits, targets[labelled])


def shuffled_batches(
    kinds: Sequence[int], batch_size: int, epochs: float, seed: int
) -> list[list[int]]:
    """Indices of batches for `epochs` passes, each shuffled anew; a batch holds rows of one kind.

    The kind is the number of messages: rows of one kind are of like length, which saves padding.
    Sorting by length itself would not do: a group's style decides its length, and batches of one
    group train badly.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, len(kinds))
    num_batches = max(1, math.ceil(len(kinds) * epochs / size))
    waiting: dict[int, list[int]] = {kind: [] for kind in kinds}
    batches: list[list[int]] = []
    while len(batches) < num_batches:
        fresh = []
        for i in torch.randperm(len(kinds), generator=generator).tolist():
            row = waiting[kinds[i]]
            row.append(i)
            if len(row) == size:
                fresh.append(list(row))
                row.clear()
        batches += [fresh[i] for i in torch.randperm(len(fresh), generator=generator).tolist()]
    return batches[:num_batches]


def fit_supervised(
    model: Any,
    rows: Sequence[DialogueRow],
    pad_id: int,
    settings: SupervisedSettings,
    rank: int = 0,
    world_size: int = 1,
    average_gradients: Callable[[nn.Module], None] | None = None,
    on_step: Callable[[int, int, float], None] | None = None,
) -> float:
    """Fits all weights in place; returns the loss of the last update.

    Every worker draws the same shuffled batches and takes its own slice of each, so the result does
    not depend on who holds which file.
    Args: average_gradients: called before each update when there are several workers.
    on_step: called with (step, number of steps, loss).
    """
    kinds = [row.kind for row in rows]
    batches = shuffled_batches(kinds, settings.batch_size, settings.epochs, settings.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=settings.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=settings.weight_decay,
    )
    model.train().requires_grad_(True)
    loss_value, steps = math.nan, len(batches)
    for step, chosen in enumerate(batches):
        ids_BL, labels_BL = pad_rows([rows[i] for i in chosen[rank::world_size]], pad_id)
        rate = min((step + 1) / settings.warmup_steps, 1.0) * max(0.02, 1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate
        loss = supervised_loss(model, ids_BL, labels_BL)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if average_gradients is not None:
            average_gradients(model)
        nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        loss_value = float(loss.detach())
        if on_step is not None:
            on_step(step, steps, loss_value)
    model.eval().requires_grad_(False)
    return loss_value
