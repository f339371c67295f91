"""One OpenAI-compatible endpoint: short chat completions with retries, counted by token.

The client is the `openai` library's. It repeats a request on 408, 409, 429, 5xx, timeouts and lost
connections, with growing pauses and jitter, or after the pause that the server asks for.
"""

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from envs.endpoint_url import checked_url
from envs.errors import ConfigError, WorkerError
from envs.types import Message

START_TIMEOUT_S = 5.0
"""How long an endpoint may take to answer at all before a run starts."""
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Completion:
    """A reply, and what it cost."""

    text: str
    prompt_tokens: int
    completion_tokens: int
    num_retries: int


@dataclass(frozen=True)
class EndpointSpec:
    """Where an endpoint is, which model is asked, and how patiently. The key stays outside."""

    url: str
    model: str
    api_key_env: str
    timeout_s: float
    max_retries: int
    max_completion_tokens: int


class EndpointFailure(Exception):
    """A request failed for good, after all retries; other requests may still succeed."""


class ChatEndpoint:
    """Raises: ConfigError for a bad URL, an unset key or a missing library."""

    def __init__(self, spec: EndpointSpec):
        self.spec = spec
        self._key = _api_key(spec)
        self._client = _client(spec, self._key)
        self._plain = False
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raises, within seconds: WorkerError if the endpoint does not answer or fails; ConfigError
        if it refuses the key or lists other models only."""
        import openai

        quick = self._client.with_options(timeout=START_TIMEOUT_S, max_retries=0)
        try:
            listed = {model.id for model in quick.models.list().data or ()}
        except (openai.APIConnectionError, openai.InternalServerError) as error:
            raise WorkerError(self._refused(error)) from error
        except (openai.AuthenticationError, openai.PermissionDeniedError) as error:
            raise ConfigError(self._refused(error)) from error
        except (openai.OpenAIError, AttributeError, TypeError, ValueError):
            return  # it answers, but lists no models: the first request will tell
        if listed and self.spec.model not in listed:
            raise ConfigError(
                f"the endpoint {self.spec.url} has no model {self.spec.model!r}; it lists "
                f"{', '.join(sorted(listed)[:20])}"
            )

    def complete(self, messages: Sequence[Message], schema: dict[str, Any]) -> Completion:
        """The reply at temperature 0, with the JSON schema asked for where the endpoint knows how.

        Raises: EndpointFailure after all retries. ConfigError if key or model is refused.
        """
        import openai

        try:
            return self._request(messages, {} if self._plain else _strict(schema))
        except (openai.BadRequestError, openai.UnprocessableEntityError) as error:
            if self._plain:
                raise EndpointFailure(self._clean(error)) from error
        except openai.OpenAIError as error:
            raise self._failure(error) from error
        try:  # without what not every endpoint knows: a schema, a temperature
            completion = self._request(messages, {})
        except openai.OpenAIError as error:
            raise self._failure(error) from error
        with self._lock:
            self._plain = True
        return completion

    def _request(self, messages: Sequence[Message], options: dict[str, Any]) -> Completion:
        import openai

        raw = self._client.chat.completions.with_raw_response.create(
            model=self.spec.model,
            messages=[dict(m) for m in messages],  # pyright: ignore[reportArgumentType]
            max_completion_tokens=self.spec.max_completion_tokens,
            **options,
        )
        try:
            reply = raw.parse()
            text, usage = reply.choices[0].message.content or "", reply.usage
        except (openai.OpenAIError, AttributeError, IndexError, TypeError, ValueError):
            return Completion("", 0, 0, raw.retries_taken)  # no chat completion: says nothing
        return Completion(
            text=text,
            prompt_tokens=usage.prompt_tokens if usage else 0,
            completion_tokens=usage.completion_tokens if usage else 0,
            num_retries=raw.retries_taken,
        )

    def _failure(self, error: Exception) -> Exception:
        import openai

        refused = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
        if isinstance(error, refused):
            return ConfigError(self._refused(error))
        return EndpointFailure(self._clean(error))

    def _refused(self, error: Exception) -> str:
        return (
            f"the endpoint {self.spec.url} cannot be used for model {self.spec.model!r}: "
            f"{self._clean(error)}; start it, or correct url, model or the key in the environment "
            f"variable {self.spec.api_key_env}"
        )

    def _clean(self, error: Exception) -> str:
        """What went wrong, without the key."""
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        return f"{type(error).__name__}: {error}{cause}".replace(self._key, "***")[:300]


def _strict(schema: dict[str, Any]) -> dict[str, Any]:
    wrapped = {"name": "verdict", "strict": True, "schema": schema}
    return {
        "temperature": 0,
        "response_format": {"type": "json_schema", "json_schema": wrapped},
    }


def _api_key(spec: EndpointSpec) -> str:
    checked_url(spec.url, "the endpoint's url", spec.api_key_env)
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key and not _is_local(spec):
        raise ConfigError(
            f"the environment variable {spec.api_key_env} is not set, and the endpoint {spec.url} "
            "is not on this machine; set it to the endpoint's key (any word if it needs none)"
        )
    return key or "no-key-needed"


def _is_local(spec: EndpointSpec) -> bool:
    return urlsplit(spec.url).hostname in _LOCAL_HOSTS


def _client(spec: EndpointSpec, key: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise ConfigError(
            "an endpoint is asked by the package openai, which is not installed; "
            "pip install 'trialign-ray[judge]'"
        ) from error
    through_proxy = not _is_local(spec)
    return openai.OpenAI(
        base_url=spec.url,
        api_key=key,
        timeout=spec.timeout_s,
        max_retries=spec.max_retries,
        http_client=openai.DefaultHttpxClient(trust_env=through_proxy),
    )
