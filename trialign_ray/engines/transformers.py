"""The transformers engine: batched generation and tree-batched scores, in this process."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from trialign_ray.engines import CandidateScore, Decoding, Generation, Utterance
from trialign_ray.language_model import answer_ids, end_ids, text_ids
from trialign_ray.tree_batch import Tree, candidate_logprobs, model_limits, pack_trees

TREES_PER_BATCH = 32
LOGITS_PER_BATCH = 2**28
"""Logits of one scoring pass, about: 1 GiB in float32. Large vocabularies get smaller batches."""


class TransformersEngine:
    """`model` is a causal LM, with or without an adapter."""

    def __init__(self, model: Any, tokenizer: Any):
        self._model = model
        self._tokenizer = tokenizer
        self._end_ids = end_ids(tokenizer)

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], decoding: Decoding) -> list[Generation]:
        """Utterances in the order of `prompts`; batches hold prompts of like length.

        Raises: DataError if a prompt with the longest answer allowed exceeds the model's limit.
        """
        encoded = [text_ids(self._tokenizer, p) for p in prompts]
        limits = model_limits(self._model)
        for ids in encoded:
            limits.require_length(len(ids), decoding.max_new_tokens, "up to ")
        order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
        results: dict[int, Generation] = {}
        with torch.random.fork_rng():
            torch.manual_seed(decoding.seed)
            for start in range(0, len(order), decoding.batch_size):
                chosen = order[start : start + decoding.batch_size]
                generated = self._generate_batch([encoded[i] for i in chosen], decoding)
                results.update(zip(chosen, generated, strict=True))
        return [results[i] for i in range(len(prompts))]

    def _generate_batch(self, rows: list[list[int]], decoding: Decoding) -> list[Generation]:
        """Prompts are padded on the left here, whatever side the tokenizer pads on."""
        length = max(map(len, rows))
        ids_BL = torch.full((len(rows), length), self._tokenizer.pad_token_id)
        mask_BL = torch.zeros_like(ids_BL)
        for b, row in enumerate(rows):
            ids_BL[b, length - len(row) :] = torch.tensor(row, dtype=torch.long)
            mask_BL[b, length - len(row) :] = 1
        sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if decoding.temperature > 0:
            sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
        recorder = _ChosenLogprobs()
        device = self._model.get_input_embeddings().weight.device
        output_BL = self._model.generate(
            input_ids=ids_BL.to(device),
            attention_mask=mask_BL.to(device),
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=list(self._end_ids),
            logits_processor=LogitsProcessorList([recorder]),
            **sampling,
        )
        tokens_BT = output_BL[:, length:]
        logprob_BT = recorder.of(tokens_BT)
        return [
            self._utterance(tokens, logprobs)
            for tokens, logprobs in zip(tokens_BT.tolist(), logprob_BT.tolist(), strict=True)
        ]

    def _utterance(self, tokens: list[int], logprobs: list[float]) -> Generation:
        """Up to the first end token, whichever it is: that token is scored, not the usual one."""
        ends = [i for i, token in enumerate(tokens) if token in self._end_ids]
        length = ends[0] + 1 if ends else len(tokens)
        spoken = tokens[: ends[0]] if ends else tokens
        text = self._tokenizer.decode(spoken, skip_special_tokens=True)
        return Generation(text, tuple(tokens[:length]), sum(logprobs[:length]), not ends)

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[str], candidates: Sequence[Sequence[Utterance]]
    ) -> list[list[CandidateScore]]:
        """Log-probability of every candidate after its prompt; rows may differ in their number.

        Raises: DataError if a prompt with a candidate exceeds the model's limit.
        """
        trees = [
            Tree(text_ids(self._tokenizer, p), [self._utterance_ids(c) for c in cs])
            for p, cs in zip(prompts, candidates, strict=True)
        ]
        scores: list[list[CandidateScore]] = []
        limit = model_limits(self._model).max_length
        for chosen in _batches(trees, self._model.config.get_text_config().vocab_size):
            batch = pack_trees(chosen, self._tokenizer.pad_token_id, limit)
            logprob_BK, length_BK = candidate_logprobs(self._model, batch)
            for b, tree in enumerate(chosen):
                scores.append(
                    [
                        CandidateScore(float(logprob_BK[b, k]), int(length_BK[b, k]))
                        for k in range(len(tree.candidates))
                    ]
                )
        return scores

    def _utterance_ids(self, utterance: Utterance) -> Sequence[int]:
        return answer_ids(self._tokenizer, utterance) if isinstance(utterance, str) else utterance


def _batches(trees: Sequence[Tree], vocab_size: int) -> list[list[Tree]]:
    """Trees in their order, so many at once that their logits fit LOGITS_PER_BATCH."""
    batches: list[list[Tree]] = []
    widest = 0
    for tree in trees:
        tokens = sum(map(len, tree.candidates))
        num = len(batches[-1]) if batches else TREES_PER_BATCH
        too_wide = (num + 1) * max(widest, tokens) * vocab_size > LOGITS_PER_BATCH
        if num == TREES_PER_BATCH or too_wide:
            batches.append([])
            widest = 0
        batches[-1].append(tree)
        widest = max(widest, tokens)
    return batches


class _ChosenLogprobs(LogitsProcessor):
    """Log-probabilities at temperature 1 of what was said, one step's logits in memory at a time:
    it sees a step's logits before temperature does, and what was chosen one step later."""

    def __init__(self) -> None:
        self._logits_BV: Tensor | None = None
        self._logprob_TB: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._logits_BV is not None:
            self._record(input_ids[:, -1])
        self._logits_BV = scores.float()
        return scores

    def of(self, tokens_BT: Tensor) -> Tensor:
        """Log-probabilities of all tokens said, shape (B, T)."""
        self._record(tokens_BT[:, -1])
        return torch.stack(self._logprob_TB, 1)

    def _record(self, token_B: Tensor) -> None:
        assert self._logits_BV is not None, "generation calls the processor at every step"
        chosen_B = self._logits_BV.gather(-1, token_B.unsqueeze(-1)).squeeze(-1)
        self._logprob_TB.append((chosen_B - self._logits_BV.logsumexp(-1)).cpu())
