"""Checks that run before any actor starts; what a user can get wrong is said at once."""

import logging
from typing import TYPE_CHECKING

from trialign_ray.actors.placement import require_resources, total
from trialign_ray.config import Config
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import ConfigError, DataError, TrialignError
from trialign_ray.run_directory import RunDirectory
from trialign_ray.setting import Setting

if TYPE_CHECKING:
    from trialign_ray.algorithms.algorithm import Algorithm

logger = logging.getLogger(__name__)
CPUS_PER_FITTING_WORKER = 0.5
TOKENS_OF_REASONING = 256


def check_names(config: Config) -> None:
    """Raises: ConfigError if an algorithm, welfare, penalty, truth head or extraction does not
    exist, or two of them contradict each other."""
    from trialign_ray.algorithms import algorithm_by_name
    from trialign_ray.algorithms.trialign import chosen_welfare
    from trialign_ray.extraction import extraction_by_name
    from trialign_ray.ops.inconsistency import penalty_by_name
    from trialign_ray.ops.welfare import welfare_by_name
    from trialign_ray.truth_heads import truth_head_by_name

    algorithm, asked = algorithm_by_name(config.algorithm), config.clone.extraction
    chosen_welfare(config.targets)
    if config.targets.welfare_omega:
        welfare_by_name("generalized_gini", omega=config.targets.welfare_omega)
    penalty_by_name(config.targets.penalty)
    truth_head_by_name(config.critic.truth_head)
    if asked is not None:
        extraction_by_name(asked)
    if None not in (asked, algorithm.extraction) and asked != algorithm.extraction:
        raise ConfigError(
            f"clone.extraction is {asked!r}, but algorithm {config.algorithm!r} is extracted by "
            f"{algorithm.extraction!r}; leave clone.extraction out, or use algorithm: trialign"
        )
    _check_clone_options(config, algorithm)
    scaled = {"awr": "temperature", "dro": "pair_beta"}.get(asked or "")
    if algorithm.central and scaled and getattr(config.clone, scaled) != 1:
        raise ConfigError(
            f"clone.extraction is {asked!r}, which reads returns in units of clone.{scaled}; the "
            f"centre's are log q / mu, in nats: set clone.{scaled}=1"
        )
    if not config.targets.truth_weight + config.targets.personalization_weight > 0:
        raise ConfigError(
            "targets.truth_weight and targets.personalization_weight are both 0: nothing would be "
            "worth anything; raise one of them"
        )
    if config.critic.discount > 0 and not config.critic.later_turns:
        raise ConfigError(
            f"critic.discount is {config.critic.discount:g} but critic.later_turns is false; "
            "values over several turns need the later turns of the log"
        )


def _check_clone_options(config: Config, algorithm: "Algorithm") -> None:
    clone, name = config.clone, config.algorithm
    if clone.coordinate_every > 0 and not algorithm.central:
        raise ConfigError(
            f"clone.coordinate_every is {clone.coordinate_every}, but algorithm {name!r} solves no "
            "central problem that could be solved again; use algorithm: trialign, or 0"
        )
    for key, value in (
        ("clone.coordinate_every", clone.coordinate_every),
        ("clone.shared_rank", clone.shared_rank),
    ):
        if value > 0 and algorithm.sharing != "own":
            raise ConfigError(
                f"{key} is {value}, but in algorithm {name!r} all groups have one adapter "
                f"({algorithm.sharing}) and none of their own; set {key} to 0"
            )
    if clone.coordinate_every >= clone.steps:
        logger.warning(
            "clone.coordinate_every is %d, clone.steps %d: training ends before a second round",
            clone.coordinate_every,
            clone.steps,
        )


def check_models(config: Config) -> None:
    """Raises: ConfigError or DataError if a given model is not there, or lacks what a run needs."""
    from trialign_ray.model_source import resolve_model

    for key, name in (
        ("behaviour.base", config.behaviour.base),
        ("behaviour.model", config.behaviour.model),
    ):
        if name is None:
            continue
        try:
            resolve_model(name, config.model)
        except TrialignError as error:
            raise type(error)(f"{key} is {name!r}: {error}") from error


def check_vocabulary(config: Config, setting: Setting) -> None:
    """Raises: ConfigError if own groups or questions use words that the tiny LM cannot read."""
    world = config.world
    shipped = world.groups == "truthworld" and world.questions == ("truthworld",)
    if shipped or "truthworld" not in (config.behaviour.base, config.behaviour.given):
        return
    from trialign_ray.language_model import load_tokenizer, unknown_words
    from trialign_ray.model_source import SHIPPED_BASE

    told = (*setting.groups, *setting.controls)
    texts = [profile for g in told for profile in g.profile_variants]
    said = [e for g in told for history in g.history_variants for e in history]
    texts += [text for e in said for text in (e.question, e.answer)]
    texts += [t for g in setting.groups for t in (g.style.greeting, g.style.closing) if t]
    texts += [t for q in setting.questions for t in (q.text, *q.choices, *q.gold)]
    unknown = unknown_words(load_tokenizer(SHIPPED_BASE), texts)
    if unknown:
        raise ConfigError(
            f"TruthWorld's tiny language model does not know {', '.join(unknown[:8])}"
            + (f" and {len(unknown) - 8} more words" if len(unknown) > 8 else "")
            + "; use words of the shipped pack and facts, or set behaviour.base to another model"
        )


def warn_of_short_answers(config: Config, setting: Setting) -> None:
    """Warns where answers are reasoned step by step, but may be a few tokens long only."""
    reasoned = {q.source for q in setting.questions if q.verifier == "math"}
    if reasoned and config.collect.max_new_tokens < TOKENS_OF_REASONING:
        logger.warning(
            "collect.max_new_tokens is %d, but questions of %s ask for reasoning; most answers will"
            " be cut and count as wrong: some %d are usual",
            config.collect.max_new_tokens,
            ", ".join(sorted(reasoned)),
            TOKENS_OF_REASONING,
        )


def check_resources(config: Config, num_groups: int, available: dict[str, float]) -> None:
    """Raises: ConfigError with both numbers if actors or fitting workers could never start."""
    require_resources(num_groups, config.resources, available)
    _check_engine(config, num_groups, available)
    fitting = CPUS_PER_FITTING_WORKER * config.behaviour.num_workers
    if config.fits_behaviour and fitting > available.get("CPU", 0.0):
        raise ConfigError(
            f"behaviour.num_workers is {config.behaviour.num_workers}, which needs {fitting:g} "
            f"CPUs, there are {available.get('CPU', 0.0):g}; lower it"
        )


def _check_engine(config: Config, num_groups: int, available: dict[str, float]) -> None:
    engine = config.engine
    if engine.kind == "server" and engine.url is None:
        raise ConfigError("engine.kind is server, but engine.url is empty; give the endpoint's URL")
    if engine.kind not in ("vllm", "ray_data"):
        return
    reserved = total(num_groups, config.resources)
    for name, own in (("CPU", engine.cpus), ("GPU", engine.gpus)):
        needed = reserved.get(name, 0.0) + own
        if needed > available.get(name, 0.0) + 1e-9:
            raise ConfigError(
                f"actors need {reserved.get(name, 0.0):g} {name} and vLLM {own:g} more, there"
                f" are {available.get(name, 0.0):g}; lower engine.{name.lower()}s or "
                f"resources.{name.lower()}s_per_group, or use a larger cluster"
            )


def check_adapters(run: RunDirectory, setting: Setting, base_checksum: str) -> None:
    """Raises: ConfigError or DataError if an adapter is missing or fits another base."""
    from trialign_ray.adapters import adapter_provenance

    for group in setting.groups:
        found = adapter_provenance(run.adapter_dir(group.name))["base_checksum"]
        if found != base_checksum:
            raise ConfigError(
                f"adapter {run.adapter_dir(group.name)} was trained on a base with checksum "
                f"{found[:12]}, but the behaviour model has {base_checksum[:12]}; use the base it "
                "was trained on, or train again"
            )


def check_log(run: RunDirectory, setting: Setting, behaviour_id: str | None) -> None:
    """Raises: DataError if the run's log is damaged, or is not of these groups and questions or of
    this behaviour model. Without a log there is nothing to check."""
    if not run.log_file.is_file():
        return
    rows = read_dataset(run.log_file)
    groups = [g.name for g in setting.groups]
    if rows[0]["group_ids"] != groups:
        raise DataError(
            f"log {run.log_file} is of groups {rows[0]['group_ids']}, the run has {groups}; "
            "collect again in another --run-dir"
        )
    unknown = {r["question_id"] for r in rows} - {q.id for q in setting.of_split("train")}
    if unknown:
        raise DataError(
            f"log {run.log_file} has question {min(unknown)!r}, which is no train question of this "
            f"run ({len(unknown)} such); collect again in another --run-dir"
        )
    logged = rows[0]["behaviour_model_id"]
    if behaviour_id is not None and logged != behaviour_id:
        raise DataError(
            f"log {run.log_file} was collected with behaviour model {str(logged)[:12]}, the run "
            f"has {behaviour_id[:12]}; use the model it was collected with"
        )
