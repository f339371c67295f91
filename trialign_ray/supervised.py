"""Supervised fitting on dialogues: TruthWorld's facts base and behaviour model.

Plain torch; `actors/supervised_trainer.py` runs it data-parallel under Ray Train.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from envs.types import Message
from trialign_ray.language_model import answer_ids, chat_text, text_ids
from trialign_ray.supervised_settings import SupervisedSettings

IGNORED = -100


def encode_dialogue(
    tokenizer: Any, messages: Sequence[Message], num_learned: int
) -> tuple[list[int], list[int]]:
    """Token ids of a chat, and the labels of its last `num_learned` assistant messages."""
    spoken = [i for i, m in enumerate(messages) if m["role"] == "assistant"][-num_learned:]
    ids: list[int] = []
    labels: list[int] = []
    for i in spoken:
        prefix = text_ids(tokenizer, chat_text(tokenizer, messages[:i]))
        answer = answer_ids(tokenizer, messages[i]["content"])
        labels += [IGNORED] * (len(prefix) - len(ids)) + answer
        ids = [*prefix, *answer]
    return ids, labels


def pad_rows(rows: Sequence[tuple[list[int], list[int]]], pad_id: int) -> tuple[Tensor, Tensor]:
    """Rows padded on the right: ids and labels, both (B, L)."""
    length = max(len(ids) for ids, _ in rows)
    ids_BL = torch.full((len(rows), length), pad_id)
    labels_BL = torch.full((len(rows), length), IGNORED)
    for b, (ids, labels) in enumerate(rows):
        ids_BL[b, : len(ids)] = torch.tensor(ids)
        labels_BL[b, : len(labels)] = torch.tensor(labels)
    return ids_BL, labels_BL


def supervised_loss(model: Any, ids_BL: Tensor, labels_BL: Tensor) -> Tensor:
    """Mean cross-entropy over labelled tokens; logits are computed at these alone."""
    hidden = model.get_decoder()(input_ids=ids_BL).last_hidden_state[:, :-1]
    targets = labels_BL[:, 1:]
    labelled = targets != IGNORED
    logits = model.get_output_embeddings()(hidden[labelled])
    return nn.functional.cross_entropy(logits, targets[labelled])


def shuffled_batches(num_rows: int, batch_size: int, epochs: float, seed: int) -> list[list[int]]:
    """Indices of batches for `epochs` passes, shuffled anew for each pass and laid end to end.

    Not sorted by length: a group's style decides its length, and batches of one group train badly.
    """
    generator = torch.Generator().manual_seed(seed)
    size = min(batch_size, num_rows)
    num_batches = max(1, math.ceil(num_rows * epochs / size))
    order: list[int] = []
    while len(order) < num_batches * size:
        order += torch.randperm(num_rows, generator=generator).tolist()
    return [order[i * size : (i + 1) * size] for i in range(num_batches)]


def fit_supervised(
    model: Any,
    rows: Sequence[tuple[list[int], list[int]]],
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
    batches = shuffled_batches(len(rows), settings.batch_size, settings.epochs, settings.seed)
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
