"""From the configuration's `preferences` to one scorer, checked before anything is started."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from envs.chat_endpoint import ChatEndpoint, EndpointSpec
from envs.groups import Group
from envs.llm_judge import JudgeTerms, LLMJudge
from envs.preferences import PreferenceScorer, StyleScorer, WeightedScorer
from envs.prompts import question_messages
from envs.types import Message, Question
from envs.verdict_cache import VerdictCache
from trialign_ray.config_models import ModelConfig
from trialign_ray.config_preferences import (
    ClassifierSection,
    JudgeSection,
    RewardModelSection,
    Scorer,
)
from trialign_ray.errors import ConfigError

logger = logging.getLogger(__name__)

PromptOf = Callable[[str, Question], Sequence[Message]]
"""What a judge or a reward model is told of the group's user, and the question."""


def explicit_prompts(groups: Sequence[Group]) -> PromptOf:
    """Every group's profile with the question: what a rater must know, whatever the agents see."""
    by_name = {g.name: g for g in groups}

    def prompt_of(group: str, question: Question) -> Sequence[Message]:
        return question_messages(question, "explicit", by_name[group])

    return prompt_of


def build_scorer(
    preferences: Sequence[Scorer],
    groups: Sequence[Group],
    questions_prompt_of: PromptOf,
    run_root: Path,
) -> PreferenceScorer:
    """The scorer of all sections, by weight; rules alone are the plain `StyleScorer`.

    Args: run_root: relative caches and the fitted classifier lie there.
    Raises: ConfigError or DataError: no scorer, a missing file, a log without one of the groups, an
        unset key, a model that is no reward model; WorkerError: an endpoint that does not answer.
    """
    if not preferences:
        raise ConfigError("preferences is empty; give at least one scorer, e.g. - kind: rules")
    scorers = [_scorer(section, groups, questions_prompt_of, run_root) for section in preferences]
    if len(scorers) == 1:
        return scorers[0]
    weights = [section.weight for section in preferences]
    return WeightedScorer(list(zip(weights, scorers, strict=True)))


def scorer_reports(scorer: PreferenceScorer) -> list[dict[str, Any]]:
    """What a run should keep of its scorers: a judge's counts and cost, a classifier's fits."""
    if isinstance(scorer, WeightedScorer):
        return [report for part in scorer.scorers for report in scorer_reports(part)]
    if isinstance(scorer, LLMJudge):
        return [{"kind": "judge", **asdict(scorer.report())}]
    fits = getattr(scorer, "fits", None)
    if fits is None:
        return []
    return [{"kind": "classifier", "groups": {g: asdict(fit) for g, fit in fits.items()}}]


def _scorer(
    section: Scorer, groups: Sequence[Group], prompt_of: PromptOf, run_root: Path
) -> PreferenceScorer:
    if isinstance(section, ClassifierSection):
        return _classifier(section, groups, run_root)
    if isinstance(section, RewardModelSection):
        return _reward_model(section, prompt_of)
    if isinstance(section, JudgeSection):
        return _judge(section, prompt_of, run_root)
    return StyleScorer({g.name: g.style for g in groups})


def _classifier(
    section: ClassifierSection, groups: Sequence[Group], run_root: Path
) -> PreferenceScorer:
    """Fitted once per run and log; without a run directory yet, fitted to the same again."""
    from envs.style_classifier import fit_style_classifier, load_style_classifier
    from envs.style_log import read_style_log

    log = Path(section.log)
    rows = read_style_log(log)
    known = {row.group for row in rows}
    missing = [g.name for g in groups if g.name not in known]
    if missing:
        raise ConfigError(
            f"style log {log} has no texts of group {', '.join(missing)}; it has "
            f"{', '.join(sorted(known))}; add texts of every group of the pack"
        )
    digest = hashlib.sha256(log.read_bytes()).hexdigest()[:16]
    saved = run_root / "preferences" / f"style_classifier_{digest}.npz"
    if saved.is_file():
        return load_style_classifier(saved)
    classifier = fit_style_classifier(rows, str(log))
    for group, fit in classifier.fits.items():
        if fit.accuracy < 0.6:
            logger.warning(
                "the style of group %s is hardly told from the others' (held-out accuracy %.2f, "
                "guessing has 0.50); its scores say little",
                group,
                fit.accuracy,
            )
    if (run_root / "config.yaml").is_file():  # a run's own folder, nobody else's
        classifier.save(saved)
    return classifier


def _reward_model(section: RewardModelSection, prompt_of: PromptOf) -> PreferenceScorer:
    from trialign_ray.engines.reward_model import RewardModelScorer, load_reward_model
    from trialign_ray.model_source import resolve_model

    options = ModelConfig(revision=section.revision, chat_template=section.chat_template)
    folder = resolve_model(section.model, options)
    model = load_reward_model(folder, section.batch_size, section.device, section.chat_template)
    return RewardModelScorer(model, section.scale, prompt_of)


def _judge(section: JudgeSection, prompt_of: PromptOf, run_root: Path) -> PreferenceScorer:
    endpoint = ChatEndpoint(
        EndpointSpec(
            url=section.url,
            model=section.model,
            api_key_env=section.api_key_env,
            timeout_s=section.timeout_s,
            max_retries=section.max_retries,
            max_completion_tokens=section.max_completion_tokens,
        )
    )
    endpoint.check()
    terms = JudgeTerms(
        rubric=section.rubric,
        concurrency=section.concurrency,
        usd_per_million_prompt_tokens=section.usd_per_million_prompt_tokens,
        usd_per_million_completion_tokens=section.usd_per_million_completion_tokens,
    )
    return LLMJudge(endpoint, VerdictCache(run_root / section.cache), terms, prompt_of)
