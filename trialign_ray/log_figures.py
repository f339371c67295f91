"""What a log holds, in few numbers, for the cards of models and data."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from trialign_ray.dataset import HASH_KEY
from trialign_ray.errors import DataError

_COLUMNS = (
    *("episode_id", "turn", "question_id", "kind", "split", "source", "gold_visible"),
    *("group_ids", "present", "r_truth", "r_pers", "truncated", "behaviour_model_id"),
)


@dataclass(frozen=True)
class LogFigures:
    """Counts of a log. by_group: utterances; rated, verified: those with a known r_pers, r_truth.

    questions_by_source, questions_by_kind, questions_by_split: distinct questions.
    """

    num_rows: int
    num_episodes: int
    num_turns: int
    num_questions: int
    num_visible: int
    questions_by_source: dict[str, int]
    questions_by_kind: dict[str, int]
    questions_by_split: dict[str, int]
    by_group: dict[str, int]
    rated: dict[str, int]
    verified: dict[str, int]
    num_truncated: int
    behaviour_model_id: str
    content_sha256: str


def log_figures(path: Path) -> LogFigures:
    """The figures of a log, from the columns that they need. Raises: DataError."""
    try:
        table = pq.read_table(path, columns=list(_COLUMNS))
        rows = table.to_pylist()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(
            f"log {path} cannot be read ({error}); `trialign data check {path}` says more"
        ) from error
    if not rows:
        raise DataError(f"log {path} has no rows; collect at least one episode")
    said, rated, verified = Counter(), Counter(), Counter()
    num_truncated = 0
    for row in rows:
        for i, group in enumerate(row["group_ids"]):
            said[group] += bool(row["present"][i])
            rated[group] += row["r_pers"][i] is not None
            verified[group] += row["r_truth"][i] is not None
            num_truncated += bool(row["truncated"][i])
    questions = {row["question_id"]: row for row in rows}.values()
    return LogFigures(
        num_rows=len(rows),
        num_episodes=len({row["episode_id"] for row in rows}),
        num_turns=1 + max(row["turn"] for row in rows),
        num_questions=len(questions),
        num_visible=sum(bool(q["gold_visible"]) for q in questions),
        questions_by_source=dict(Counter(q["source"] or "not named" for q in questions)),
        questions_by_kind=dict(Counter(q["kind"] for q in questions)),
        questions_by_split=dict(Counter(q["split"] for q in questions)),
        by_group=dict(said),
        rated=dict(rated),
        verified=dict(verified),
        num_truncated=num_truncated,
        behaviour_model_id=rows[0]["behaviour_model_id"] or "",
        content_sha256=(table.schema.metadata or {}).get(HASH_KEY, b"").decode(),
    )
