"""The transformers engine: batched generation and tree-batched scores, in this process."""

from collections.abc import Sequence
from typing import Any

import torch

from trialign_ray.engines import CandidateScore, Decoding, Generation, Utterance
from trialign_ray.language_model import answer_ids, text_ids
from trialign_ray.tree_batch import Tree, candidate_logprobs, pack_trees

TREES_PER_BATCH = 32


class TransformersEngine:
    """`model` is a causal LM, with or without an adapter."""

    def __init__(self, model: Any, tokenizer: Any):
        self._model = model
        self._tokenizer = tokenizer

    @torch.inference_mode()
    def generate(self, prompts: Sequence[str], decoding: Decoding) -> list[Generation]:
        """Utterances in the order of `prompts`; batches hold prompts of like length."""
        encoded = [text_ids(self._tokenizer, p) for p in prompts]
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
        padded = self._tokenizer.pad({"input_ids": rows}, return_tensors="pt")
        sampling = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if decoding.temperature > 0:
            sampling = {"do_sample": True, "temperature": decoding.temperature, "top_k": 0}
        output = self._model.generate(
            input_ids=padded["input_ids"],
            attention_mask=padded["attention_mask"],
            max_new_tokens=decoding.max_new_tokens,
            pad_token_id=self._tokenizer.pad_token_id,
            eos_token_id=self._tokenizer.eos_token_id,
            return_dict_in_generate=True,
            output_logits=True,
            **sampling,
        )
        tokens_BT = output.sequences[:, padded["input_ids"].shape[1] :]
        logits_BTV = torch.stack(output.logits, 1).float()
        chosen_BT = logits_BTV.gather(-1, tokens_BT.unsqueeze(-1)).squeeze(-1)
        logprob_BT = chosen_BT - logits_BTV.logsumexp(-1)
        return [
            self._utterance(tokens, logprobs)
            for tokens, logprobs in zip(tokens_BT.tolist(), logprob_BT.tolist(), strict=True)
        ]

    def _utterance(self, tokens: list[int], logprobs: list[float]) -> Generation:
        end = self._tokenizer.eos_token_id
        truncated = end not in tokens
        length = len(tokens) if truncated else tokens.index(end) + 1
        text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
        return Generation(text, tuple(tokens[:length]), sum(logprobs[:length]), truncated)

    @torch.inference_mode()
    def score(
        self, prompts: Sequence[str], candidates: Sequence[Sequence[Utterance]]
    ) -> list[list[CandidateScore]]:
        """Log-probability of every candidate after its prompt; rows may differ in their number."""
        trees = [
            Tree(text_ids(self._tokenizer, p), [self._utterance_ids(c) for c in cs])
            for p, cs in zip(prompts, candidates, strict=True)
        ]
        scores: list[list[CandidateScore]] = []
        for start in range(0, len(trees), TREES_PER_BATCH):
            chosen = trees[start : start + TREES_PER_BATCH]
            batch = pack_trees(
                chosen, self._tokenizer.pad_token_id, self._model.config.max_position_embeddings
            )
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
