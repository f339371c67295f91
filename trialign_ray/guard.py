"""Stage 6b, the guard: on validation questions, is every group served at least as well as before?

One trained policy against the behaviour model, judged as `selection` judges trials; the test
questions are not looked at.

Shapes: G groups, X validation questions with a truth.
"""

import json
from dataclasses import asdict
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trialign_ray.actors.workers import Workers
from trialign_ray.config import Config
from trialign_ray.evaluate import answer_questions
from trialign_ray.metrics import Protocol, kept_all, truth_arrays
from trialign_ray.run_directory import RunDirectory
from trialign_ray.seeds import derive_seed
from trialign_ray.selection import Selection, SelectionRule, Trial, select

MIN_QUESTIONS = 2
MARGIN = 0.02
"""Share of questions that a group may lose: one of the fifty or so that validation has."""


def judge_on_validation(protocol: Protocol, workers: Workers, config: Config) -> dict[str, Any]:
    """What `selection.json` holds: the verdict on the trained adapters in one sentence ("verdict"),
    whether it is good ("passed"; None if nobody could judge), and the figures behind it.

    The score is log-Nash welfare of truth less `targets.penalty_weight` times the share of pairs of
    groups that are told different answers. Passed: its gain has a one-sided 95 % lower bound above
    0, and no group loses more than 2 points of truth or of style.
    """
    num_facts = sum(q.has_truth and bool(q.gold) for q in protocol.questions)
    head = {"split": "validation", "num_truth_questions": num_facts}
    if num_facts < MIN_QUESTIONS:
        why = (
            f"not judged: the validation split has {num_facts} questions with a known answer, at "
            f"least {MIN_QUESTIONS} are needed; raise world.validation_fraction"
        )
        return {**head, "passed": None, "verdict": why}
    rule = SelectionRule(
        penalty_weight=config.targets.penalty_weight, truth_margin=MARGIN, adherence_margin=MARGIN
    )
    names = [g.name for g in protocol.groups]
    before, after = (trial_of(protocol, workers, model) for model in ("behaviour", "aligned"))
    seed = derive_seed(config.seed, "guard")
    selection = select([after], before, names, rule, seed=seed)
    settings = asdict(rule)
    del settings["welfare"]
    return {
        **head,
        "passed": selection.beats_baseline,
        "verdict": verdict(selection, num_facts),
        "rule": {"welfare": "log_nash", **settings},
        "trial": selection.trials[0].as_row(),
        "truth": {
            t.name: dict(zip(names, t.correct_GX.mean(-1).tolist(), strict=True))
            for t in (before, after)
        },
    }


def trial_of(protocol: Protocol, workers: Workers, model: str) -> Trial:
    """Greedy answers of a model to the protocol's questions, as `selection` compares them."""
    answers = answer_questions(protocol, workers, model, protocol.config.modes[0])
    correct_GX, answer_GX, _ = truth_arrays(protocol, answers)
    return Trial(
        name=model,
        settings={},
        correct_GX=correct_GX,
        adherence_GA=np.stack([kept_all(protocol, answers, g) for g in protocol.groups]),
        inconsistency_X=pair_disagreement(answer_GX),
    )


def pair_disagreement(answer_GX: NDArray[Any]) -> NDArray[np.float64]:
    """Share of pairs of groups that are told different answers, shape (X,); 0 for one group."""
    pairs = [a != b for a, b in combinations(answer_GX, 2)]
    return np.mean(pairs, 0).astype(float) if pairs else np.zeros(answer_GX.shape[1])


def verdict(selection: Selection, num_facts: int) -> str:
    """One sentence, for the terminal and the report."""
    trial = selection.trials[0]
    where = f"the personalized model on {num_facts} validation facts"
    if selection.beats_baseline:
        return (
            f"the adapters beat {where}: welfare less inconsistency gains {trial.gain:+.3f}, lower "
            f"bound {trial.gain_lcb:+.3f}; no group falls by more than {100 * MARGIN:g} points"
        )
    return f"the adapters do not beat {where}: {'; '.join(trial.excluded)}"


def guard_sentence(guard: dict[str, Any]) -> str:
    """The verdict as a sentence, a warning where it is bad."""
    verdict = guard["verdict"]
    if guard["passed"] is False:
        return f"Warning: {verdict}."
    return f"{verdict[0].upper()}{verdict[1:]}."


def read_guard(run: RunDirectory) -> dict[str, Any] | None:
    """selection.json; None where the run has none."""
    path = run.selection_file
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
