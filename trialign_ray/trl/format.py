"""A run's log and targets as TRL's data: preference pairs, labelled answers, answers to imitate.

What an answer is worth is the mean, by `targets.truth_weight` and `targets.personalization_weight`,
of what is known of it: its truth (the gold where it is visible, else the critic's belief) and how
the raters liked it. Hidden gold is not looked at.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from envs.types import Message
from trialign_ray.candidates import Candidate, JointQuestion, join_questions
from trialign_ray.checkpoint import write_atomically
from trialign_ray.config import Config
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.run_directory import RunDirectory

Format = Literal["preference", "unpaired", "sft"]
FORMATS: tuple[Format, ...] = ("preference", "unpaired", "sft")
Prompt = str | list[Message]
PromptOf = Callable[[str, str, str], Prompt]
"""(question id, group, rendered prompt of the log) -> what stands in a row."""


@dataclass(frozen=True)
class TrlOptions:
    """margin: least difference of scores between chosen and rejected, and from the question's mean
    for a label. max_pairs: per question and group, widest difference first. prompts: messages, or
    text as the chat template rendered it. parquet: not JSON lines."""

    margin: float = 0.05
    max_pairs: int = 4
    prompts: str = "messages"
    parquet: bool = False


@dataclass(frozen=True)
class ScoredAnswer:
    """A candidate and what it is worth, in [0, 1]. truth, personalization: None where not known.
    truth_source: gold, critic or None."""

    candidate: Candidate
    score: float
    truth: float | None
    truth_source: str | None
    personalization: float | None


Scored = dict[tuple[str, str], list[ScoredAnswer]]
"""By question and group; answers whose worth is not known are left out."""


def trl_rows(
    run: RunDirectory, config: Config, kind: Format, options: TrlOptions, prompt_of: PromptOf
) -> list[dict[str, Any]]:
    """Rows of one format, in the order of questions and groups.

    Empty where no two answers of a question differ by more than the margin.
    Raises: ConfigError for a margin or number of pairs out of range; DataError if the run has no
    log, or no targets where they are asked for.
    """
    if not 0 <= options.margin < 1 or options.max_pairs < 1:
        raise ConfigError(
            f"--margin is {options.margin:g} (expected 0 to 1), --max-pairs {options.max_pairs} "
            "(expected 1 or more)"
        )
    if kind == "sft":
        rows = list(_sft(run, options, prompt_of))
    else:
        questions = join_questions(read_dataset(run.log_file))
        prompts = {(q.id, g): view.prompt for q in questions for g, view in q.views.items()}
        scored = scored_answers(questions, _beliefs(run), config)
        make = _pairs if kind == "preference" else _labelled
        rows = [
            row
            for (question, group), answers in scored.items()
            for row in make(
                {"prompt": prompt_of(question, group, prompts[question, group])},
                {"group": group, "question_id": question},
                answers,
                options,
            )
        ]
    return rows


def scored_answers(
    questions: Sequence[JointQuestion],
    beliefs: Mapping[str, Mapping[str, float | None]],
    config: Config,
) -> Scored:
    """What every group's logged answers are worth.

    An objective counts for a question only if it is known of all the group's answers to it; else
    those of which it is known would be compared with those of which it is not.
    """
    scored: Scored = {}
    for question in questions:
        for group, view in question.views.items():
            answers = [_known(c, question, beliefs.get(question.id)) for c in view.candidates]
            weights = {
                "truth": config.targets.truth_weight,
                "personalization": config.targets.personalization_weight,
            }
            used = {
                name: weight
                for name, weight in weights.items()
                if weight > 0 and all(getattr(a, name) is not None for a in answers)
            }
            if answers and used:
                scored[question.id, group] = [_with_score(a, used) for a in answers]
    return scored


def _known(
    candidate: Candidate, question: JointQuestion, believed: Mapping[str, float | None] | None
) -> ScoredAnswer:
    from trialign_ray.off_policy_log import believed_truth

    truth, source = candidate.truth, "gold"
    if truth is None and question.has_truth:
        belief = believed_truth(candidate.answer, None, believed)
        truth, source = (None if math.isnan(belief) else float(belief)), "critic"
    return ScoredAnswer(
        candidate, 0.0, truth, None if truth is None else source, candidate.personalization
    )


def _with_score(answer: ScoredAnswer, weights: Mapping[str, float]) -> ScoredAnswer:
    total = sum(w * getattr(answer, name) for name, w in weights.items())
    return ScoredAnswer(
        answer.candidate,
        total / sum(weights.values()),
        answer.truth,
        answer.truth_source,
        answer.personalization,
    )


def _beliefs(run: RunDirectory) -> dict[str, dict[str, float | None]]:
    path = run.root / "critic" / "truth_head.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _said(prompt: Prompt, text: str) -> str | list[Message]:
    """An answer in the shape of its prompt."""
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]


def _pairs(
    prompt: dict[str, Any], keys: dict[str, Any], answers: Sequence[ScoredAnswer], o: TrlOptions
) -> Iterator[dict[str, Any]]:
    """The best answer against every one that is worse by more than the margin."""
    ranked = sorted(answers, key=lambda a: (-a.score, -a.candidate.count, a.candidate.text))
    best = ranked[0]
    worse = [a for a in reversed(ranked) if best.score - a.score > o.margin]
    for other in worse[: o.max_pairs]:
        row = {**prompt}
        for role, answer in (("chosen", best), ("rejected", other)):
            row[role] = _said(prompt["prompt"], answer.candidate.text)
        row |= keys
        for role, answer in (("chosen", best), ("rejected", other)):
            row |= {f"{key}_{role}": value for key, value in _figures(answer).items()}
        yield row


def _labelled(
    prompt: dict[str, Any], keys: dict[str, Any], answers: Sequence[ScoredAnswer], o: TrlOptions
) -> Iterator[dict[str, Any]]:
    """Each answer that is further than the margin from the question's mean, weighted by how often
    each was logged; the others teach nothing."""
    total = sum(a.candidate.count for a in answers)
    mean = sum(a.candidate.count * a.score for a in answers) / total
    for answer in answers:
        if abs(answer.score - mean) > o.margin:
            yield {
                **prompt,
                "completion": _said(prompt["prompt"], answer.candidate.text),
                "label": answer.score > mean,
                **keys,
                **_figures(answer),
                "mean_score": mean,
                "count": answer.candidate.count,
            }


def _figures(answer: ScoredAnswer) -> dict[str, Any]:
    return {
        "score": answer.score,
        "truth": answer.truth,
        "truth_source": answer.truth_source,
        "personalization": answer.personalization,
    }


def _sft(run: RunDirectory, options: TrlOptions, prompt_of: PromptOf) -> Iterator[dict[str, Any]]:
    """The likeliest target of every question and group, with its probability."""
    from trialign_ray.training_rows import SHARED_ROWS

    folder = run.root / "targets"
    files = [f for f in sorted(folder.glob("*.parquet")) if f.is_file()] or [folder / SHARED_ROWS]
    if not files[0].is_file():
        raise DataError(
            f"{run.root} has no targets, which are what there is to imitate; go on with `trialign "
            "train --resume`, or take another --format"
        )
    for file in files:
        for row in pq.read_table(file).to_pylist():
            best = max(range(len(row["target"])), key=lambda k: row["target"][k])
            prompt = prompt_of(row["question_id"], row["group"], row["prompt_text"])
            yield {
                "prompt": prompt,
                "completion": _said(prompt, row["candidate_text"][best]),
                "group": row["group"],
                "question_id": row["question_id"],
                "target": row["target"][best],
                "num_candidates": len(row["target"]),
            }


def write_rows(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Writes JSON lines or Parquet, by the file's ending. Raises: ConfigError for another."""
    if path.suffix == ".jsonl":
        lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in rows)
        write_atomically(path, "".join(f"{line}\n" for line in lines).encode())
    elif path.suffix == ".parquet":
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        pq.write_table(pa.Table.from_pylist(list(rows)), temporary, compression="zstd")
        temporary.replace(path)
    else:
        raise ConfigError(f"{path} ends in {path.suffix!r}; expected .jsonl or .parquet")
