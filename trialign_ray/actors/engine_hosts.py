"""Who generates for a run: vLLM in this process or in an actor, or an endpoint."""

import logging
import math
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from trialign_ray.actors.engine_workers import GenerationHost, GroupCalls
from trialign_ray.config_models import EngineConfig, ModelConfig
from trialign_ray.engines import Generation
from trialign_ray.errors import ConfigError, TrialignError, WorkerError

logger = logging.getLogger(__name__)
MAX_STARTS = 3
"""How often an engine's actor is started for one call before the run gives up."""


@dataclass(frozen=True)
class EngineSpec:
    """models: "behaviour" and "facts_base" -> folder. adapters: group -> folder of its exported
    adapter; training_file notes their checksums. timeout_s: longest wait for one call, the start of
    the engine included."""

    run_name: str
    models: Mapping[str, str]
    adapters: Mapping[str, str]
    training_file: str
    options: EngineConfig
    model: ModelConfig
    max_lora_rank: int
    timeout_s: float


class VLLMService:
    """vLLM on one base model, loaded when it is first asked: what goes wrong is then an answer. A
    plain class: made a Ray actor below, or called directly."""

    def __init__(self, folder: str, spec: EngineSpec):
        self._folder, self._spec = folder, spec

    def __repr__(self) -> str:
        return f"VLLMService(run={self._spec.run_name})"

    def generate(self, aligned: bool, calls: GroupCalls) -> dict[str, list[Generation]]:
        """Utterances by group: of each one's exported adapter, or of the base."""
        from trialign_ray.engines.vllm import Call

        if aligned:
            self._require_exported(list(calls))
        asked = [Call(p, d, group if aligned else None) for group, (p, d) in calls.items()]
        return dict(zip(calls, self._engine.generate_calls(asked), strict=True))

    @cached_property
    def _engine(self) -> Any:
        from trialign_ray.engines.vllm import VLLMEngine

        spec = self._spec
        adapted = self._folder == spec.models["behaviour"]
        adapters = {g: Path(a) for g, a in spec.adapters.items()} if adapted else {}
        rank = spec.max_lora_rank if adapted else 0
        return VLLMEngine(Path(self._folder), adapters, spec.options, spec.model, rank)

    def pid(self) -> int:
        """Of the process in which it runs."""
        return os.getpid()

    def close(self) -> None:
        """Frees the model."""
        if "_engine" in self.__dict__:
            self._engine.close()

    def _require_exported(self, groups: list[str]) -> None:
        """What is evaluated is what was exported."""
        from trialign_ray.group_adapter import recorded, require_exported

        training = recorded(Path(self._spec.training_file), "the adapters of this run")
        for group in groups:
            require_exported(Path(self._spec.adapters[group]), training["adapter_sha256"][group])


class _OneBaseAtATime:
    """What hosts of vLLM share: the engine of one folder runs, another takes its place."""

    collection_only = False

    def __init__(self, spec: EngineSpec):
        self._spec = spec
        self._folder: str | None = None

    def serves(self, model: str) -> bool:
        return model in ("behaviour", "facts_base", "aligned")

    def _folder_of(self, model: str) -> str:
        return self._spec.models["behaviour" if model == "aligned" else model]


class LocalVLLM(_OneBaseAtATime):
    """vLLM in this process."""

    _service: VLLMService | None = None

    def generate(self, model: str, calls: GroupCalls) -> dict[str, list[Generation]]:
        folder = self._folder_of(model)
        if self._service is None or folder != self._folder:
            self.close()
            self._service, self._folder = VLLMService(folder, self._spec), folder
        return self._service.generate(model == "aligned", calls)

    def close(self) -> None:
        if self._service is not None:
            self._service.close()
            self._service = None


class RayVLLM(_OneBaseAtATime):
    """vLLM in an actor `trialign/<run>/engine-<random>`. Nothing is lost with it: one that died is
    started again and asked again."""

    _actor: Any = None

    def generate(self, model: str, calls: GroupCalls) -> dict[str, list[Generation]]:
        """Raises: the engine's own TrialignError; WorkerError if it dies again and again or does
        not answer within `timeout_s`."""
        import ray
        from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

        deadline = time.monotonic() + self._spec.timeout_s
        for start in range(1, MAX_STARTS + 1):
            actor = self._started(self._folder_of(model))
            try:
                answer = actor.generate.remote(model == "aligned", dict(calls))
                return ray.get(answer, timeout=max(0.0, deadline - time.monotonic()))
            except GetTimeoutError as error:
                self.close()
                raise WorkerError(self._message("did not answer in time")) from error
            except RayTaskError as error:
                if isinstance(error.cause, TrialignError):
                    raise error.cause from error
                raise WorkerError(self._message(f"failed: {error.cause!r}")) from error
            except RayActorError as error:
                self.close()
                if start == MAX_STARTS:
                    raise WorkerError(self._message(f"died: {error}")) from error
                logger.warning("the engine died; it is started and asked again")
        raise AssertionError("the last start returns or raises")

    def close(self) -> None:
        if self._actor is not None:
            import ray

            ray.kill(self._actor, no_restart=True)
            self._actor = None

    def _started(self, folder: str) -> Any:
        if self._actor is not None and folder == self._folder:
            return self._actor
        import ray

        self.close()
        options = self._spec.options
        threads = str(max(1, int(options.cpus)))
        own = secrets.token_hex(3)  # the name of an actor that was killed is not free at once
        self._actor = (
            ray.remote(VLLMService)
            .options(
                name=f"trialign/{self._spec.run_name}/engine-{own}",
                num_cpus=options.cpus,
                num_gpus=options.gpus,
                runtime_env={"env_vars": {"OMP_NUM_THREADS": threads}},
            )
            .remote(folder, self._spec)
        )
        self._folder = folder
        return self._actor

    def _message(self, problem: str) -> str:
        options = self._spec.options
        return (
            f"vLLM of run {self._spec.run_name} on {self._folder} {problem} (limit "
            f"{self._spec.timeout_s:g} s; it asks for {options.cpus:g} CPU and {options.gpus:g} "
            "GPU beside the groups' actors: engine.cpus, engine.gpus, resources.timeout_s); its "
            "log is in Ray's session folder under logs/; resume with `trialign train --resume "
            "--run-dir RUN`"
        )


class ServerHost:
    """An endpoint that serves the behaviour model. Adapters are not there before they are trained,
    nor could it be told whose they are: the groups' agents speak for them."""

    collection_only = True

    def __init__(self, spec: EngineSpec):
        from trialign_ray.engines.server import ServerEngine
        from trialign_ray.language_model import load_tokenizer

        tokenizer = load_tokenizer(Path(spec.models["behaviour"]), spec.model)
        self._engine = ServerEngine(spec.options, tokenizer)
        self._spec = spec

    def serves(self, model: str) -> bool:
        models = self._spec.models
        return model != "aligned" and models.get(model) == models["behaviour"]

    def generate(self, model: str, calls: GroupCalls) -> dict[str, list[Generation]]:
        said = {g: self._engine.generate(prompts, d) for g, (prompts, d) in calls.items()}
        for group, utterances in said.items():
            if any(not u.token_ids or math.isnan(u.logprob) for u in utterances):
                raise ConfigError(
                    f"the endpoint {self._spec.options.url} tells no token ids or "
                    f"log-probabilities of its answers (group {group}), which a log needs; vLLM "
                    "does; or set engine.kind=transformers"
                )
        return said

    def close(self) -> None:
        """The endpoint is not ours to end."""


def engine_host(spec: EngineSpec, local: bool) -> GenerationHost | None:
    """The host that `options.kind` asks for; None: the groups' agents generate themselves.

    Args: local: without Ray, in this process. Raises: ConfigError for a kind that needs Ray.
    """
    kind = spec.options.kind
    if kind == "vllm":
        return LocalVLLM(spec) if local else RayVLLM(spec)
    if kind == "server":
        return ServerHost(spec)
    if kind == "ray_data":
        if local:
            raise ConfigError("engine.kind is ray_data, which needs Ray; run without --local")
        from trialign_ray.actors.ray_data_generation import RayDataHost

        return RayDataHost(spec)
    return None
