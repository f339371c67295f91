"""LoRA adapters through PEFT: one per group, on a base that stays as it is."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor

from trialign_ray.checkpoint import write_json
from trialign_ray.config import CloneConfig
from trialign_ray.errors import DataError, TrialignError
from trialign_ray.language_model import LanguageModel, require_fits

PROVENANCE = "trialign.json"


def add_adapter(base: LanguageModel, config: CloneConfig, seed: int) -> PeftModel:
    """The base with a fresh LoRA; B starts at 0, so it first computes what the base does.

    Raises: TrialignError if the model is wrapped already (a LoRA on a LoRA trains the wrong thing).
    """
    if isinstance(base.model, PeftModel) or hasattr(base.model, "peft_config"):
        raise TrialignError("the base already carries an adapter; load the base anew")
    names = config.target_modules
    lora = LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_alpha,
        lora_dropout=0.0,
        target_modules=names if names == "all-linear" else [n.strip() for n in names.split(",")],
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(base.model, lora)


def adapter_tensors(model: PeftModel) -> dict[str, Tensor]:
    """The adapter's weights by PEFT's names, copied."""
    return {k: v.detach().clone() for k, v in get_peft_model_state_dict(model).items()}


def set_adapter_tensors(model: PeftModel, tensors: dict[str, Tensor]) -> None:
    """Puts weights into the adapter that is there; nothing is wrapped again."""
    result = set_peft_model_state_dict(model, tensors)
    if result.unexpected_keys:
        raise DataError(f"adapter weights do not fit: unexpected {result.unexpected_keys[:3]}")


def export_adapter(
    model: PeftModel, base: LanguageModel, folder: Path, provenance: dict[str, Any]
) -> None:
    """Writes PEFT's layout, and beside it which base weights it belongs to."""
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(str(folder))
    record = {"base_checksum": base.checksum, **provenance}
    write_json(folder / PROVENANCE, record)


def adapter_provenance(folder: Path) -> dict[str, Any]:
    """What `export_adapter` noted. Raises: DataError if the folder is no adapter of ours."""
    try:
        return json.loads((folder / PROVENANCE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} is not a TriAlign adapter ({error}); expected adapter_model.safetensors, "
            f"adapter_config.json and {PROVENANCE}"
        ) from error


def load_adapter(base: LanguageModel, folder: Path) -> PeftModel:
    """The base with the folder's adapter. Raises: ConfigError if it fits another base."""
    require_fits(adapter_provenance(folder)["base_checksum"], base, f"adapter {folder}")
    return PeftModel.from_pretrained(base.model, folder)
