"""Facts from public tables: capitals of countries, numbers and symbols of chemical elements."""

import csv
from collections.abc import Iterator
from pathlib import Path

from envs.questions.source import Row, Source, questions_of_rows
from envs.types import Question

_OTHER_FORMS = {
    "Washington D.C.": ("Washington",),
    "Kyiv": ("Kiev",),
    "Ulan Bator": ("Ulaanbaatar",),
    "Astana": ("Nur-Sultan",),
    "Naypyidaw": ("Nay Pyi Taw",),
    "Sri Jayawardenapura Kotte": ("Kotte",),
}
LAST_KNOWN_ELEMENT = 118


def _rows(path: Path) -> list[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def _capitals(path: Path, part: str | None) -> Iterator[Question]:
    """Countries without a capital are left out."""
    rows = _rows(path)
    capitals = tuple(sorted({row["Capital"] for row in rows if row.get("Capital")}))

    def build(_: int, row: Row) -> Question | None:
        capital = row["Capital"]
        if not capital:
            return None
        return Question(
            id=f"countries/capital/{row['Code']}",
            text=f"What is the capital of {row['Name']}?",
            source="countries",
            gold=(capital, *_OTHER_FORMS.get(capital, ())),
            choices=capitals,
            verifier="names",
        )

    return questions_of_rows(str(path), rows, build)


def _elements(path: Path, part: str | None) -> Iterator[Question]:
    """Number 119 and beyond, which nobody has made, are left out."""
    known = [row for row in _rows(path) if int(row["number"]) <= LAST_KNOWN_ELEMENT]
    names = tuple(sorted(row["name"] for row in known))

    def number(_: int, row: Row) -> Question:
        return Question(
            id=f"elements/number/{row['symbol']}",
            text=f"What is the atomic number of the chemical element {row['name'].lower()}?",
            source="elements",
            gold=(row["number"],),
            verifier="numeric",
            family=f"elements/{row['symbol']}",
        )

    def name(_: int, row: Row) -> Question:
        return Question(
            id=f"elements/name/{row['symbol']}",
            text=f"Which chemical element has the symbol {row['symbol']}?",
            source="elements",
            gold=(row["name"],),
            choices=names,
            verifier="names",
            family=f"elements/{row['symbol']}",
        )

    yield from questions_of_rows(str(path), known, number)
    yield from questions_of_rows(str(path), known, name)


SOURCES = (
    Source(
        name="countries",
        description="Capitals of 245 countries and territories",
        licence="MIT",
        local="facts_countries/countries.csv",
        from_file=_capitals,
        origin="https://github.com/annexare/Countries, dist/countries.csv",
    ),
    Source(
        name="elements",
        description="Atomic numbers and symbols of the 118 known elements",
        licence="CC-BY-SA-3.0",
        local="facts_elements/PeriodicTableCSV.csv",
        from_file=_elements,
        origin="https://github.com/Bowserinator/Periodic-Table-JSON, PeriodicTableCSV.csv",
    ),
)
