"""What a group's agent adds to the base: the common adapter, its own beside it, or what was
exported. The base is wrapped once; which adapters are active changes."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from trialign_ray.adapters import (
    COMMON,
    OWN,
    WEIGHTS,
    add_adapter,
    add_own_adapter,
    serve_exported,
    set_adapter_tensors,
)
from trialign_ray.checkpoint import file_sha256
from trialign_ray.common_adapter import CommonAdapterSpec
from trialign_ray.config_sections import CloneConfig
from trialign_ray.errors import DataError
from trialign_ray.language_model import LanguageModel


class GroupAdapter:
    """One base and its adapters. `model`: the wrapped base, None as long as nothing is added."""

    def __init__(
        self, base: LanguageModel, clone: CloneConfig, seed: int, common: CommonAdapterSpec | None
    ):
        self._base, self._clone, self._seed, self._common = base, clone, seed, common
        self.model: Any = None

    @property
    def common_config(self) -> CloneConfig:
        """As the group's own but for the rank, and solved once: rounds are of the own adapters."""
        update = {"lora_rank": self._clone.shared_rank, "coordinate_every": 0}
        return self._clone.model_copy(update=update)

    def with_common(self) -> Any:
        """The base with the common adapter alone, fresh if it was not there."""
        assert self._common is not None, "clone.shared_rank is 0"
        if self.model is None:
            self.model = add_adapter(self._base, self.common_config, self._common.seed, COMMON)
        return self.model

    def with_own(self) -> Any:
        """The base with the group's own adapter, fresh if it was not there; beside it the common
        one, as it was exported and frozen, if there is one. Raises: DataError if it is missing."""
        if self._common is None:
            if self.model is None:
                self.model = add_adapter(self._base, self._clone, self._seed)
            return self.model
        folder = Path(self._common.adapter_dir)
        require_exported(folder, self.common_sha256())
        model = self.with_common()
        if OWN not in model.peft_config:
            set_adapter_tensors(model, load_file(folder / WEIGHTS), COMMON)
            add_own_adapter(model, self._clone, self._seed)
        return model

    def serve(self, folder: Path) -> Any:
        """The exported adapter alone, whatever this process trained or restored."""
        if self._common is None:
            set_adapter_tensors(self.with_own(), load_file(folder / WEIGHTS))
            return self.with_own()
        self.model = serve_exported(self._base, self.model, folder)
        return self.model

    @property
    def common_is_trained(self) -> bool:
        return self._common is not None and Path(self._common.record_file).is_file()

    def common_sha256(self) -> str:
        """sha256 of the common adapter that was exported. Raises: DataError if there is none."""
        assert self._common is not None, "clone.shared_rank is 0"
        return recorded(Path(self._common.record_file), "the common adapter")["adapter_sha256"]


def recorded(path: Path, what: str) -> dict[str, Any]:
    """The record of a finished training. Raises: DataError if there is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{what} has not been exported ({error}); finish the training with "
            "`trialign train --resume`"
        ) from error


def require_exported(folder: Path, expected: str) -> None:
    """Raises: DataError if the folder's weights are not those that the training exported."""
    file = folder / WEIGHTS
    if not file.is_file():
        raise DataError(f"{file} is missing; finish the training with `trialign train --resume`")
    found = file_sha256(file)
    if found != expected:
        raise DataError(f"{file} has sha256 {found[:12]}, the training exported {expected[:12]}")
