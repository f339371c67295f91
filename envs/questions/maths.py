r"""GSM8K, MATH-500 and AIME 2024/25: the final answer is asked for in \boxed{}."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from envs.questions.source import (
    HubSet,
    Row,
    Source,
    family_of,
    json_lines,
    questions_of_rows,
)
from envs.types import Question

INSTRUCTION = r"Reason step by step, and put your final answer within \boxed{}."
_TEMPLATE_TOKEN = re.compile(r"<[|｜][^<>|｜]*[|｜]>(?:(?:user|assistant|system)\n)?|<think>\n?")
_ASKS_FOR_BOX = re.compile(r"Please reason step by step[^\n]*?\\boxed\{+\}+\s*\.?")


def without_template(prompt: str) -> str:
    """A prompt without chat-template tokens and without its own request for a box."""
    return _ASKS_FOR_BOX.sub("", _TEMPLATE_TOKEN.sub("", prompt)).strip()


def final_answer(solution: str) -> str:
    """What stands after the last `####`. Raises: ValueError where there is none."""
    _, mark, answer = solution.rpartition("####")
    if not mark or not answer.strip():
        raise ValueError("the solution names no answer after ####")
    return answer.strip()


def _question(question_id: str, source: str, text: str, gold: str, verifier: str) -> Question:
    return Question(
        id=question_id,
        text=f"{text.strip()}\n\n{INSTRUCTION}",
        source=source,
        gold=(gold,),
        verifier=verifier,
        family=family_of(text),
    )


def _gsm8k(index: int, row: Row) -> Question:
    gold = final_answer(row["answer"]).replace(",", "")
    return _question(f"gsm8k/test/{index}", "gsm8k", row["question"], gold, "numeric")


def _math500(index: int, row: Row) -> Question:
    if "prompt" in row:
        text, gold = without_template(row["prompt"]), final_answer(row["reference_solution"])
    else:
        text, gold = row["problem"], row["answer"]
    return _question(f"math500/test/{index}", "math500", text, gold, "math")


def _aime(index: int, row: Row) -> Question:
    """Normalised rows have a year; raw ones carry template tokens; the Hub's are 30 and 30."""
    if "prompt" in row:
        text, gold = without_template(row["prompt"]), final_answer(row["reference_solution"])
        year = 2024 if row["source"] == "aime2024" else 2025
    else:
        text, gold = row.get("question") or row["problem"], row["answer"]
        year = int(row.get("year") or (2024 if index < 30 else 2025))
    match = re.fullmatch(r"(\d{1,3})(?:\^\\circ)?", str(gold).strip())
    if match is None:
        raise ValueError(f"answer {gold!r} is no integer from 0 to 999")
    answer = str(int(match.group(1)))
    return _question(f"aime/{year}/{index % 30}", f"aime/{year}", text, answer, "numeric")


def _source(name: str, description: str, licence: str, local: str, build, *hub: HubSet) -> Source:
    def from_file(path: Path, part: str | None) -> Iterator[Question]:
        return questions_of_rows(str(path), json_lines(path), build)

    def from_hub(rows: Iterable[Row], part: str | None) -> Iterator[Question]:
        return questions_of_rows(hub[0].id, rows, build)

    return Source(
        name=name,
        description=description,
        licence=licence,
        local=local,
        from_file=from_file,
        from_hub=from_hub,
        hub=lambda part: hub,
    )


SOURCES = (
    _source(
        "gsm8k",
        "GSM8K, grade-school word problems",
        "MIT",
        "gsm8k/test.jsonl",
        _gsm8k,
        HubSet("openai/gsm8k", "main", "test"),
    ),
    _source(
        "math500",
        "MATH-500, competition problems, verified by math-verify",
        "MIT",
        "math500/raw_math500.jsonl",
        _math500,
        HubSet("HuggingFaceH4/MATH-500", None, "test"),
    ),
    _source(
        "aime",
        "AIME 2024 and 2025, integer answers from 0 to 999",
        "problems: copyright MAA",
        "aime/aime_2024_2025.jsonl",
        _aime,
        HubSet("HuggingFaceH4/aime_2024", None, "train"),
        HubSet("math-ai/aime25", None, "test"),
    ),
)
