"""Workers whose utterances come from vLLM: here, in an actor, and by Ray Data."""

import json
import os
import shutil
import signal
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.trialign_ray.tiny_models import save_random_qwen2
from tests.vllm.shipped_adapters import (
    GREEDY,
    GROUPS,
    largest_distance,
    num_different,
)
from trialign_ray.actors.engine_hosts import EngineSpec, LocalVLLM, RayVLLM, engine_host
from trialign_ray.actors.engine_workers import EngineWorkers
from trialign_ray.actors.ray_data_generation import RayDataHost
from trialign_ray.checkpoint import file_sha256
from trialign_ray.config_models import EngineConfig, ModelConfig
from trialign_ray.engines.transformers import TransformersEngine
from trialign_ray.engines.vllm import WEIGHTS
from trialign_ray.errors import ConfigError, DataError, WorkerError
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import SHIPPED_BASE

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]


@dataclass
class Agents:
    """Groups' agents that note what they were asked."""

    groups: tuple[str, ...] = GROUPS
    asked: list[str] = field(default_factory=list)
    closed: bool = False

    def on_groups(self, verb: str, arguments: dict[str, tuple[Any, ...]]) -> dict[str, Any]:
        self.asked.append(verb)
        return {group: f"{verb} by {group}" for group in arguments}

    def on_critic(self, verb: str, *arguments: Any) -> Any:
        return f"critic {verb}"

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def spec(adapters, tmp_path_factory) -> EngineSpec:
    folder = tmp_path_factory.mktemp("run")
    own = {g: Path(shutil.copytree(adapters[g], folder / g)) for g in GROUPS}
    hashes = {g: file_sha256(path / WEIGHTS) for g, path in own.items()}
    (folder / "training.json").write_text(json.dumps({"adapter_sha256": hashes}))
    other = save_random_qwen2(folder / "qwen2", hidden_size=128, num_attention_heads=4)
    return EngineSpec(
        run_name="vllm-test",
        models={"behaviour": str(SHIPPED_BASE), "facts_base": str(other)},
        adapters={g: str(path) for g, path in own.items()},
        training_file=str(folder / "training.json"),
        options=EngineConfig(kind="vllm", cache_gib=0.1, concurrency=1),
        model=ModelConfig(),
        max_lora_rank=8,
        timeout_s=300.0,
    )


def calls(model: str, prompts: dict[str, list[str]]) -> dict[str, tuple[Any, ...]]:
    return {group: (model, own, GREEDY) for group, own in prompts.items()}


def test_vllm_speaks_for_all_models_and_agents_do_the_rest(spec, prompts, reference):
    agents = Agents()
    workers = EngineWorkers(agents, LocalVLLM(spec))
    plain = workers.on_groups("generate", calls("behaviour", prompts))
    assert workers.on_groups("score", calls("behaviour", prompts)) == {
        group: f"score by {group}" for group in GROUPS
    }
    workers.on_groups("clone", dict.fromkeys(GROUPS, (3,)))
    aligned = workers.on_groups("generate", calls("aligned", prompts))
    for group, own in prompts.items():
        assert num_different(plain[group], reference.generate(own, GREEDY)) == 0
        assert num_different(aligned[group], reference.generate(own, GREEDY, group)) == 0
    other = load_language_model(Path(spec.models["facts_base"]))
    few = {group: own[:4] for group, own in prompts.items()}
    facts = workers.on_groups("generate", calls("facts_base", few))
    for group, own in few.items():
        expected = TransformersEngine(other.model, other.tokenizer).generate(own, GREEDY)
        assert num_different(facts[group], expected) == 0
    assert agents.asked == ["score", "clone"]
    assert workers.on_critic("fit") == "critic fit"
    workers.close()
    assert agents.closed


def test_an_adapter_that_is_not_what_was_exported_is_refused(spec, prompts, tmp_path):
    moved = {g: str(shutil.copytree(path, tmp_path / g)) for g, path in spec.adapters.items()}
    with (tmp_path / GROUPS[1] / WEIGHTS).open("ab") as handle:
        handle.write(b"\0")
    workers = EngineWorkers(Agents(), LocalVLLM(replace(spec, adapters=moved)))
    with pytest.raises(DataError, match="the training exported"):
        workers.on_groups("generate", calls("aligned", prompts))
    workers.close()


@pytest.mark.ray
def test_an_engine_in_an_actor_answers_alike_and_comes_back_when_it_is_killed(
    spec, prompts, reference, ray_local
):
    host = RayVLLM(spec)
    try:
        said = host.generate("aligned", {g: (own, GREEDY) for g, own in prompts.items()})
        for group, own in prompts.items():
            assert num_different(said[group], reference.generate(own, GREEDY, group)) == 0
        pid = ray_local.get(host._actor.pid.remote(), timeout=60)
        os.kill(pid, signal.SIGKILL)
        again = host.generate("aligned", {g: (own, GREEDY) for g, own in prompts.items()})
        assert again == said
    finally:
        host.close()


@pytest.mark.ray
def test_what_goes_wrong_in_the_actor_is_told_as_it_is(spec, prompts, ray_local):
    host = RayVLLM(replace(spec, training_file=spec.training_file + ".gone"))
    try:
        with pytest.raises(DataError, match="has not been exported"):
            host.generate("aligned", {GROUPS[0]: (prompts[GROUPS[0]], GREEDY)})
    finally:
        host.close()
    missing = RayVLLM(replace(spec, models={"behaviour": spec.training_file, "facts_base": ""}))
    try:
        with pytest.raises((DataError, ConfigError), match=r"training\.json"):
            missing.generate("behaviour", {GROUPS[0]: (prompts[GROUPS[0]], GREEDY)})
    finally:
        missing.close()


@pytest.mark.ray
def test_an_actor_that_never_gets_its_cpus_is_given_up_in_time(spec, prompts, ray_local):
    greedy = replace(
        spec, options=EngineConfig(kind="vllm", cpus=4000, cache_gib=0.1), timeout_s=3.0
    )
    started = time.monotonic()
    with pytest.raises(WorkerError, match=r"4000 CPU.*engine\.cpus"):
        RayVLLM(greedy).generate("behaviour", {GROUPS[0]: (prompts[GROUPS[0]], GREEDY)})
    assert time.monotonic() - started < 60


@pytest.mark.ray
def test_ray_data_answers_as_transformers_in_order(spec, prompts, reference, ray_local):
    host = engine_host(
        replace(spec, options=spec.options.model_copy(update={"kind": "ray_data"})), local=False
    )
    assert isinstance(host, RayDataHost)
    assert host.serves("behaviour")
    assert not host.serves("aligned")
    assert not host.serves("facts_base")
    chosen = {g: prompts[g][:30] for g in GROUPS[:2]}
    said = host.generate("behaviour", {g: (own, GREEDY) for g, own in chosen.items()})
    for group, own in chosen.items():
        expected = reference.generate(own, GREEDY)
        assert num_different(said[group], expected) == 0
        assert largest_distance(said[group], expected) < 1e-3


def test_ray_data_needs_ray(spec):
    options = spec.options.model_copy(update={"kind": "ray_data"})
    with pytest.raises(ConfigError, match="needs Ray"):
        engine_host(replace(spec, options=options), local=True)
