"""Four random adapters of the shipped base, and what the transformers engine says under each."""

from collections.abc import Sequence
from pathlib import Path

import torch

from envs.prompts import opening_messages
from trialign_ray.adapters import add_adapter, export_adapter, load_adapter
from trialign_ray.config_sections import CloneConfig
from trialign_ray.engines import CandidateScore, Decoding, Generation, Utterance
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.language_model import chat_text, load_language_model, load_tokenizer
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.tiny_lm import shipped_world

GROUPS = tuple(group.name for group in shipped_world()[1][:4])
NUM_QUESTIONS = 60
GREEDY = Decoding(0.0, 24, 64)
SAMPLED = Decoding(1.0, 24, 64, seed=5)


def write_adapter(folder: Path, seed: int, rank: int = 8) -> Path:
    """An adapter that changes what the base says, though not into noise."""
    base = load_language_model(SHIPPED_BASE)
    model = add_adapter(base, CloneConfig(lora_rank=rank), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.04, generator=generator)
    export_adapter(model, base, folder, {"seed": seed})
    return folder


def write_adapters(folder: Path) -> dict[str, Path]:
    return {group: write_adapter(folder / group, seed) for seed, group in enumerate(GROUPS)}


def group_prompts(num: int = NUM_QUESTIONS) -> dict[str, list[str]]:
    """The same questions under every group's prompt."""
    questions, groups = shipped_world()
    tokenizer = load_tokenizer(SHIPPED_BASE)
    step = len(questions) // num
    return {
        g.name: [
            chat_text(tokenizer, opening_messages(q.text, "explicit", g))
            for q in questions[::step][:num]
        ]
        for g in groups[:4]
    }


class Reference:
    """The transformers engine, loaded anew for each adapter."""

    def __init__(self, adapters: dict[str, Path]):
        self._adapters = adapters

    def _engine(self, adapter: str | None) -> TransformersEngine:
        base = load_language_model(SHIPPED_BASE)
        model = base.model if adapter is None else load_adapter(base, self._adapters[adapter])
        return TransformersEngine(model, base.tokenizer)

    def generate(
        self, prompts: Sequence[str], decoding: Decoding, adapter: str | None = None
    ) -> list[Generation]:
        return self._engine(adapter).generate(prompts, decoding)

    def score(
        self,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[Utterance]],
        adapter: str | None = None,
    ) -> list[list[CandidateScore]]:
        return self._engine(adapter).score(prompts, candidates)


def num_different(said: Sequence[Generation], expected: Sequence[Generation]) -> int:
    """How many utterances differ, token by token, or in how they ended."""
    pairs = zip(said, expected, strict=True)
    return sum(
        (s.token_ids, s.text, s.truncated) != (e.token_ids, e.text, e.truncated) for s, e in pairs
    )


def largest_distance(said: Sequence[Generation], expected: Sequence[Generation]) -> float:
    """Of log-probabilities, in nats."""
    return max(abs(s.logprob - e.logprob) for s, e in zip(said, expected, strict=True))
