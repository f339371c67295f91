"""From configuration to actors: which models, which files, which resources every worker gets."""

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path

from trialign_ray.actors.engine_hosts import EngineSpec, engine_host
from trialign_ray.actors.engine_workers import EngineWorkers
from trialign_ray.actors.group_agent import GroupAgentSpec
from trialign_ray.actors.placement import borrow, reserve
from trialign_ray.actors.workers import LocalWorkers, RayWorkers, Workers
from trialign_ray.algorithms import Algorithm, algorithm_by_name
from trialign_ray.common_adapter import COMMON_FOLDER, CommonAdapterSpec
from trialign_ray.config import Config
from trialign_ray.config_sections import CloneConfig
from trialign_ray.extraction import DEFAULT_EXTRACTION
from trialign_ray.fitted_critic import CriticSpec
from trialign_ray.run_directory import RunDirectory, config_hash
from trialign_ray.seeds import derive_seed
from trialign_ray.setting import Setting
from trialign_ray.training_rows import SHARED_ROWS


class Assembly:
    """Starts the workers of a run and ends them. `local`: without Ray, in this process. `in_trial`:
    this process is a trial of a sweep, whose placement group has a bundle for every actor.
    `own_engine`: whether `engine.kind` decides who generates; else the agents do, as in trials."""

    def __init__(
        self,
        config: Config,
        setting: Setting,
        run_dir: RunDirectory,
        local: bool,
        in_trial: bool = False,
        own_engine: bool = True,
    ):
        self.config, self.setting, self.run_dir, self.local = config, setting, run_dir, local
        self._in_trial, self._own_engine = in_trial, own_engine and not in_trial
        self._workers: Workers | None = None

    @property
    def started(self) -> bool:
        return self._workers is not None

    @property
    def workers(self) -> Workers:
        assert self._workers is not None, "start() comes first"
        return self._workers

    def start(self) -> None:
        """Starts all workers and waits until each has loaded its model."""
        agents = [self._agent_spec(g.name) for g in self.setting.groups]
        host = engine_host(self._engine_spec(), self.local) if self._own_engine else None
        workers = self._started(agents)
        self._workers = workers if host is None else EngineWorkers(workers, host)

    def _started(self, agents: list[GroupAgentSpec]) -> Workers:
        if self.local:
            return LocalWorkers(agents, self.critic_spec())
        name, resources = self.run_dir.name, self.config.resources
        if self._in_trial:
            reservation = borrow(len(agents), resources)
        else:
            reservation = reserve(name, len(agents), resources)
        self._workers = workers = RayWorkers(name, resources, reservation)
        workers.start(agents, self.critic_spec())
        workers.on_groups("state", dict.fromkeys(workers.groups, ()))
        return workers

    def close(self) -> None:
        """Ends the workers, if there are any."""
        if self._workers is not None:
            self._workers.close()
            self._workers = None

    @property
    def models(self) -> dict[str, str]:
        """Folder of every base model by its name; the adapters sit on "behaviour"."""
        return {"facts_base": str(self.facts_base), "behaviour": str(self.behaviour_dir)}

    def _engine_spec(self) -> EngineSpec:
        return EngineSpec(
            run_name=self.run_dir.name,
            models=self.models,
            adapters={g.name: str(self.run_dir.adapter_dir(g.name)) for g in self.setting.groups},
            training_file=str(self.run_dir.training_file),
            options=self.config.engine,
            model=self.config.model,
            max_lora_rank=self.config.clone.lora_rank + self.config.clone.shared_rank,
            timeout_s=self.config.resources.timeout_s,
        )

    def _agent_spec(self, group: str) -> GroupAgentSpec:
        return GroupAgentSpec(
            group=group,
            models=self.models,
            rows_file=self._rows_file(group),
            checkpoint_dir=str(self.run_dir.checkpoint_dir(group)),
            adapter_dir=str(self.run_dir.adapter_dir(group)),
            training_file=str(self.run_dir.training_file),
            clone=self._clone_config,
            model=self.config.model,
            sharing=self.algorithm.sharing,
            common=self.common_adapter(group),
            seed=derive_seed(self.config.seed, "clone", group),
            identity={
                "group": group,
                "groups": ",".join(g.name for g in self.setting.groups),
                "config_sha256": config_hash(self.config),
                "base_sha256": self.behaviour_id,
            },
        )

    def critic_spec(self) -> CriticSpec:
        equal = self.config.targets.group_weights == "equal"
        return CriticSpec(
            config=self.config,
            group_weights={g.name: 1.0 if equal else g.prior_weight for g in self.setting.groups},
            dataset_file=str(self.run_dir.log_file),
            scores_file=str(self.run_dir.scores_file),
            critic_dir=str(self.run_dir.root / "critic"),
            targets_dir=str(self.run_dir.root / "targets"),
            gold=self._oracle_gold(),
        )

    def _oracle_gold(self) -> dict[str, tuple[str, ...]] | None:
        """Hidden gold of the log's questions, for the oracle head and nobody else."""
        if self.config.critic.truth_head != "oracle":
            return None
        return {q.id: q.gold for q in self.setting.of_split("train") if q.has_truth}

    @cached_property
    def algorithm(self) -> Algorithm:
        return algorithm_by_name(self.config.algorithm)

    @property
    def trainees(self) -> tuple[str, ...]:
        """Groups whose agents train: all, or the first alone where groups share one adapter."""
        names = tuple(g.name for g in self.setting.groups)
        return names if self.algorithm.sharing == "own" else names[:1]

    @property
    def _clone_config(self) -> CloneConfig:
        chosen = self.algorithm.extraction or self.config.clone.extraction or DEFAULT_EXTRACTION
        return self.config.clone.model_copy(update={"extraction": chosen})

    def _rows_file(self, group: str) -> str | None:
        """What the group's agent trains on; None if another agent trains for it."""
        if group not in self.trainees:
            return None
        if self.algorithm.sharing == "own":
            return str(self.run_dir.rows_file(group))
        return str(self.run_dir.root / "targets" / SHARED_ROWS)

    def common_adapter(self, group: str) -> CommonAdapterSpec | None:
        """What the group's agent knows of the adapter that all have in common; the first group's
        trains it. None where there is none."""
        if self.config.clone.shared_rank == 0:
            return None
        rows = self.run_dir.root / "targets" / SHARED_ROWS
        folder = self.run_dir.adapter_dir(COMMON_FOLDER)
        return CommonAdapterSpec(
            rows_file=str(rows) if group == self.trainees[0] else None,
            checkpoint_dir=str(self.run_dir.checkpoint_dir(COMMON_FOLDER)),
            adapter_dir=str(folder),
            record_file=str(folder / "training.json"),
            seed=derive_seed(self.config.seed, "clone", COMMON_FOLDER),
        )

    @cached_property
    def facts_base(self) -> Path:
        from trialign_ray.model_source import resolve_model

        return resolve_model(self.config.behaviour.base, self.config.model)

    @cached_property
    def behaviour_dir(self) -> Path:
        from trialign_ray.model_source import resolve_model

        if self.config.fits_behaviour:
            return self.run_dir.behaviour_dir
        return resolve_model(self.config.behaviour.given, self.config.model)

    @cached_property
    def behaviour_id(self) -> str:
        from trialign_ray.language_model import weights_checksum

        return weights_checksum(self.behaviour_dir)

    @cached_property
    def render(self) -> Callable[..., str]:
        from trialign_ray.language_model import chat_text, load_tokenizer

        return partial(chat_text, load_tokenizer(self.behaviour_dir, self.config.model))
