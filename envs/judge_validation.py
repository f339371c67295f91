"""Whether a judge agrees with people: its scores against human labels, before it is believed."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from envs.errors import DataError


@dataclass(frozen=True)
class Agreement:
    """Of scores cut at a threshold with yes-or-no labels. kappa (Cohen 1960) is 0 where the judge
    does no better than its own and the people's share of yes would by chance, and nan where judge
    and people say the same one word throughout."""

    num_items: int
    num_without_score: int
    accuracy: float
    kappa: float
    share_yes_judge: float
    share_yes_labels: float


@dataclass(frozen=True)
class LabelledAnswer:
    """A model's answer and what people said of it."""

    question: str
    answer: str
    label: bool


def agreement_with_labels(
    scores: Sequence[float | None], labels: Sequence[bool], threshold: float = 0.5
) -> Agreement:
    """How far scores above `threshold` mean what people mean by yes.

    Scores that are None count as missing, not as wrong.
    Raises: DataError if the lengths differ or no score is known.
    """
    from sklearn.metrics import cohen_kappa_score

    if len(scores) != len(labels):
        raise DataError(f"{len(scores)} scores and {len(labels)} labels; expected one for each")
    known = [(s > threshold, bool(t)) for s, t in zip(scores, labels, strict=True) if s is not None]
    if not known:
        raise DataError(f"none of {len(scores)} answers has a score; nothing can be compared")
    said, meant = [s for s, _ in known], [t for _, t in known]
    unanimous = len({*said, *meant}) == 1
    return Agreement(
        num_items=len(known),
        num_without_score=len(scores) - len(known),
        accuracy=sum(s == t for s, t in known) / len(known),
        kappa=float("nan") if unanimous else float(cohen_kappa_score(said, meant)),
        share_yes_judge=sum(said) / len(known),
        share_yes_labels=sum(meant) / len(known),
    )


def read_labelled_answers(
    path: Path, label: str, question: str = "question", answer: str = "model_answer"
) -> list[LabelledAnswer]:
    """The rows of a CSV file whose column `label` says yes or no, e.g. TruthfulQA's human labels.

    Raises: DataError, naming file, row and value.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file)
        missing = {label, question, answer} - set(reader.fieldnames or ())
        if missing:
            raise DataError(
                f"{path} has no column {', '.join(sorted(missing))}; it has "
                f"{', '.join(reader.fieldnames or ())}"
            )
        rows = []
        for row in reader:
            if row[label] not in ("yes", "no"):
                raise DataError(
                    f"{path}:{reader.line_num}: {label} is {row[label]!r}; expected yes or no"
                )
            rows.append(LabelledAnswer(row[question], row[answer], row[label] == "yes"))
    return rows
