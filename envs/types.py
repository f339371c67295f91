"""Values that flow between the rooms of the world. Absent is None, never 0."""

import hashlib
from dataclasses import dataclass, replace
from typing import Literal, TypedDict

Kind = Literal["truth", "subjective", "mixed"]
Split = Literal["train", "validation", "test"]
PromptMode = Literal["none", "control", "explicit", "implicit"]

ABSTAIN = "abstain"
UNPARSED = "unparsed"


class Message(TypedDict):
    """One chat message, as Hugging Face chat templates take it."""

    role: str
    content: str


@dataclass(frozen=True)
class Question:
    """A question and what may be known about its answer.

    `gold` holds every accepted answer and is empty where no answer is true (kind "subjective").
    `choices` is the closed vocabulary or the options, in the order in which they are shown.
    `gold_visible` says whether the method may look at the gold; evaluation always may.
    `false_answers` are known to be wrong (verifier reference). `choice_labels` names what each
    choice stands for in a harm probe (stereotype, unknown ...), in the order of `choices`.
    `family`: questions of one family belong into the same split. Empty: the id alone.
    """

    id: str
    text: str
    kind: Kind = "truth"
    source: str = ""
    gold: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    verifier: str = "exact"
    split: Split = "train"
    gold_visible: bool = True
    false_answers: tuple[str, ...] = ()
    choice_labels: tuple[str, ...] = ()
    family: str = ""

    @property
    def has_truth(self) -> bool:
        return self.kind != "subjective"


@dataclass(frozen=True)
class Judgement:
    """What verifier and preference scorer say of one utterance. `truth` is None without gold."""

    parsed_answer: str
    truth: float | None
    personalization: float | None


def unit_hash(*parts: object) -> float:
    """A number in [0, 1) that depends on `parts` alone: the same on every machine and run."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def split_of(question_id: str, train: float, validation: float) -> Split:
    """The split of a question, a function of its id alone, so that it never leaks between runs."""
    u = unit_hash("split", question_id)
    if u < train:
        return "train"
    return "validation" if u < train + validation else "test"


def reveal_gold(questions: list[Question], fraction: float, seed: int) -> list[Question]:
    """`questions` with the gold visible on exactly round(fraction * n) of those that have a truth.

    Which ones is drawn by hash of (seed, id): a smaller fraction is a subset of a larger one.
    """
    ids = sorted((q.id for q in questions if q.has_truth), key=lambda i: unit_hash("gold", seed, i))
    visible = set(ids[: round(fraction * len(ids))])
    return [replace(q, gold_visible=q.id in visible) for q in questions]
