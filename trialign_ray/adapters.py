"""LoRA adapters through PEFT: one per group, on a base that stays as it is.

A common adapter of all groups may lie beside a group's own; the group is then served by both as one
LoRA, B A = [s_c B_c, s_g B_g] [A_c; A_g], whose rank is the sum of theirs and whose scale is 1.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from trialign_ray.checkpoint import write_json
from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import ConfigError, DataError, TrialignError
from trialign_ray.language_model import LanguageModel, require_fits

ALL_LINEAR = "all-linear"
LINEAR = (torch.nn.Linear, Conv1D)
PROVENANCE = "trialign.json"
WEIGHTS = "adapter_model.safetensors"
OWN, COMMON, EXPORTED = "default", "trialign_common", "trialign_exported"
"""PEFT's names of a group's own adapter, of all groups' common one, and of one that was exported.
PEFT finds weights by them: a name that is part of a module's would take that module's weights."""


def add_adapter(base: LanguageModel, config: CloneConfig, seed: int, name: str = OWN) -> PeftModel:
    """The base with a fresh LoRA; B starts at 0, so it first computes what the base does.

    The adapter is float32 on a half-precision base too: AdamW's small steps would be rounded away.
    Raises: TrialignError if the model is wrapped already (a LoRA on a LoRA trains the wrong thing);
        ConfigError if the configuration names modules that are not there.
    """
    if isinstance(base.model, PeftModel) or hasattr(base.model, "peft_config"):
        raise TrialignError("the base already carries an adapter; load the base anew")
    return wrap(base.model, config, seed, name)


def wrap(model: Any, config: CloneConfig, seed: int, name: str = OWN) -> PeftModel:
    """A model, which may have no weights (`meta_model`), with a fresh LoRA."""
    _require_modules(model, config.target_modules)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lora = _lora(config)
        try:
            wrapped = get_peft_model(model, lora, adapter_name=name, autocast_adapter_dtype=True)
        except ValueError as error:
            raise ConfigError(
                f"clone.target_modules {config.target_modules!r} cannot be adapted: {error}"
            ) from error
        return cast(PeftModel, wrapped)


def _require_modules(model: Any, wanted: str) -> None:
    """Raises: ConfigError if a module that is to be adapted is not there, naming those that are."""
    if wanted == ALL_LINEAR:
        return
    output = model.get_output_embeddings()
    paths = [
        path
        for path, module in model.named_modules()
        if isinstance(module, LINEAR) and module is not output
    ]
    unknown = [
        name
        for name in _names(wanted)
        if not any(path == name or path.endswith(f".{name}") for path in paths)
    ]
    if unknown or not _names(wanted):
        there = ", ".join(sorted({path.rsplit(".", 1)[-1] for path in paths}))
        raise ConfigError(
            f"clone.target_modules names {', '.join(unknown) or 'nothing'}, which "
            f"{type(model).__name__} has not; its linear modules are: {there}, or take all of them "
            f"with {ALL_LINEAR}"
        )


def _names(wanted: str) -> list[str]:
    return [name.strip() for name in wanted.split(",") if name.strip()]


def add_own_adapter(model: PeftModel, config: CloneConfig, seed: int) -> None:
    """Adds a group's fresh LoRA beside the common one: both active, the new one alone trains."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model.add_adapter(OWN, _lora(config))
    cast(Any, model.base_model).set_adapter([COMMON, OWN])
    for name, parameter in model.named_parameters():
        if f".{COMMON}." in name:
            parameter.requires_grad_(False)


def _lora(config: CloneConfig) -> LoraConfig:
    wanted = config.target_modules
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules=wanted if wanted == ALL_LINEAR else _names(wanted),
        task_type="CAUSAL_LM",
    )


@contextmanager
def unadapted(model: PeftModel) -> Iterator[None]:
    """The base alone, for a while. PEFT unfreezes every active adapter afterwards; here what was
    frozen stays frozen."""
    trains = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        with model.disable_adapter():
            yield
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trains[name])


def adapter_tensors(model: PeftModel, name: str | None = None) -> dict[str, Tensor]:
    """The adapter's weights by PEFT's names, copied. None: of the one that trains."""
    state = get_peft_model_state_dict(model, adapter_name=name or _training(model))
    return {k: v.detach().clone() for k, v in state.items()}


def set_adapter_tensors(
    model: PeftModel, tensors: dict[str, Tensor], name: str | None = None
) -> None:
    """Puts weights into an adapter that is there; nothing is wrapped again. None: into the one that
    trains."""
    result = set_peft_model_state_dict(model, tensors, adapter_name=name or _training(model))
    if result.unexpected_keys:
        raise DataError(f"adapter weights do not fit: unexpected {result.unexpected_keys[:3]}")


def _training(model: PeftModel) -> str:
    return OWN if OWN in model.peft_config else COMMON


def export_adapter(
    model: PeftModel, base: LanguageModel, folder: Path, provenance: dict[str, Any]
) -> None:
    """Writes PEFT's layout, and beside it which base weights it belongs to. A common adapter and a
    group's own are written as one LoRA."""
    folder.mkdir(parents=True, exist_ok=True)
    if COMMON not in model.peft_config:
        model.save_pretrained(str(folder))
    else:
        tensors, config = adapter_tensors(model, COMMON), _config(model, COMMON)
        if OWN in model.peft_config:
            tensors, config = stacked_adapter(model, (COMMON, OWN))
        config.save_pretrained(str(folder))
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    record = {"base_checksum": base.checksum, **provenance}
    write_json(folder / PROVENANCE, record)


def stacked_adapter(model: PeftModel, names: Sequence[str]) -> tuple[dict[str, Tensor], LoraConfig]:
    """Weights and configuration of one LoRA that computes the sum of those named: A factors
    stacked, B factors side by side, each times its scale."""
    configs = [_config(model, name) for name in names]
    parts = [adapter_tensors(model, name) for name in names]
    scales = [config.lora_alpha / config.r for config in configs]
    rank = sum(config.r for config in configs)
    tensors = {}
    for key in parts[0]:
        if "lora_B" in key or "lora_embedding_B" in key:
            scaled = [scale * part[key] for scale, part in zip(scales, parts, strict=True)]
            tensors[key] = torch.cat(scaled, dim=1)
        elif "lora_" in key:  # PEFT lists an adapted embedding's own weights too; they are the base
            tensors[key] = torch.cat([part[key] for part in parts], dim=0)
    return tensors, replace(configs[0], r=rank, lora_alpha=rank, inference_mode=True)


def _config(model: PeftModel, name: str) -> LoraConfig:
    return cast(LoraConfig, model.peft_config[name])


def serve_exported(base: LanguageModel, model: PeftModel | None, folder: Path) -> PeftModel:
    """The folder's adapter alone, on the base, or in `model`, which wraps the base already."""
    if model is None:
        return PeftModel.from_pretrained(base.model, folder, adapter_name=EXPORTED)
    model.load_adapter(str(folder), EXPORTED)
    model.set_adapter(EXPORTED, inference_mode=True)
    return model


def average_adapters(folders: Sequence[Path], weights: Sequence[float], target: Path) -> None:
    """Writes the weighted mean of adapters of one shape, A and B factors each by itself.

    This is not the mean of the products BA; it is close where all started from the same A.
    """
    loaded = [load_file(folder / WEIGHTS) for folder in folders]
    parts = list(zip(weights, loaded, strict=True))
    mean = {k: torch.stack([w * tensors[k] for w, tensors in parts]).sum(0) for k in loaded[0]}
    shutil.copytree(folders[0], target, dirs_exist_ok=True)
    save_file(mean, target / WEIGHTS, metadata={"format": "pt"})


def adapter_provenance(folder: Path) -> dict[str, Any]:
    """What `export_adapter` noted. Raises: DataError if the folder is no adapter of ours."""
    try:
        return json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is not a TriAlign adapter ({error}); expected {WEIGHTS}, "
            f"adapter_config.json and {PROVENANCE}"
        ) from error


def load_adapter(base: LanguageModel, folder: Path) -> PeftModel:
    """The base with the folder's adapter. Raises: ConfigError if it fits another base."""
    require_fits(adapter_provenance(folder)["base_checksum"], base, f"adapter {folder}")
    return PeftModel.from_pretrained(base.model, folder)
