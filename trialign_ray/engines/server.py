"""The server engine: an OpenAI-compatible endpoint, asked by the `openai` client."""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

from envs.types import Message
from trialign_ray.chat_template import TEMPLATE_ARGUMENTS, text_ids
from trialign_ray.config_models import EngineConfig
from trialign_ray.engines import Decoding, Generation
from trialign_ray.engines.utterances import prompt_seeds, spoken_text
from trialign_ray.errors import ConfigError, TrialignError, WorkerError

T = TypeVar("T")
R = TypeVar("R")
_SHOWN = 200
"""So many characters of a wrong answer stand in an error."""


class ServerEngine:
    """The endpoint at `options.url`. Failed requests are made again with growing pauses, at most
    `options.max_retries` times, so every call ends in bounded time.

    Args: tokenizer: of the served model, where there is one: prompts then go out and utterances
    come back as token ids. None: both are text, and a Generation has token ids only from a vLLM.
    Raises: ConfigError without a url, or without the `openai` package.
    """

    def __init__(self, options: EngineConfig, tokenizer: Any = None):
        if not options.url:
            raise ConfigError(
                "engine.kind is server, but engine.url is not set; give the endpoint up to /v1, "
                "e.g. engine.url=http://localhost:8000/v1"
            )
        self._options, self._tokenizer = options, tokenizer
        self._client = _client(options)

    def models(self) -> list[str]:
        """Names of the models that the endpoint lists. Raises: ConfigError, WorkerError."""
        return [m["id"] for m in self._listed]

    def generate(
        self, prompts: Sequence[str], decoding: Decoding, model: str | None = None
    ) -> list[Generation]:
        """Utterances in the order of `prompts`, by /v1/completions. `logprob` is NaN where the
        endpoint tells none; the requests under way at once are `options.concurrency`.

        Raises: ConfigError for an unknown model or a refused request; WorkerError if the endpoint
        is down, too slow, or answers what is no completion.
        """
        name = model or self.default_model
        seeds = prompt_seeds(prompts, decoding.seed)
        return self._all(
            lambda pair: self._complete(name, pair[0], decoding, pair[1]),
            list(zip(prompts, seeds, strict=True)),
        )

    def chat(
        self,
        conversations: Sequence[Sequence[Message]],
        decoding: Decoding,
        model: str | None = None,
    ) -> list[str]:
        """What the model replies to each conversation, in order, by /v1/chat/completions; the
        endpoint applies its chat template. Raises: as `generate`."""
        name = model or self.default_model
        seeds = prompt_seeds([list(c) for c in conversations], decoding.seed)
        return self._all(
            lambda pair: self._reply(name, pair[0], decoding, pair[1]),
            list(zip(conversations, seeds, strict=True)),
        )

    @cached_property
    def default_model(self) -> str:
        """`options.model`, or the only base model that the endpoint lists. Raises: ConfigError."""
        if self._options.model is not None:
            return self._options.model
        bases = [m["id"] for m in self._listed if not m.get("parent")]
        if len(bases) != 1:
            raise ConfigError(
                f"the endpoint {self._options.url} lists {bases or 'no model'}; name one as "
                "engine.model"
            )
        return bases[0]

    @cached_property
    def _listed(self) -> list[dict[str, Any]]:
        page = self._ask(lambda: self._client.models.list(), self._options.model)
        try:
            return [m.model_dump() for m in page.data]
        except (AttributeError, TypeError) as error:
            raise self._garbage(page, "a list of models") from error

    @cached_property
    def _is_vllm(self) -> bool:
        """Whether the endpoint knows vLLM's extensions; one that lists no models does not."""
        try:
            return any(m.get("owned_by") == "vllm" for m in self._listed)
        except ConfigError:
            return False

    def _complete(self, name: str, prompt: str, decoding: Decoding, seed: int) -> Generation:
        answer = self._ask(
            lambda: self._client.completions.create(
                model=name,
                prompt=self._encoded(prompt),
                logprobs=1,
                extra_body=self._extensions(completion=True),
                **_sampling(decoding, seed),
            ),
            name,
        )
        try:
            choice = answer.choices[0]
            said = (choice.model_extra or {}).get("token_ids") or ()
            logprobs = choice.logprobs.token_logprobs if choice.logprobs else None
            logprob = math.fsum(logprobs) if logprobs else math.nan
            text = self._decoded(choice.text, said)
            return Generation(text, tuple(said), logprob, choice.finish_reason == "length")
        except (AttributeError, IndexError, TypeError, ValueError) as error:
            raise self._garbage(answer, "a completion") from error

    def _reply(self, name: str, messages: Sequence[Message], decoding: Decoding, seed: int) -> str:
        answer = self._ask(
            lambda: self._client.chat.completions.create(
                model=name,
                messages=list(messages),
                extra_body=self._extensions(completion=False),
                **_sampling(decoding, seed),
            ),
            name,
        )
        try:
            message = answer.choices[0].message
            text = message.content if message.content is not None else message.refusal
        except (AttributeError, IndexError, TypeError) as error:
            raise self._garbage(answer, "a chat completion") from error
        if text is not None and not isinstance(text, str):
            raise self._garbage(answer, "a chat completion")
        return (text or "").strip()

    def _encoded(self, prompt: str) -> str | list[int]:
        if self._tokenizer is None:
            return prompt
        return text_ids(self._tokenizer, prompt)

    def _decoded(self, text: str, ids: Sequence[int]) -> str:
        if self._tokenizer is not None and ids:
            return spoken_text(self._tokenizer, ids)
        if not isinstance(text, str):
            raise TypeError("no text")
        return text.strip()

    def _extensions(self, completion: bool) -> dict[str, Any]:
        """Whatever the model's generation configuration says, every other knob is neutral."""
        if not self._is_vllm:
            return {}
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        if not completion:
            return neutral | {"chat_template_kwargs": TEMPLATE_ARGUMENTS}
        return neutral | {"return_token_ids": True, "add_special_tokens": False}

    def _all(self, call: Callable[[T], R], items: Sequence[T]) -> list[R]:
        """Results in order. The first failure ends it: what waits is not asked any more."""
        if items:
            self._is_vllm  # noqa: B018 - asked once, before threads ask at the same time
        with ThreadPoolExecutor(max_workers=self._options.concurrency) as pool:
            futures = [pool.submit(call, item) for item in items]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def _ask(self, request: Callable[[], Any], model: str | None) -> Any:
        import openai

        try:
            return request()
        except (openai.OpenAIError, ValueError) as error:
            raise _explained(error, self._options, model) from error

    def _garbage(self, answer: Any, expected: str) -> WorkerError:
        return WorkerError(
            f"the endpoint {self._options.url} answered what is not {expected}: "
            f"{str(answer)[:_SHOWN]!r}; engine.url must end where /v1 does, e.g. "
            "http://localhost:8000/v1"
        )


def _client(options: EngineConfig) -> Any:
    """A client whose key is read from the environment; local endpoints need none."""
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            f"the openai client is missing ({error}); pip install 'trialign-ray[judge]'"
        ) from error
    return openai.OpenAI(
        base_url=options.url,
        api_key=os.environ.get(options.api_key_env) or "none",
        timeout=options.timeout_s,
        max_retries=options.max_retries,
    )


def _sampling(decoding: Decoding, seed: int) -> dict[str, Any]:
    return {
        "temperature": decoding.temperature,
        "max_tokens": decoding.max_new_tokens,
        "top_p": 1.0,
        "seed": seed,
    }


def _explained(error: Exception, options: EngineConfig, model: str | None) -> TrialignError:
    """The client's error as one of ours. What an endpoint says of a key is not repeated."""
    import openai

    at = f"the endpoint {options.url}"
    if isinstance(error, openai.APITimeoutError):
        return WorkerError(
            f"{at} did not answer within {options.timeout_s:g} s, {options.max_retries + 1} times; "
            "raise engine.timeout_s or lower engine.concurrency"
        )
    if isinstance(error, openai.APIConnectionError):
        return WorkerError(
            f"{at} cannot be reached ({error.__cause__ or error}); start it, e.g. with `trialign "
            "serve`, or correct engine.url"
        )
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        return ConfigError(
            f"{at} refuses the key in the environment variable {options.api_key_env} "
            f"(HTTP {error.status_code}); set it, or name another as engine.api_key_env"
        )
    if isinstance(error, openai.NotFoundError):
        return ConfigError(
            f"{at} knows no such path or no model {model!r} ({_said(error)}); set engine.model to "
            "a name that GET /models lists, and engine.url up to /v1"
        )
    if isinstance(error, openai.APIStatusError) and error.status_code < 500:
        return ConfigError(f"{at} refused a request for model {model!r}: {_said(error)}")
    if isinstance(error, openai.APIStatusError):
        return WorkerError(f"{at} failed {options.max_retries + 1} times: {_said(error)}")
    return WorkerError(f"{at} answered what is no JSON of its protocol: {_said(error)}")


def _said(error: Exception) -> str:
    body = getattr(error, "body", None)
    return str(f"{error} {body}" if isinstance(body, str) else error)[:_SHOWN]
