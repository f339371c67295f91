"""The audit: before any training, which groups are told fewer truths, and how sure is that.

One model (or endpoint) x groups, neutral controls and a user without persona x questions. Nothing
is trained and no Ray is started. Answers are kept as they come, so that an audit can be resumed.
"""

from collections.abc import Callable
from typing import Any

from trialign_ray.audit.answers import AnswerLog, ask_batch
from trialign_ray.audit.examples import examples
from trialign_ray.audit.folder import AuditFolder, Subject
from trialign_ray.audit.judged import Asked, Judged
from trialign_ray.audit.metrics import measure
from trialign_ray.audit.respondents import Respondents
from trialign_ray.audit.verdict import verdict
from trialign_ray.checkpoint import write_json
from trialign_ray.checks import check_vocabulary
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError, TrialignError, WorkerError
from trialign_ray.progress import Display
from trialign_ray.setting import build_setting

STAGE = "ask the model"
MIN_QUESTIONS = 2


def what_is_asked(config: Config, split: str) -> Asked:
    """Questions and audiences. Raises: ConfigError or DataError, before any model is loaded."""
    setting = build_setting(_of_questions_alone(config))
    if _asks_tiny_model(config):
        check_vocabulary(config, setting)
    questions = [q for q in setting.questions if split == "all" or q.split == split]
    asked = Asked(
        questions=tuple(questions),
        groups=tuple(setting.groups),
        controls=tuple(setting.controls),
        mode=config.evaluate.modes[0],
    )
    sources = ", ".join(config.world.questions)
    if not questions:
        raise ConfigError(
            f"no question of {sources} is in the {split} split; give more questions, or --split all"
        )
    if len(asked.with_truth) < MIN_QUESTIONS:
        raise ConfigError(
            f"{len(asked.with_truth)} of {len(questions)} questions of {sources} (split {split}) "
            f"have a known answer, an audit of truth needs at least {MIN_QUESTIONS}; add a source "
            "with known answers, or --split all"
        )
    without = [g.name for g in asked.groups if not any(g.history_variants)]
    if asked.mode == "implicit" and without:
        raise ConfigError(
            f"evaluate.modes begins with implicit, but group {without[0]!r} has no history to "
            "show; give it one in the pack, or set evaluate.modes=[explicit]"
        )
    return asked


def _asks_tiny_model(config: Config) -> bool:
    return config.engine.kind != "server" and config.behaviour.given == "truthworld"


def _of_questions_alone(config: Config) -> Config:
    """Without what only training needs: style is judged by rules alone, so that no judge is paid,
    and no myths are drawn for a model that was not trained on them."""
    update: dict[str, Any] = {}
    if not _asks_tiny_model(config):
        base = config.behaviour.model or config.engine.model or "served"
        update["behaviour"] = config.behaviour.model_copy(update={"base": base})
    return config.judged_by_rules.model_copy(update=update)


def ask_all(
    asked: Asked, respondents: Respondents, log: AnswerLog, config: Config, display: Display
) -> None:
    """Asks what is missing, audience by audience, and keeps every batch at once.

    Raises: the respondent's own errors; what was answered before is kept.
    """
    total = len(asked.audiences) * len(asked.questions)
    missing = {a: log.missing(a, asked.questions) for a in asked.audiences}
    done = total - sum(map(len, missing.values()))
    display.start(STAGE, total)
    display.advance(STAGE, done, "kept from before" if done else "")
    for audience, questions in missing.items():
        respondent = respondents.of(audience) if questions else None
        for start in range(0, len(questions), respondents.batch_size):
            batch = questions[start : start + respondents.batch_size]
            assert respondent is not None
            choice = config.evaluate.multiple_choice
            log.add(ask_batch(respondent, audience, batch, asked.mode, choice))
            done += len(batch)
            display.advance(STAGE, done, audience.name)
    display.finish(STAGE, f"{total} answers")


def run_audit(
    asked: Asked,
    subject: Subject,
    respondents: Callable[[], Respondents],
    folder: AuditFolder,
    config: Config,
    display: Display,
) -> dict[str, Any]:
    """Asks, measures and writes audit.json; returns what it holds.

    Args: respondents: starts whoever answers; not called if nothing is missing.
    Raises: WorkerError if an endpoint fails in the middle, saying how to go on.
    """
    log = AnswerLog(folder.answers_file)
    before = _num_missing(asked, log)
    if before:
        try:
            _ask(asked, respondents, log, config, display)
        except TrialignError as error:
            if _num_missing(asked, log) == before and not isinstance(error, WorkerError):
                folder.discard_without_answers()
                raise  # wrong input: it would fail again
            raise WorkerError(f"{error}; {_kept(asked, log, folder)}") from error
    result = results(asked, subject, log, config)
    write_json(folder.result_file, result)
    return result


def _ask(
    asked: Asked,
    respondents: Callable[[], Respondents],
    log: AnswerLog,
    config: Config,
    display: Display,
) -> None:
    started = respondents()
    try:
        ask_all(asked, started, log, config, display)
    finally:
        started.close()


def _num_missing(asked: Asked, log: AnswerLog) -> int:
    return sum(len(log.missing(a, asked.questions)) for a in asked.audiences)


def _kept(asked: Asked, log: AnswerLog, folder: AuditFolder) -> str:
    total = len(asked.audiences) * len(asked.questions)
    return (
        f"{total - _num_missing(asked, log)} of {total} answers are kept in {folder.answers_file}; "
        f"go on with the same command and --resume --run-dir {folder.root}"
    )


def results(asked: Asked, subject: Subject, log: AnswerLog, config: Config) -> dict[str, Any]:
    """What audit.json holds."""
    judged = Judged(asked, log)
    figures = measure(judged, config)
    return {
        "subject": {"title": subject.title, **subject.identity},
        "seed": config.seed,
        "mode": asked.mode,
        "multiple_choice": config.evaluate.multiple_choice,
        "groups": [g.name for g in asked.groups],
        "verdict": verdict(figures, config.collect.max_new_tokens),
        **figures,
        "examples": examples(judged),
    }
