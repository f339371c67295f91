"""The vLLM engine: many prompts and several adapters in one batch, in this process.

What it says and how likely it finds it equal the transformers engine's, up to rounding.
"""

import gc
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from trialign_ray.checkpoint import file_sha256
from trialign_ray.config_models import EngineConfig, ModelConfig
from trialign_ray.engines import CandidateScore, Decoding, Generation, Utterance
from trialign_ray.engines.utterances import prompt_seeds, spoken_text
from trialign_ray.engines.vllm_arguments import (
    engine_arguments,
    linear_modules,
    lora_arguments,
    sampling_arguments,
)
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.language_model import answer_ids, load_tokenizer, text_ids
from trialign_ray.model_limits import ModelLimits

WEIGHTS = "adapter_model.safetensors"
_SETTINGS = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}
"""What vLLM reads from the environment alone: no process of its own, threads where the system puts
them, nothing sent to its makers, no log line for every step of its start."""


@dataclass(frozen=True)
class Call:
    """Prompts that one adapter (None: the base alone) answers."""

    prompts: Sequence[str]
    decoding: Decoding
    adapter: str | None = None


class VLLMEngine:
    """One base model with the adapters that requests may name.

    Args: folder: a Hugging Face model. adapters: name -> PEFT folder, which may be written after
    the engine has started: it is read when it is asked for, and again when its weights have
    changed. max_lora_rank: the largest rank among them.
    Raises: ConfigError if vLLM is missing or cannot load the model.
    """

    def __init__(
        self,
        folder: Path,
        adapters: Mapping[str, Path],
        options: EngineConfig,
        model: ModelConfig | None = None,
        max_lora_rank: int = 0,
    ):
        model = model or ModelConfig()
        self._adapters = dict(adapters)
        self._adapter_ids: dict[tuple[str, str], int] = {}
        self._tokenizer = load_tokenizer(folder, model)
        arguments = engine_arguments(options, model)
        self._modules: tuple[str, ...] = ()
        if adapters:
            self._modules = linear_modules(folder, model)
            arguments |= lora_arguments(len(adapters), max_lora_rank, self._modules)
        self._llm: Any = _start(folder, arguments)
        if options.gpus == 0:
            _require_head_size(folder, self._llm.llm_engine.model_config.get_head_size())
        self._limits = ModelLimits(self._llm.llm_engine.model_config.max_model_len)

    def generate(
        self, prompts: Sequence[str], decoding: Decoding, adapter: str | None = None
    ) -> list[Generation]:
        """Utterances in the order of `prompts`. A sampled one depends on the seed and its prompt,
        not on what else is asked. vLLM forms the batches: `decoding.batch_size` is not used.

        Raises: DataError if a prompt with the longest answer allowed exceeds the model's limit, or
        if the adapter is not there.
        """
        return self.generate_calls([Call(prompts, decoding, adapter)])[0]

    def generate_calls(self, calls: Sequence[Call]) -> list[list[Generation]]:
        """Utterances of every call. All calls with an adapter are one batch, all without another:
        vLLM's CPU kernels apply some adapter to a request without one that is batched with them.
        """
        with_adapter = [i for i, call in enumerate(calls) if call.adapter is not None]
        without = [i for i, call in enumerate(calls) if call.adapter is None]
        said: dict[int, list[Generation]] = {}
        for chosen in (with_adapter, without):
            said.update(zip(chosen, self._batch([calls[i] for i in chosen]), strict=True))
        return [said[i] for i in range(len(calls))]

    def _batch(self, calls: Sequence[Call]) -> list[list[Generation]]:
        requests, parameters, adapters = [], [], []
        for call in calls:
            lora = self._lora_request(call.adapter)
            seeds = prompt_seeds(call.prompts, call.decoding.seed)
            for prompt, seed in zip(call.prompts, seeds, strict=True):
                ids = text_ids(self._tokenizer, prompt)
                self._limits.require_length(len(ids), call.decoding.max_new_tokens, "up to ")
                requests.append({"prompt_token_ids": ids})
                parameters.append(sampling_arguments(call.decoding, seed, self._tokenizer))
                adapters.append(lora)
        outputs = iter(self._ask(requests, parameters, adapters))
        return [[self._utterance(next(outputs)) for _ in call.prompts] for call in calls]

    def score(
        self,
        prompts: Sequence[str],
        candidates: Sequence[Sequence[Utterance]],
        adapter: str | None = None,
    ) -> list[list[CandidateScore]]:
        """Log-probability of every candidate after its prompt, a request each; the prompt is
        computed anew for each, where the transformers engine shares it.

        Raises: DataError as `generate`; vLLM needs room for one token more than what is scored.
        """
        lora = self._lora_request(adapter)
        requests, lengths = [], []
        for prompt, own in zip(prompts, candidates, strict=True):
            head = text_ids(self._tokenizer, prompt)
            for utterance in own:
                tail = list(self._utterance_ids(utterance))
                self._limits.require_length(len(head), len(tail) + 1)
                requests.append({"prompt_token_ids": [*head, *tail]})
                lengths.append(len(tail))
        parameters = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0}
        outputs = self._ask(requests, [parameters] * len(requests), [lora] * len(requests))
        scores = iter([_score(o, n) for o, n in zip(outputs, lengths, strict=True)])
        return [[next(scores) for _ in own] for own in candidates]

    def close(self) -> None:
        """Frees the model; the engine answers no more."""
        if self._llm is None:
            return
        self._llm.llm_engine.engine_core.shutdown()
        self._llm = None
        gc.collect()
        import_module("vllm.distributed.parallel_state").cleanup_dist_env_and_memory()

    def _ask(
        self, requests: list[Any], parameters: list[dict[str, Any]], adapters: list[Any]
    ) -> list[Any]:
        if self._llm is None:
            raise ConfigError("this engine has been closed; start another")
        if not requests:
            return []
        sampling = import_module("vllm").SamplingParams
        told = [sampling(**p) for p in parameters]
        return self._llm.generate(requests, told, lora_request=adapters, use_tqdm=False)

    def _utterance(self, output: Any) -> Generation:
        said = output.outputs[0]
        ids = tuple(said.token_ids)
        logprob = sum(at[i].logprob for at, i in zip(said.logprobs, ids, strict=True))
        text = spoken_text(self._tokenizer, ids)
        return Generation(text, ids, logprob, said.finish_reason == "length")

    def _utterance_ids(self, utterance: Utterance) -> Sequence[int]:
        return answer_ids(self._tokenizer, utterance) if isinstance(utterance, str) else utterance

    def _lora_request(self, adapter: str | None) -> Any:
        """vLLM keeps adapters by number: other weights need another one."""
        if adapter is None:
            return None
        if adapter not in self._adapters:
            known = ", ".join(sorted(self._adapters)) or "none"
            raise ConfigError(f"the engine has no adapter {adapter!r}; it has: {known}")
        folder = self._adapters[adapter]
        if not (folder / WEIGHTS).is_file():
            raise DataError(f"{folder / WEIGHTS} is missing; finish the training, then export it")
        self._require_modules(folder)
        key = (adapter, file_sha256(folder / WEIGHTS))
        number = self._adapter_ids.setdefault(key, len(self._adapter_ids) + 1)
        request = import_module("vllm.lora.request").LoRARequest
        return request(f"{adapter}#{number}", number, str(folder))

    def _require_modules(self, folder: Path) -> None:
        """vLLM would leave out what it was not built for."""
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        names = {str(name).rpartition(".")[-1] for name in config["target_modules"]}
        if other := sorted(names - set(self._modules)):
            raise DataError(
                f"adapter {folder} adapts {', '.join(other)}, which vLLM cannot serve; it can "
                f"{', '.join(self._modules)}; set engine.kind=transformers"
            )


def _start(folder: Path, arguments: dict[str, Any]) -> Any:
    """vLLM's LLM. The random state and the number of threads of this process stay as they are."""
    set_num_threads = torch.set_num_threads
    with _environment(_SETTINGS), torch.random.fork_rng():
        llm_class = _llm_class()
        try:
            return llm_class(str(folder), **arguments)
        except (ValueError, RuntimeError, OSError) as error:
            raise ConfigError(
                f"vLLM cannot load {folder}: {error}; change what the message names, or set "
                "engine.kind=transformers"
            ) from error
        finally:
            torch.set_num_threads = set_num_threads  # vLLM's CPU worker replaces it


def _require_head_size(folder: Path, size: int) -> None:
    """vLLM itself would notice at the first prompt only."""
    backend = import_module("vllm.v1.attention.backends.cpu_attn").CPUAttentionBackend
    if not backend.supports_head_size(size):
        sizes = ", ".join(map(str, backend.get_supported_head_sizes()))
        raise ConfigError(
            f"vLLM cannot run {folder} on a CPU: its attention heads have {size} dimensions, its "
            f"CPU kernels take {sizes}; set engine.kind=transformers"
        )


def _llm_class() -> Any:
    try:
        return import_module("vllm").LLM
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise ConfigError(
            f"vLLM cannot be imported ({error}); install it with `pip install "
            "'trialign-ray[vllm]'` on a machine with a GPU, by the script .ci/vllm-env on one "
            "without, or set engine.kind=transformers"
        ) from error


@contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    """Settings for a while, where the user has not made them."""
    added = {k: v for k, v in settings.items() if k not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def _score(output: Any, length: int) -> CandidateScore:
    ids, logprobs = output.prompt_token_ids[-length:], output.prompt_logprobs[-length:]
    total = sum(at[i].logprob for at, i in zip(logprobs, ids, strict=True))
    return CandidateScore(total, length)
