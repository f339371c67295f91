"""Stage 6a, off-policy evaluation: what the log says of every group's adapter.

Utterances are weighed by the tokens that were sampled: text that is read again may become other
tokens, and then has another probability. A truncated answer is weighed like any other.

The questions are those that the adapters were trained on, so a value here is no promise for others,
and a mean weight far above 1 says that an adapter has learned the log's answers by heart. Held-out
questions are asked in `evaluate`.

Shapes: N first answers of one group, X prompts of the log, K candidates (padded).
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialign_ray.actors.workers import Workers
from trialign_ray.checkpoint import write_json
from trialign_ray.config import Config
from trialign_ray.off_policy import (
    EstimateOptions,
    candidate_values,
    estimate_group,
    fitted_values,
    mean_estimate,
)
from trialign_ray.off_policy_log import GroupLog, group_logs
from trialign_ray.progress import Progress
from trialign_ray.run_directory import RunDirectory
from trialign_ray.seeds import derive_seed

Floats = NDArray[np.float64]
REWARDS = ("truth", "personalization")
SAME_TOKENS_NATS = 0.01
"""A text whose reference score is as near as this to what was logged became the same tokens again.
Any other answer is scored by its tokens."""
CONTRADICTION_NATS = 0.5
"""An answer that is further than this from the behaviour model's log-probability of its tokens was
not said by it as logged. Rounding is about 1e-5 in fp32, up to some tenths in bf16."""


def write_estimates(
    run: RunDirectory, workers: Workers, config: Config, progress: Progress
) -> None:
    """`off_policy.json` and `off_policy/...` metrics; nothing where the file is there already."""
    if run.off_policy_file.is_file():
        return
    report = evaluate_off_policy(run, workers, config)
    for group in report["groups"]:
        progress.metrics(off_policy_metrics(report, group), 0, group=group)
    write_json(run.off_policy_file, report)


def evaluate_off_policy(
    run: RunDirectory, workers: Workers, config: Config, model: str = "aligned"
) -> dict[str, Any]:
    """What `off_policy.json` holds: by group the estimates of each reward (see
    `off_policy.estimate_group`), and how far the log can be trusted for them.

    truth is the gold where it is visible, else the truth head's probability. behaviour: what the
    answers that were used earned, the value of the policy that gave them. dm: the direct method,
    the critic's word alone, never refused; what no candidate says counts as 0 there, and coverage
    is the share of the adapter's first answers that are candidates. fqe: fitted Q evaluation (see
    `off_policy.fitted_values`), never refused either. num_contradicted: answers whose
    logged log-probability the behaviour model does not confirm; they are left out.
    max_difference_nats: the largest such difference.
    Args: model: what is evaluated; "behaviour" must give what the log earned.
    """
    logs = group_logs(run, workers.groups)
    options = EstimateOptions(temperature=config.collect.temperature)
    doubted = {g: _first_answers_in_doubt(log) for g, log in logs.items()}
    rescored = _score(logs, doubted, workers, "behaviour")
    scored = _score(logs, {g: _all(log) for g, log in logs.items()}, workers, model)
    groups = {
        g: group_report(log, rescored[g], scored[g], options, derive_seed(config.seed, g))
        for g, log in logs.items()
    }
    return {
        "split": "train",
        "turn": 0,
        "temperature": options.temperature,
        "min_ess": options.min_ess,
        "groups": groups,
    }


def _all(log: GroupLog) -> list[list[int]]:
    return [list(range(len(row))) for row in log.candidates_XK]


def _first_answers_in_doubt(log: GroupLog) -> list[list[int]]:
    """Candidates, by prompt, whose text does not score as the utterance was logged."""
    doubted: list[set[int]] = [set() for _ in log.contexts_X]
    for x, k in zip(log.question_N[~_reread(log)], log.candidate_N[~_reread(log)], strict=True):
        doubted[x] |= {int(k)} - {-1}
    return [sorted(chosen) for chosen in doubted]


def _reread(log: GroupLog) -> NDArray[np.bool_]:
    return np.abs(log.reference_N - log.answers.behaviour_logprob_N) <= SAME_TOKENS_NATS


def _score(
    logs: Mapping[str, GroupLog],
    wanted: Mapping[str, list[list[int]]],
    workers: Workers,
    model: str,
) -> dict[str, Floats]:
    """Log-probabilities by group of the wanted candidates, shape (X, K), else nan."""
    arguments = {}
    for group, log in logs.items():
        asked = [(x, chosen) for x, chosen in enumerate(wanted[group]) if chosen]
        prompts = [log.contexts_X[x][1] for x, _ in asked]
        utterances = [[log.candidates_XK[x][k].utterance for k in own] for x, own in asked]
        if asked:
            arguments[group] = (model, prompts, utterances)
    scores = workers.on_groups("score", arguments)
    padded = {}
    for group, log in logs.items():
        width = max((len(row) for row in log.candidates_XK), default=0) or 1
        padded[group] = np.full((len(log.contexts_X), width), np.nan)
        answered = iter(scores.get(group, ()))
        for x, chosen in enumerate(wanted[group]):
            if chosen:
                padded[group][x, chosen] = [s.logprob for s in next(answered)]
    return padded


def group_report(
    log: GroupLog, old_XK: Floats, new_XK: Floats, options: EstimateOptions, seed: int
) -> dict[str, Any]:
    rescored_N = np.where(_reread(log), log.reference_N, _of_answers(log, old_XK))
    difference_N = np.abs(rescored_N - log.answers.behaviour_logprob_N)
    # Both probabilities of a weight come from the same computation, so that rounding cancels.
    behaviour_N = np.where(difference_N <= CONTRADICTION_NATS, rescored_N, np.nan)
    log = replace(log, answers=replace(log.answers, behaviour_logprob_N=behaviour_N))
    mass_X = np.where(np.isnan(new_XK), 0.0, np.exp(new_XK)).sum(-1)
    return {
        "num_answers": len(difference_N),
        "num_contradicted": int((difference_N > CONTRADICTION_NATS).sum()),
        "max_difference_nats": float(np.nanmax(difference_N, initial=0.0)),
        "coverage": float(mass_X.mean()) if len(mass_X) else None,
        "rewards": {
            name: _reward_report(log, name, new_XK, options, derive_seed(seed, name))
            for name in REWARDS
        },
    }


def _of_answers(log: GroupLog, value_XK: Floats) -> Floats:
    """The first answers' entries, shape (N,); nan where an answer is no candidate."""
    value_N = value_XK[log.question_N, np.maximum(log.candidate_N, 0)]
    return np.where(log.candidate_N >= 0, value_N, np.nan)


def _reward_report(
    log: GroupLog, name: str, new_XK: Floats, options: EstimateOptions, seed: int
) -> dict[str, Any]:
    """The estimates of one reward; beside them the critic's own, and what the answers earned.

    For DR an answer is judged by candidates that other episodes hold (see `candidate_values`).
    """
    answers = log.answers
    q_XK, only_XK = np.full(new_XK.shape, np.nan), np.full(new_XK.shape, "", dtype=object)
    for x, row in enumerate(log.candidates_XK):
        q_XK[x, : len(row)] = [getattr(said, name) for said in row]
        only_XK[x, : len(row)] = [said.only_episode for said in row]
    new_NK, q_NK = new_XK[log.question_N], q_XK[log.question_N]
    known_NK = ~np.isnan(q_NK)
    others_NK = known_NK & (only_XK[log.question_N] != np.array(answers.episode_ids)[:, None])
    num_N = np.arange(len(new_NK))
    crossed = candidate_values(num_N, log.candidate_N, new_NK, q_NK, others_NK)
    direct = candidate_values(num_N, log.candidate_N, new_NK, q_NK, known_NK)
    covered = candidate_values(num_N, log.candidate_N, new_NK, np.ones_like(q_NK), others_NK)
    own_N = getattr(answers, f"{name}_N")
    reward_N = np.where(np.isnan(own_N), _of_answers(log, q_XK), own_N)
    new_N = _of_answers(log, new_XK)
    report = estimate_group(answers, new_N, reward_N, crossed, options, seed=seed)
    unused_N = np.isnan(reward_N + new_N + answers.behaviour_logprob_N)
    fitted_N = fitted_values(np.where(unused_N, np.nan, reward_N), covered, crossed)
    for key, value_N in (("dm", direct.value_N), ("fqe", fitted_N), ("behaviour", reward_N)):
        used_N = np.where(unused_N, np.nan, value_N)
        report[key] = mean_estimate(answers, used_N, options, seed=derive_seed(seed, key))
    return report


def off_policy_metrics(report: dict[str, Any], group: str) -> dict[str, float]:
    """One group's estimates as `off_policy/...` metrics; what was refused is absent."""
    metrics = {}
    for reward, estimates in report["groups"][group]["rewards"].items():
        metrics[f"off_policy/{reward}_ess"] = estimates["ess"]
        for name in ("behaviour", "is", "wis", "dr", "dm", "fqe"):
            if estimates[name] is not None:
                metrics[f"off_policy/{reward}_{name}"] = estimates[name]["value"]
    return metrics
