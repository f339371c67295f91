"""What engines have in common: seeds of sampled utterances, and their text."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from trialign_ray.chat_template import end_ids
from trialign_ray.seeds import derive_seed


def prompt_seeds(prompts: Sequence[Any], seed: int) -> list[int]:
    """A seed of 31 bits for each prompt, so that an answer does not depend on what else is asked,
    or in which order. A prompt that is asked again has another seed."""
    seen: Counter[str] = Counter()
    seeds = []
    for prompt in map(str, prompts):
        seeds.append(derive_seed(seed, prompt, seen[prompt]) >> 32)
        seen[prompt] += 1
    return seeds


def spoken_text(tokenizer: Any, token_ids: Sequence[int]) -> str:
    """The text of an utterance without the token that ended it."""
    ended = len(token_ids) > 0 and token_ids[-1] in end_ids(tokenizer)
    spoken = list(token_ids[:-1] if ended else token_ids)
    return tokenizer.decode(spoken, skip_special_tokens=True)
