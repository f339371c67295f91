"""A language model as a judge of how well an answer suits a group's user.

Every answer is rated twice, with the scale shown in either order, and the mean counts. A reply that
is no verdict is never a reward: it is counted, asked again, and at last left out.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from typing import NamedTuple

from envs.chat_endpoint import ChatEndpoint, EndpointFailure
from envs.errors import WorkerError
from envs.judge_prompt import (
    HIGHEST,
    LOWEST,
    ORDERS,
    GarbledReply,
    Order,
    Verdict,
    judge_messages,
    new_nonce,
    parse_verdict,
)
from envs.preferences import ToScore
from envs.types import Message, Question
from envs.verdict_cache import VerdictCache, verdict_key

logger = logging.getLogger(__name__)

NUM_ATTEMPTS = 3
"""How often a verdict is asked for, each time with another fence, until the reply is one."""
MAX_FAILURE_SHARE = 0.05
"""Of the verdicts asked for, this share may be missing (or one); more is an error."""
_ANY_NONCE = "0" * 32


@dataclass(frozen=True)
class JudgeReport:
    """What the judge was asked and what it cost. `usd` is None where the price is not known."""

    url: str
    model: str
    num_asked: int = 0
    num_from_cache: int = 0
    num_garbled: int = 0
    num_failed: int = 0
    num_retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    usd: float | None = None


@dataclass(frozen=True)
class JudgeTerms:
    """The question, the haste and the price."""

    rubric: str
    concurrency: int
    usd_per_million_prompt_tokens: float = 0.0
    usd_per_million_completion_tokens: float = 0.0


class _Case(NamedTuple):
    context: tuple[Message, ...]
    text: str
    order: Order


class LLMJudge:
    """Args: context_of: what the group's model saw when it was asked the question."""

    def __init__(
        self,
        endpoint: ChatEndpoint,
        cache: VerdictCache,
        terms: JudgeTerms,
        context_of: Callable[[str, Question], Sequence[Message]],
    ):
        self._endpoint, self._cache, self._terms = endpoint, cache, terms
        self._context_of = context_of
        self._known: dict[str, int | None] = {}
        self._counts = JudgeReport(endpoint.spec.url, endpoint.spec.model)
        self._lock = threading.Lock()

    def score(self, group: str, question: Question, text: str, answer: str) -> float | None:
        """The mean verdict of both orders of the scale, in [0, 1]; None if one of them failed.

        Raises: WorkerError if too many verdicts failed.
        """
        self.prepare([(group, question, text, answer)])
        verdicts = [self._known[self._key(c)] for c in self._cases(group, question, text)]
        if any(v is None for v in verdicts):
            return None
        mean = sum(v for v in verdicts if v is not None) / len(verdicts)
        return (mean - LOWEST) / (HIGHEST - LOWEST)

    def prepare(self, items: Sequence[ToScore]) -> None:
        """Asks for all verdicts that are not known yet, several at once.

        Raises: WorkerError if too many failed. Those that came are in the cache.
        """
        cases = {self._key(c): c for g, q, text, _ in items for c in self._cases(g, q, text)}
        wanted = {key: case for key, case in cases.items() if key not in self._known}
        for key in list(wanted):
            if (score := self._cache.get(key)) is not None:
                self._known[key] = score
                self._count(num_from_cache=1)
                del wanted[key]
        if wanted:
            self._count(num_asked=len(wanted))
            self._ask_all(wanted)

    def report(self) -> JudgeReport:
        """Counts so far, with the cost if prices are known."""
        prompt = self._terms.usd_per_million_prompt_tokens
        completion = self._terms.usd_per_million_completion_tokens
        with self._lock:
            counts = self._counts
        if not prompt and not completion:
            return counts
        cost = prompt * counts.prompt_tokens + completion * counts.completion_tokens
        return replace(counts, usd=cost / 1e6)

    def _cases(self, group: str, question: Question, text: str) -> list[_Case]:
        context = tuple(self._context_of(group, question))
        return [_Case(context, text, order) for order in ORDERS]

    def _key(self, case: _Case) -> str:
        """Of the prompt with a fixed fence: the fence is drawn anew for every request."""
        messages = judge_messages(
            self._terms.rubric, case.order, case.context, case.text, _ANY_NONCE
        )
        return verdict_key(self._endpoint.spec.url, self._endpoint.spec.model, messages)

    def _ask_all(self, wanted: dict[str, _Case]) -> None:
        pool = ThreadPoolExecutor(min(self._terms.concurrency, len(wanted)), "judge")
        try:
            running = {pool.submit(self._ask, key, case): key for key, case in wanted.items()}
            for future in as_completed(running):
                score, problem = future.result()
                self._known[running[future]] = score
                if score is None:
                    self._give_up(problem)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _ask(self, key: str, case: _Case) -> tuple[int | None, str]:
        """The score, or None and what went wrong."""
        problem = ""
        for _ in range(NUM_ATTEMPTS):
            nonce = new_nonce([case.text, *(m["content"] for m in case.context)])
            messages = judge_messages(
                self._terms.rubric, case.order, case.context, case.text, nonce
            )
            try:
                reply = self._endpoint.complete(messages, Verdict.model_json_schema())
                self._count(
                    num_retries=reply.num_retries,
                    prompt_tokens=reply.prompt_tokens,
                    completion_tokens=reply.completion_tokens,
                )
                score = parse_verdict(reply.text)
                self._cache.put(key, score)
                return score, ""
            except GarbledReply as error:
                problem = f"the reply is no verdict: {error}"
                self._count(num_garbled=1)
            except EndpointFailure as error:
                return None, str(error)
        return None, problem

    def _give_up(self, problem: str) -> None:
        self._count(num_failed=1)
        counts = self._counts
        logger.warning("judge %s: no verdict (%s); left out of the rewards", counts.model, problem)
        if counts.num_failed > max(1.0, MAX_FAILURE_SHARE * counts.num_asked):
            raise WorkerError(
                f"judge {counts.model} at {counts.url}: {counts.num_failed} of {counts.num_asked} "
                f"verdicts failed, more than {MAX_FAILURE_SHARE:.0%}; the last: {problem}. Those "
                f"that came are kept in {self._cache.path}: see to the endpoint or take a model "
                "that keeps to the schema, then run again"
            )

    def _count(self, **more: int) -> None:
        with self._lock:
            now = self._counts
            self._counts = replace(now, **{k: getattr(now, k) + v for k, v in more.items()})
