"""Writes RESULTS.md from finished comparisons: the main one, and others below it.

trialign compare --knobs A+S --tracks T1,T2 --seeds 10-14 --run-dir runs/main
trialign compare --knobs A+S,F,clean,B,A --tracks T1,T3,T2 --seeds 10 --run-dir runs/worlds
python -m tests.bench.results runs/main runs/worlds > RESULTS.md
"""

import argparse
import json
from pathlib import Path

from trialign_ray.comparison.results import load
from trialign_ray.comparison.tables import markdown

TITLE = "# Methods compared on TruthWorld"


def main() -> None:
    """Prints the document."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("roots", type=Path, nargs="+", help="folders of `trialign compare`")
    parser.add_argument("--frontier", type=Path, help="frontier.json of a run with --train")
    arguments = parser.parse_args()
    for i, root in enumerate(arguments.roots):
        text = markdown(load(root.resolve()))
        print(text if i == 0 else text.replace(TITLE, "# Other corruptions and tracks"))
    if arguments.frontier:
        print(frontier_section(json.loads(arguments.frontier.read_text(encoding="utf-8"))))


def frontier_section(record: dict) -> str:
    """What the frontier promised on the log, and what training made of it."""
    lines = [
        "# The frontier: promised on the log, realised after training",
        "",
        f"{record['num_settings']} settings solved in {record['sweep_s']:.0f} s; the worst group's "
        "truth and preference score, promised on the log and on held-out test questions.",
        "",
        "| setting | truth promised | on test | preference promised | on test | style on test |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for point in record["trained"]:
        promised, realised = point["promised"], point["realised"]
        truth, liking, style = (
            min(realised[name]["test"].values())
            for name in ("truth", "personalization", "adherence")
        )
        lines.append(
            f"| {point['name']} | {promised['worst_truth']:.3f} | {truth:.3f} "
            f"| {promised['worst_personalization']:.3f} | {liking:.3f} | {style:.3f} |"
        )
    correlations = "; ".join(
        f"{split}: "
        + ", ".join(f"{n} {'undefined' if v is None else f'{v:.2f}'}" for n, v in own.items())
        for split, own in record["rank_correlation"].items()
    )
    return "\n".join(
        [*lines, "", f"Spearman's rank correlation of promise and result: {correlations}.", ""]
    )


if __name__ == "__main__":
    main()
