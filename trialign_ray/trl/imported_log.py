"""Imported preferences as a log that `train --resume` goes on from.

Somebody else's answers: the tokens that were sampled and their log-probabilities are not known and
stay null, so that off-policy estimates, which need them, leave these answers out. Reference scores
are computed from the text by the run's own behaviour model, as for any log.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from envs.groups import Group
from envs.prompts import question_messages
from envs.types import Message, PromptMode, Question
from envs.verifiers import parse_answer, truth_of
from trialign_ray.config import Config
from trialign_ray.dataset import find_problems, write_dataset
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.run_directory import open_run
from trialign_ray.trl.reading import Liked, folded, question_id, raise_all, read_trl


@dataclass(frozen=True)
class LogOptions:
    """What a log says beside the answers: how prompts are rendered, and which base is the
    reference."""

    mode: PromptMode
    render: Callable[[Sequence[Message]], str]
    behaviour_model_id: str


@dataclass(frozen=True)
class ImportedLog:
    """rows: of `dataset.SCHEMA`. num_held_out: answers left out, since their questions are not of
    the train split. by_group: answers taken."""

    rows: list[dict[str, Any]]
    num_held_out: int
    by_group: dict[str, int]


def import_log(file: Path, config: Config, where: Path) -> ImportedLog:
    """Makes a run directory whose log is the file's answers; nothing is made if anything is wrong.

    Raises: ConfigError if the run directory is there already, or the configuration fits its
    behaviour model first, which needs no log of others; DataError by line.
    """
    from trialign_ray.chat_template import chat_text
    from trialign_ray.checks import check_vocabulary
    from trialign_ray.language_model import load_tokenizer, weights_checksum
    from trialign_ray.model_source import resolve_model
    from trialign_ray.setting import build_setting

    if config.fits_behaviour:
        raise ConfigError(
            "behaviour.model is not given, so the run would fit TruthWorld's own; name the model "
            "that the adapters are to stand on as behaviour.base"
        )
    answers = read_trl(file)
    setting = build_setting(config.judged_by_rules, where)
    check_vocabulary(config, setting)
    visible = setting.log_questions(config.collect.label_fraction, config.seed)
    held_out = [q for q in setting.questions if q.split != "train"]
    folder = resolve_model(config.behaviour.given, config.model)
    options = LogOptions(
        mode=config.world.prompt_mode,
        render=partial(chat_text, load_tokenizer(folder, config.model)),
        behaviour_model_id=weights_checksum(folder),
    )
    log = build_log(answers, [*visible, *held_out], setting.groups, options)
    raise_all([f"{file}: {problem}" for problem in find_problems(log.rows)])
    write_dataset(log.rows, open_run(where, config, resume=False).log_file)
    return log


def build_log(
    answers: Sequence[Liked],
    questions: Sequence[Question],
    groups: Sequence[Group],
    options: LogOptions,
) -> ImportedLog:
    """Rows of a log: the k-th answer of every group to a question stands in its k-th row.

    Args: questions: of the run, all splits, gold visible where the method may see it; what is
    asked here and is not of the train split stays held out. Raises: DataError by line for a group
    or question that the run does not have; DataError for a group without any answer.
    """
    placed = _placed(answers, questions, groups)
    train = {q.id: q for q in questions if q.split == "train"}
    said: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    verdicts: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for question, answer in placed:
        if question in train:
            said[question][answer.group].append(answer.text)
            verdicts[question, answer.group, answer.text].append(answer.liked)
    taken = {g.name: sum(len(own[g.name]) for own in said.values()) for g in groups}
    for name, count in taken.items():
        if count == 0:
            raise DataError(
                f"group {name!r} has no answer to a train question; take it out of the pack "
                "(world.num_groups), add data, or raise world.train_fraction"
            )
    rows = [
        _row(train[identity], k, own, verdicts, groups, options)
        for identity, own in sorted(said.items())
        for k in range(max(map(len, own.values())))
    ]
    return ImportedLog(rows, len(answers) - sum(taken.values()), taken)


def _placed(
    answers: Sequence[Liked], questions: Sequence[Question], groups: Sequence[Group]
) -> list[tuple[str, Liked]]:
    """Every answer with the id of its question: by question_id, else by the question's words."""
    ids = {q.id for q in questions}
    id_of = {folded(q.text): q.id for q in questions}
    names = {g.name for g in groups}
    placed, problems = [], []
    for answer in answers:
        given = question_id(answer)
        found = given if given in ids else id_of.get(folded(answer.question))
        if answer.group not in names:
            problems.append(
                f"{answer.where}: group {answer.group!r} is not of the run's pack "
                f"({', '.join(sorted(names))})"
            )
        elif found is None:
            problems.append(
                f"{answer.where}: question {answer.question[:60]!r} is none of the run's; write "
                "the data's questions with --questions-out and name that file in world.questions"
            )
        else:
            placed.append((found, answer))
    raise_all(list(dict.fromkeys(problems)))
    return placed


def _row(
    question: Question,
    k: int,
    own: Mapping[str, Sequence[str]],
    verdicts: Mapping[tuple[str, str, str], Sequence[float]],
    groups: Sequence[Group],
    options: LogOptions,
) -> dict[str, Any]:
    texts = [own[g.name][k] if k < len(own[g.name]) else None for g in groups]
    parsed = [None if t is None else parse_answer(t, question) for t in texts]
    seen = question.gold_visible
    return {
        "episode_id": f"{question.id}#{k}",
        "turn": 0,
        "question_id": question.id,
        "kind": question.kind,
        "split": question.split,
        "source": question.source,
        "gold_visible": seen,
        "group_ids": [g.name for g in groups],
        "present": [t is not None for t in texts],
        "prompt_text": [_prompt(question, g, options) for g in groups],
        "action_text": texts,
        "action_token_ids": [None] * len(groups),
        "behaviour_logprob": [None] * len(groups),
        "parsed_answer": parsed,
        "r_truth": [truth_of(a, question) if seen and a is not None else None for a in parsed],
        "r_pers": [
            None if t is None else fmean(verdicts[question.id, g.name, t])
            for g, t in zip(groups, texts, strict=True)
        ],
        "terminated": True,
        "truncated": [False] * len(groups),
        "visible_peers": [[] for _ in groups],
        "behaviour_model_id": options.behaviour_model_id,
    }


def _prompt(question: Question, group: Group, options: LogOptions) -> str:
    return options.render(question_messages(question, options.mode, group))
