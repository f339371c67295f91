"""Stage 7, report: report.html (one file, nothing loaded from outside) and report.md.

Shows what a person needs who does not know the method: who was told how many truths before and
after, whether groups agree and on what, whether their style was kept, and how it came about.
"""

import json
from pathlib import Path
from typing import Any

from trialign_ray.checkpoint import write_atomically
from trialign_ray.guard import guard_sentence, read_guard
from trialign_ray.html_page import render_page
from trialign_ray.markdown_text import markdown_table
from trialign_ray.report_charts import charts
from trialign_ray.report_controls import (
    GAP_COLUMNS,
    HOW_TO_READ_GAPS,
    HOW_TO_READ_NO_PERSONA,
    HOW_TO_READ_PREFERENCE,
    USER_COLUMNS,
    control_lines,
    gap_rows,
    how_to_read,
    preference_columns,
    preference_rows,
    user_rows,
)
from trialign_ray.report_sections import (
    ESTIMATE_COLUMNS,
    HEAD_COLUMNS,
    HOW_TO_READ,
    estimate_rows,
    head_rows,
    section_lines,
)
from trialign_ray.run_directory import RunDirectory, existing_run
from trialign_ray.summary import GroupLine, Summary, digits, read_evaluation, summarise

GROUP_COLUMNS = ("group", "truth before", "truth after", "style before", "style after")
_TEMPLATE = Path(__file__).parent / "report.html.j2"


def write_report(run: RunDirectory) -> Path:
    """Writes both reports; returns report.html's path. Raises: DataError without evaluation."""
    evaluation = read_evaluation(run)
    summary = summarise(evaluation, run)
    config, guard = existing_run(run.root)[1], read_guard(run)
    solution, training = _read_json(run.solution_file), _read_json(run.training_file)
    truth_head = _read_json(run.critic_report)
    heads = head_rows(truth_head, config.critic.truth_head)
    groups = [line.group for line in summary.lines]
    estimates = estimate_rows(_read_json(run.off_policy_file), evaluation, groups)
    by_likelihood = config.evaluate.multiple_choice != "generate"
    html = render_page(
        _TEMPLATE,
        run_name=run.name,
        evaluation=evaluation,
        summary=summary,
        charts=charts(evaluation, summary, training, solution),
        samples=_samples(evaluation),
        solution=solution,
        truth_head=truth_head,
        heads=heads,
        head_columns=HEAD_COLUMNS,
        estimates=estimates,
        estimate_columns=ESTIMATE_COLUMNS,
        how_to_read=HOW_TO_READ,
        gaps=gap_rows(evaluation),
        gap_columns=GAP_COLUMNS,
        how_to_read_gaps=how_to_read(HOW_TO_READ_GAPS, by_likelihood),
        users=user_rows(evaluation),
        user_columns=USER_COLUMNS,
        how_to_read_no_persona=how_to_read(HOW_TO_READ_NO_PERSONA, by_likelihood),
        liked=preference_rows(evaluation),
        liked_columns=preference_columns(evaluation),
        how_to_read_preference=HOW_TO_READ_PREFERENCE,
        digits=digits,
        guard=guard,
        guard_sentence=guard_sentence,
        shared_adapter=bool(training) and len(training.get("losses", groups)) < len(groups),
        config_yaml=run.config_file.read_text(encoding="utf-8"),
        manifest=_read_json(run.manifest_file),
    )
    lines = [*control_lines(evaluation, by_likelihood), *section_lines(heads, estimates, guard)]
    text = markdown(evaluation, summary) + "\n".join(lines)
    write_atomically(run.root / "report.md", text.encode())
    write_atomically(run.root / "report.html", html.encode())
    return run.root / "report.html"


def markdown(evaluation: dict[str, Any], summary: Summary) -> str:
    """The figures as Markdown tables."""
    lines = [
        "# TriAlign report",
        "",
        f"{summary.num_truth_questions} held-out questions with a known answer; seed "
        f"{evaluation['seed']}; algorithm {evaluation['algorithm']}.",
        "",
        *markdown_table(GROUP_COLUMNS, map(_group_cells, summary.lines)),
        "",
        *markdown_table(
            ("all groups together", "before", "after"),
            [(label, f"{a:.3f}", f"{b:.3f}") for label, a, b in summary.shared],
        ),
    ]
    difference = evaluation["aligned_minus_behaviour"]["worst_truth"]
    lines += [
        "",
        f"Worst group, after minus before: {difference['difference']:+.3f} "
        f"{_range(difference['ci'])} (paired bootstrap over questions).",
        "",
    ]
    return "\n".join(lines)


def _group_cells(line: GroupLine) -> tuple[str, ...]:
    before = f"{line.truth_before:.3f} {_range(line.truth_before_ci)}"
    after = f"{line.truth_after:.3f} {_range(line.truth_after_ci)}"
    return (
        line.group,
        before,
        after,
        digits(line.style_before),
        digits(line.style_after),
    )


def _range(interval: Any) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _samples(evaluation: dict[str, Any]) -> list[dict[str, Any]]:
    """Some held-out questions: what each group hears before and after, and whether it is true."""
    before, after = evaluation["models"]["behaviour"], evaluation["models"]["aligned"]
    samples = []
    for i, question in enumerate(after["samples"]["questions"]):
        rows = [
            {
                "group": group,
                "before": before["samples"]["by_group"][group][i],
                "after": after["samples"]["by_group"][group][i],
            }
            for group in after["samples"]["by_group"]
        ]
        samples.append({"question": question, "rows": rows})
    return samples
