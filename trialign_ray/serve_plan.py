"""How a run is served: one base, one LoRA per group, as vLLM and Ray Serve want to be told.

Clients ask for a group by its name: the model `amber` is the base with amber's adapter.
"""

import json
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trialign_ray.checkpoint import write_atomically
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError
from trialign_ray.run_directory import RunDirectory
from trialign_ray.run_models import (
    RunBase,
    adapter_config,
    adapter_rank,
    chat_template,
    load_dtype,
    require_sound_adapters,
    run_base,
    trained_groups,
)

VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `--max-lora-rank`."""
NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "repetition_penalty": 1.0}
"""Over what a model's makers recommend: adapters were trained and evaluated on the model itself.
End tokens of generation_config.json stay."""
REMOTE = ("s3://", "gs://", "abfss://", "azure://")
"""Where Ray Serve loads adapters from."""


@dataclass(frozen=True)
class ServePlan:
    """adapters: folder by group. max_lora_rank: of `VLLM_RANKS`. max_model_len: None for the
    model's own limit. chat_template: None where the base has one. template_arguments: what training
    told the template and a server has to tell it too."""

    base: RunBase
    adapters: dict[str, Path]
    max_lora_rank: int
    dtype: str
    max_model_len: int | None
    chat_template: Path | None
    template_arguments: dict[str, Any]
    trust_remote_code: bool


def serve_plan(run: RunDirectory, config: Config, groups: Sequence[str] = ()) -> ServePlan:
    """What it takes to serve a run's adapters, all or those of `groups`.

    Raises: DataError if they are not there or not what was exported; ConfigError if a rank is too
    large for vLLM or a group has the name of the base.
    """
    hashes = trained_groups(run, groups)
    require_sound_adapters(run, hashes)
    base = run_base(run, config)
    if base.name in hashes:
        raise ConfigError(
            f"group {base.name!r} has the name of the base model; serve it without: --group, or "
            "rename the model's folder"
        )
    ranks = {group: adapter_rank(adapter_config(run, group)) for group in hashes}
    template = chat_template(config, base)
    return ServePlan(
        base=base,
        adapters={group: run.adapter_dir(group) for group in hashes},
        max_lora_rank=vllm_rank(ranks),
        dtype=load_dtype(config, base),
        max_model_len=config.model.max_length,
        chat_template=template,
        template_arguments=_template_arguments(template, base),
        trust_remote_code=config.model.trust_remote_code,
    )


def _template_arguments(template: Path | None, base: RunBase) -> dict[str, Any]:
    """Those of `TEMPLATE_ARGUMENTS` that the template asks for."""
    from trialign_ray.chat_template import TEMPLATE_ARGUMENTS

    names = ("chat_template.jinja", "chat_template.json", "tokenizer_config.json")
    files = [template] if template else [base.folder / name for name in names]
    text = "".join(f.read_text(encoding="utf-8") for f in files if f.is_file())
    return {name: value for name, value in TEMPLATE_ARGUMENTS.items() if name in text}


def vllm_rank(ranks: dict[str, int]) -> int:
    """The smallest rank that vLLM can be told and that holds every group's adapter."""
    largest = max(ranks, key=lambda group: ranks[group])
    for rank in VLLM_RANKS:
        if rank >= ranks[largest]:
            return rank
    raise ConfigError(
        f"the adapter of {largest} has rank {ranks[largest]} (common and own together), vLLM takes "
        f"at most {VLLM_RANKS[-1]}; lower clone.lora_rank or clone.shared_rank, or serve merged "
        "copies (`trialign export --merged`)"
    )


def vllm_command(
    plan: ServePlan, host: str = "127.0.0.1", port: int = 8000, on_cpu: bool = False
) -> list[str]:
    """The arguments of `vllm serve`, the program's name first.

    Args: on_cpu: prompts are then not split, because a seeded request whose prompt was split ends
    vLLM's engine for CPUs.
    """
    base = plan.base
    command = ["vllm", "serve", base.name if base.on_hub else str(base.folder)]
    command += ["--host", host, "--port", str(port), "--served-model-name", base.name]
    if base.on_hub and base.revision:
        command += ["--revision", base.revision, "--tokenizer-revision", base.revision]
    command += ["--dtype", plan.dtype, "--override-generation-config", json.dumps(NEUTRAL)]
    if plan.max_model_len is not None:
        command += ["--max-model-len", str(plan.max_model_len)]
    if plan.chat_template is not None:
        command += ["--chat-template", str(plan.chat_template)]
    if plan.template_arguments:
        command += ["--default-chat-template-kwargs", json.dumps(plan.template_arguments)]
    if plan.trust_remote_code:
        command += ["--trust-remote-code"]
    if on_cpu:
        command += ["--no-enable-chunked-prefill"]
    command += ["--enable-lora", "--max-lora-rank", str(plan.max_lora_rank)]
    command += ["--max-loras", str(_num_places(plan))]
    return [*command, "--lora-modules", *map(_lora_module, plan.adapters.items())]


def _num_places(plan: ServePlan) -> int:
    """A place for every group, since vLLM's own 1 lets groups wait in turn, and one that stays
    empty: on CPUs it is what requests to the base itself are given."""
    return len(plan.adapters) + 1


def _lora_module(adapter: tuple[str, Path]) -> str:
    group, path = adapter
    if "," in str(path):  # which vLLM takes for JSON
        return json.dumps({"name": group, "path": str(path)})
    return f"{group}={path}"


def shown(command: Sequence[str]) -> str:
    """The command as it can be pasted into a shell, an option a line."""
    lines: list[list[str]] = [[]]
    for word in command:
        if word.startswith("--"):
            lines.append([])
        lines[-1].append(shlex.quote(word))
    return " \\\n  ".join(" ".join(line) for line in lines)


def example_request(url: str, group: str) -> str:
    """A curl command that asks a group's adapter."""
    return (
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' -d "
        f'\'{{"model": "{group}", "temperature": 0, "messages": '
        '[{"role": "user", "content": "What is the capital of France?"}]}\''
    )


@dataclass(frozen=True)
class ClusterOptions:
    """How Ray Serve is to run it. adapters_at: folder in cloud storage with one folder per group,
    as `trialign export` writes them. accelerator_type: such as A10G; None: any GPU."""

    adapters_at: str
    accelerator_type: str | None = None
    min_replicas: int = 1
    max_replicas: int = 2


def ray_serve_config(run: RunDirectory, plan: ServePlan, cluster: ClusterOptions) -> str:
    """The YAML of a Ray Serve application, for `serve run FILE` or the RayService manifest.

    Clients ask for the model `<base>:<group>`; Ray Serve fetches the adapter when it is first asked
    for. Raises: ConfigError if the adapters are not in storage that Ray Serve can read.
    """
    if not cluster.adapters_at.startswith(REMOTE):
        raise ConfigError(
            f"--adapters-at is {cluster.adapters_at!r}; Ray Serve loads adapters from "
            f"{', '.join(REMOTE)} alone: write them with `trialign export`, copy the groups' "
            "folders there, and give that folder"
        )
    if not 1 <= cluster.min_replicas <= cluster.max_replicas:
        raise ConfigError(
            f"--min-replicas is {cluster.min_replicas}, --max-replicas {cluster.max_replicas}; "
            "expected 1 <= min <= max"
        )
    num_groups = len(plan.adapters)
    base = plan.base
    llm: dict[str, Any] = {
        "model_loading_config": {
            "model_id": model_id(base),
            "model_source": base.name if base.on_hub else str(base.folder),
        },
        "engine_kwargs": _engine_kwargs(plan),
        "lora_config": {
            "dynamic_lora_loading_path": cluster.adapters_at.rstrip("/"),
            "max_num_adapters_per_replica": num_groups,
        },
        "deployment_config": {
            "autoscaling_config": {
                "min_replicas": cluster.min_replicas,
                "max_replicas": cluster.max_replicas,
            }
        },
    }
    if cluster.accelerator_type is not None:
        llm["accelerator_type"] = cluster.accelerator_type
    application = {
        "name": f"trialign-{run.name}",
        "route_prefix": "/",
        "import_path": "ray.serve.llm:build_openai_app",
        "args": {"llm_configs": [llm]},
    }
    asked = ", ".join(f"{model_id(base)}:{group}" for group in plan.adapters)
    head = f"# serve run FILE; clients ask for the models {asked}\n"
    return head + yaml.safe_dump({"applications": [application]}, sort_keys=False)


def write_ray_serve(
    run: RunDirectory, plan: ServePlan, cluster: ClusterOptions, file: Path
) -> None:
    """Writes the configuration into a new file. Raises: ConfigError if it is there already."""
    text = ray_serve_config(run, plan, cluster)
    if file.exists():
        raise ConfigError(f"{file} is there already; give --ray-serve a file that is not")
    write_atomically(file, text.encode())


def model_id(base: RunBase) -> str:
    """The base's name as Ray Serve knows it, which has no colon: what follows one is the LoRA."""
    return base.name.replace(":", "-")


def _engine_kwargs(plan: ServePlan) -> dict[str, Any]:
    kwargs: dict[str, Any] = {
        "enable_lora": True,
        "max_lora_rank": plan.max_lora_rank,
        "max_loras": _num_places(plan),
        "dtype": plan.dtype,
        "override_generation_config": dict(NEUTRAL),
    }
    if plan.base.on_hub and plan.base.revision:
        kwargs |= {"revision": plan.base.revision, "tokenizer_revision": plan.base.revision}
    if plan.max_model_len is not None:
        kwargs["max_model_len"] = plan.max_model_len
    if plan.chat_template is not None:
        kwargs["chat_template"] = str(plan.chat_template)
    if plan.template_arguments:
        kwargs["default_chat_template_kwargs"] = plan.template_arguments
    if plan.trust_remote_code:
        kwargs["trust_remote_code"] = True
    return kwargs
