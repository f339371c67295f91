"""A folder of TRL data with its card: one file per format, as `datasets.load_dataset` reads it."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import yaml

from envs.prompts import question_messages
from envs.types import Message
from trialign_ray.config import Config
from trialign_ray.errors import ConfigError, DataError
from trialign_ray.run_directory import RunDirectory
from trialign_ray.run_models import run_base
from trialign_ray.setting import Setting, build_setting
from trialign_ray.trl.format import (
    FORMATS,
    Format,
    Prompt,
    PromptOf,
    TrlOptions,
    trl_rows,
    write_rows,
)

PROMPTS = ("messages", "text")


def export_trl(
    run: RunDirectory,
    config: Config,
    out: Path,
    kinds: Sequence[str],
    options: TrlOptions,
) -> dict[str, int]:
    """Writes the formats asked for; returns the number of rows of each.

    Args: kinds: if empty, all of which the run can give at least a row; the others count 0.
    Raises: ConfigError for an unknown format or a folder that is there already; DataError if the
    run cannot give them.
    """
    for kind in kinds:
        if kind not in FORMATS:
            raise ConfigError(f"--format is {kind!r}; expected one of {', '.join(FORMATS)}")
    if options.prompts not in PROMPTS:
        raise ConfigError(f"--prompts is {options.prompts!r}; expected one of {', '.join(PROMPTS)}")
    out = out.expanduser().resolve()
    if out.exists():
        raise ConfigError(f"{out} is there already; give --out a folder that is not")
    if not run.log_file.is_file():
        raise DataError(f"{run.root} has no log; collect one with `trialign collect`")
    prompt_of = rendered_prompt if options.prompts == "text" else _run_prompts(run, config)
    ending = "parquet" if options.parquet else "jsonl"
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    counts: dict[str, int] = {}
    try:
        for kind in kinds or FORMATS:
            rows = trl_rows(run, config, cast(Format, kind), options, prompt_of)
            counts[kind] = len(rows)
            if rows:
                write_rows(rows, building / f"{kind}.{ending}")
            elif kinds or (not any(counts.values()) and kind == FORMATS[-1]):
                raise DataError(_nothing(run, kind, options))
        card = trl_card(run, config, options, counts, ending)
        (building / "README.md").write_text(card, encoding="utf-8")
        building.rename(out)
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return counts


def _nothing(run: RunDirectory, kind: str, options: TrlOptions) -> str:
    return (
        f"{run.root} gives no {kind} rows: no two answers of a question differ by more than "
        f"{options.margin:g} in what is known of them; lower --margin, or verify more questions"
    )


def _run_prompts(run: RunDirectory, config: Config) -> PromptOf:
    from trialign_ray.chat_template import chat_text
    from trialign_ray.language_model import load_tokenizer

    tokenizer = load_tokenizer(run_base(run, config).folder, config.model)
    setting = build_setting(config.judged_by_rules, run.root)
    return message_prompts(config, setting, partial(chat_text, tokenizer))


def rendered_prompt(question: str, group: str, text: str) -> Prompt:
    """The prompt as it stands in the log."""
    return text


def message_prompts(
    config: Config, setting: Setting, render: Callable[[Sequence[Message]], str]
) -> PromptOf:
    """Prompts as messages, from questions and groups; `render` shows that they are the log's.

    Raises, when a prompt is asked for: DataError if the log's prompt is another one.
    """
    questions = {q.id: q for q in setting.questions}
    groups = {g.name: g for g in setting.groups}

    def prompt_of(question: str, group: str, text: str) -> Prompt:
        asked, whom = questions.get(question), groups.get(group)
        if asked is not None and whom is not None:
            messages = question_messages(asked, config.world.prompt_mode, whom)
            if render(messages) == text:
                return messages
        raise DataError(
            f"the log's prompt of group {group!r} about {question!r} is not what questions, pack "
            "and chat template give now; put them back as they were, or export rendered prompts "
            "with --prompts text"
        )

    return prompt_of


def trl_card(
    run: RunDirectory,
    config: Config,
    options: TrlOptions,
    counts: Mapping[str, int],
    ending: str,
) -> str:
    """README.md of the folder: how the rows were made, and what the Hub needs to load them."""
    matter: dict[str, Any] = {
        "pretty_name": f"TriAlign preferences {run.name}",
        "license": "other",
        "license_name": "to-be-decided",
        "tags": ["trialign", "trl", "preference", "personalization"],
        "configs": [
            {"config_name": kind, "data_files": f"{kind}.{ending}", "default": i == 0}
            for i, kind in enumerate(kind for kind, count in counts.items() if count)
        ],
    }
    truth, liking = config.targets.truth_weight, config.targets.personalization_weight
    shape = "chat messages"
    if options.prompts == "text":
        shape = (
            "text as the chat template of the base rendered it, special tokens included; a "
            "tokenizer that adds a beginning-of-sequence token by itself would add a second one"
        )
    sizes = "\n".join(f"- `{kind}`: {count} rows" for kind, count in counts.items())
    return f"""---
{yaml.safe_dump(matter, sort_keys=False)}---

# TRL data of run {run.name}

{sizes}

Every row has a `group` and a `question_id`; prompts are {shape}. The prompt holds what the group's
agent was told of its user ({config.world.prompt_mode} prompt of pack `{config.world.groups}`).

**What an answer is worth** (`score`, 0 to 1): the mean of its truth (weight {truth:g}) and of how
its raters liked it (`personalization`, weight {liking:g}), of those that are known for all of the
group's answers to the question. Truth is the visible gold where there is one (`truth_source` gold),
else the belief of the critic's truth head `{config.critic.truth_head}` (`truth_source` critic), a
model's estimate. Hidden gold was not used.

**preference**: the best answer of a group to a question against those that are worse by more than
{options.margin:g}, at most {options.max_pairs} of them, the widest difference first.
**unpaired**: `label` is true above the question's mean score (weighted by how often each answer
was logged) and false below it, for answers further than {options.margin:g} from it.
**sft**: the likeliest target of the central problem, with its probability (`target`).

Licences, splits, limits and personal data: see the card of the log (`trialign data card`). Only
train questions are in here. Licence of this data: **to be filled in**.
"""
