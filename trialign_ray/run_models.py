"""What a finished run is made of, for whoever takes it out: base weights, groups, adapters.

Nothing is asked that needs the run's questions, so that a run can be exported or served where its
data are not.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from envs.errors import TrialignError
from envs.groups import Group, load_pack
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.run_directory import RunDirectory

_ADAPTER_FILES = ("adapter_model.safetensors", "adapter_config.json")


@dataclass(frozen=True)
class RunBase:
    """The behaviour model, on which the adapters stand.

    name: under which it is known: of the Hub, or of its folder. on_hub: whether others can load it
    by that name. revision: commit if it is known, else what the configuration asks for.
    """

    folder: Path
    name: str
    on_hub: bool
    revision: str | None


def run_base(run: RunDirectory, config: Config) -> RunBase:
    """The base of a run's adapters. Raises: ConfigError if its folder is not there."""
    if config.fits_behaviour:
        if not run.behaviour_dir.is_dir():
            raise ConfigError(
                f"the behaviour model {run.behaviour_dir} of the run is not there; finish the run "
                "with `trialign train --resume`"
            )
        return RunBase(run.behaviour_dir, f"{run.name}-behaviour", False, None)
    from trialign_ray.model_source import model_commit, resolve_model

    name = config.behaviour.given
    folder = resolve_model(name, config.model)
    if name == "truthworld":
        return RunBase(folder, "truthworld-lm", False, None)
    if Path(name).expanduser().is_dir():
        return RunBase(folder, folder.name, False, None)
    repository, _, pinned = name.partition("@")
    return RunBase(folder, repository, True, model_commit(folder) or pinned or None)


def trained_groups(run: RunDirectory, wanted: Sequence[str] = ()) -> dict[str, str]:
    """sha256 of the exported adapter by group, of all groups or of those wanted.

    Raises: DataError if the run is not trained; ConfigError for a group that it does not have.
    """
    try:
        hashes: dict[str, str] = json.loads(run.training_file.read_text("utf-8"))["adapter_sha256"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"{run.root} has no trained adapters ({run.training_file.name}: {error}); finish it "
            "with `trialign train --resume`"
        ) from error
    unknown = [name for name in wanted if name not in hashes]
    if unknown:
        raise ConfigError(
            f"group {unknown[0]!r} has no adapter in {run.root}; there are {', '.join(hashes)}"
        )
    return {name: hashes[name] for name in (wanted or hashes)}


def require_sound_adapters(run: RunDirectory, hashes: dict[str, str]) -> None:
    """Raises: DataError if an adapter is not what the training exported."""
    from trialign_ray.group_adapter import require_exported

    for group, expected in hashes.items():
        for name in _ADAPTER_FILES:
            if not (run.adapter_dir(group) / name).is_file():
                raise DataError(
                    f"{run.adapter_dir(group) / name} is missing; finish the training with "
                    "`trialign train --resume`"
                )
        require_exported(run.adapter_dir(group), expected)


def adapter_config(run: RunDirectory, group: str) -> dict[str, Any]:
    """PEFT's configuration of a group's adapter. Raises: DataError if it cannot be read."""
    path = run.adapter_dir(group) / "adapter_config.json"
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}); train the run again") from error


def adapter_rank(config: dict[str, Any]) -> int:
    """The largest rank that an adapter has in any module."""
    return max([int(config["r"]), *map(int, (config.get("rank_pattern") or {}).values())])


def groups_of(config: Config, names: Sequence[str]) -> dict[str, Group | None]:
    """The pack's groups by name; None where the pack is gone or has no such group any more."""
    try:
        known = {g.name: g for g in load_pack(config.world.groups).groups}
    except TrialignError:
        known = {}
    return {name: known.get(name) for name in names}


def chat_template(config: Config, base: RunBase) -> Path | None:
    """The file of the chat template that has to be given with the base; None if it has its own.

    Raises: ConfigError if the configuration names a file that is not there.
    """
    given = config.model.chat_template
    if given is None:
        return None
    path = Path(given).expanduser().resolve()
    if not path.is_file():
        raise ConfigError(
            f"model.chat_template is {given!r}, which is no file; give the Jinja file that the run "
            f"was trained with (the base is {base.name})"
        )
    return path


def load_dtype(config: Config, base: RunBase) -> str:
    """The dtype in which training loads the base, by name. vLLM's own "auto" would round float32
    weights to 16 bits; here it is left for weights that are quantised."""
    from trialign_ray.model_source import saved_dtype

    wanted = config.model.dtype
    return wanted if wanted != "auto" else saved_dtype(base.folder) or "auto"
