"""The sections of the configuration about models and engines. Defaults suit the quickstart."""

from typing import Literal

from pydantic import Field, field_validator

from envs.endpoint_url import checked_url
from trialign_ray.config_sections import Section


class ModelConfig(Section):
    """How base and behaviour model are loaded, wherever they come from."""

    revision: str | None = None
    """Commit, tag or branch of a model of the Hub; a run notes the commit. None: its newest."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the frozen weights. auto: as they were saved. Adapters are trained in float32."""
    chat_template: str | None = None
    """Jinja file of a chat template, for a tokenizer that has none. None: the tokenizer's own."""
    max_length: int | None = Field(default=None, ge=8)
    """Most tokens of prompt and answer; what is longer is an error, never cut. None: the model's
    own limit."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    trust_remote_code: bool = False
    """Run Python code that comes with a model of the Hub. Only for code that you have read."""


class EngineConfig(Section):
    """What generates in collection and evaluation. Adapters are always trained by transformers."""

    kind: Literal["transformers", "vllm", "server", "ray_data"] = "transformers"
    """transformers: in every group's actor. vllm: one engine with all adapters, in an actor of its
    own. server: an OpenAI-compatible endpoint at `url` that serves the behaviour model. ray_data:
    Ray Data with vLLM, replicated over the cluster. The last two collect; evaluation, which needs
    the adapters, is then left to the groups' actors."""
    url: str | None = None
    """Of the endpoint, up to /v1, e.g. http://localhost:8000/v1."""
    model: str | None = None
    """Name under which the endpoint knows the model. None: the only one that it lists."""
    api_key_env: str = "OPENAI_API_KEY"
    """Environment variable with the endpoint's key. The key itself stands in no configuration."""
    concurrency: int = Field(default=16, ge=1)
    """Requests under way at once at an endpoint; replicas of ray_data's engine."""
    timeout_s: float = Field(default=120.0, gt=0)
    """Longest wait for one answer of an endpoint, in seconds."""
    max_retries: int = Field(default=5, ge=0)
    """How often a failed request is made again, with growing pauses."""
    memory_fraction: float = Field(default=0.85, gt=0, le=1)
    """Share of a GPU's memory that vLLM takes; on a CPU its key-value cache takes `cache_gib`."""
    cache_gib: float = Field(default=1.0, gt=0)
    """vLLM's key-value cache on a CPU, in GiB."""
    cpus: float = Field(default=1.0, gt=0)
    """CPUs of vLLM's actor, or of one replica."""
    gpus: float = Field(default=0.0, ge=0)
    """GPUs of vLLM's actor, or of one replica."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        variable = "that engine.api_key_env names (OPENAI_API_KEY)"
        return url if url is None else checked_url(url, "engine.url", variable)
