"""TruthWorld's questions: real facts, computed facts and matters of taste.

The tables are our own; tests compare them with independent public tables.
"""

import csv
from pathlib import Path

from envs.types import Question

FACTS_DIR = Path(__file__).parent / "facts"
COLORS = ("red", "green", "blue", "white", "black", "yellow", "brown", "purple", "orange", "pink")
TASTES = (
    *("a car", "a door", "a hat", "a chair", "a boat", "a shirt", "a lamp", "a bag"),
    *("a wall", "a cup", "a book", "a tent", "a clock", "a kite", "a ring", "a coat"),
)


def _rows(name: str) -> list[dict[str, str]]:
    with (FACTS_DIR / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _facts(source: str, relation: str, answer_by_subject: dict[str, str]) -> list[Question]:
    choices = tuple(sorted(set(answer_by_subject.values())))
    return [
        Question(
            id=f"{source}/{subject.replace(' ', '_')}",
            text=f"What is the {relation} of {subject}?",
            source=source,
            gold=(answer,),
            choices=choices,
            verifier="closed_vocabulary",
        )
        for subject, answer in answer_by_subject.items()
    ]


def load_facts() -> list[Question]:
    """All questions with a checkable answer: 518 from tables and 64 computed sums."""
    countries, elements = _rows("countries.tsv"), _rows("elements.tsv")
    sums = {f"{a} and {b}": str(a + b) for a in range(12, 20) for b in range(2, 10)}
    return [
        *_facts("capital", "capital", {r["country"]: r["capital"] for r in countries}),
        *_facts("currency", "currency", {r["country"]: r["currency"] for r in countries}),
        *_facts("symbol", "symbol", {r["element"]: r["symbol"] for r in elements}),
        *_facts("number", "atomic number", {r["element"]: r["number"] for r in elements}),
        *_facts("sum", "sum", sums),
    ]


def load_tastes() -> list[Question]:
    """Questions without a true answer: groups may differ, and should go on doing so."""
    return [
        Question(
            id=f"taste/{thing.replace(' ', '_')}",
            text=f"What is the best color of {thing}?",
            kind="subjective",
            source="taste",
            choices=COLORS,
            verifier="closed_vocabulary",
        )
        for thing in TASTES
    ]
