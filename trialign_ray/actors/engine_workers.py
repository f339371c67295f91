"""Workers whose utterances come from an engine of their own: vLLM with all groups' adapters, an
endpoint, or Ray Data. Everything else stays with the groups' agents.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from trialign_ray.actors.workers import Workers
from trialign_ray.engines import Decoding, Generation

GroupCalls = Mapping[str, tuple[list[str], Decoding]]
"""Prompts and decoding by group."""
TRAINING_VERBS = ("clone", "clone_common")


class GenerationHost(Protocol):
    """Who generates for `EngineWorkers`.

    collection_only: it samples the log, and evaluation is left to the groups' agents: a host that
    has no adapters must not answer for the model before while agents answer for the one after.
    """

    collection_only: bool

    def serves(self, model: str) -> bool:
        """Whether it generates for "behaviour", "facts_base" or "aligned"."""
        ...

    def generate(self, model: str, calls: GroupCalls) -> dict[str, list[Generation]]:
        """Utterances of one model, by group."""
        ...

    def close(self) -> None:
        """Frees what was started; the next call starts it again."""
        ...


class EngineWorkers:
    """`workers`, but for the verb "generate" of the models that the host serves."""

    def __init__(self, workers: Workers, host: GenerationHost):
        self.groups = workers.groups
        self._workers, self._host = workers, host

    def on_groups(self, verb: str, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        """As `Workers.on_groups`. Before adapters are trained the engine makes room for that."""
        if verb in TRAINING_VERBS:
            self._host.close()
        if verb != "generate":
            return self._workers.on_groups(verb, arguments)
        results: dict[str, Any] = {}
        for model in dict.fromkeys(args[0] for args in arguments.values()):
            own = {g: args for g, args in arguments.items() if args[0] == model}
            if self._host.serves(model) and (not self._host.collection_only or _sampled(own)):
                calls = {g: (list(prompts), decoding) for g, (_, prompts, decoding) in own.items()}
                results |= self._host.generate(model, calls)
            else:
                results |= self._workers.on_groups(verb, own)
        return {group: results[group] for group in arguments}

    def on_critic(self, verb: str, *arguments: Any) -> Any:
        return self._workers.on_critic(verb, *arguments)

    def actor_ids(self) -> dict[str, str]:
        """Ray's ids of the groups' and the critic's actors; none without Ray."""
        ids = getattr(self._workers, "actor_ids", None)
        return ids() if ids is not None else {}

    def close(self) -> None:
        try:
            self._host.close()
        finally:
            self._workers.close()


def _sampled(arguments: Mapping[str, tuple[Any, ...]]) -> bool:
    """Whether this is collection, which always samples; evaluation is greedy."""
    return all(decoding.temperature > 0 for _, _, decoding in arguments.values())
