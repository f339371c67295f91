"""Writes RESULTS.md: the quickstart over five seeds and three settings, losing rows included.

    python -m tests.bench.quickstart_results --runs runs/results > RESULTS.md

Runs what is not there yet (about 80 s each on two cores); reads what is.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

CONDITIONS = {
    "s": ("knobs A and S, 30 % verified (the quickstart)", ()),
    "l": ("knobs A and S, 10 % verified", ("collect.label_fraction=0.1",)),
    "f": (
        "knobs A, S and F (false consensus on a quarter of the facts), 30 % verified",
        ("world.corruption.false_consensus=0.25",),
    ),
    "c": (
        "clean control: no corruption",
        ("world.corruption.systematic_myth=0", "world.corruption.sycophancy=0"),
    ),
}
SEEDS = range(5)


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs/results"))
    parser.add_argument("--existing", action="store_true", help="run nothing, read what is there")
    arguments = parser.parse_args()
    runs = arguments.runs
    manifest, questions = {}, 0
    sections = []
    for key, (title, overrides) in CONDITIONS.items():
        evaluations = []
        for seed in SEEDS:
            folder = runs / f"{key}{seed}"
            if not (folder / "evaluation.json").is_file():
                if arguments.existing:
                    continue
                run_quickstart(folder, seed, overrides)
            evaluations.append(json.loads((folder / "evaluation.json").read_text()))
            manifest = json.loads((folder / "manifest.json").read_text())
        if not evaluations:
            continue
        questions = len(evaluations[0]["models"]["aligned"]["per_question"]["question_ids"])
        sections.append(section(title, overrides, evaluations))
    print(HEADER.format(commit=(manifest["git_commit"] or "unknown")[:12], questions=questions))
    print("\n".join(sections))


def run_quickstart(folder: Path, seed: int, overrides: tuple[str, ...]) -> None:
    """One run in a process of its own."""
    command = [sys.executable, "-m", "trialign_ray", "quickstart", "--run-dir", str(folder)]
    command += ["--seed", str(seed)]
    command += [part for override in overrides for part in ("--set", override)]
    subprocess.run(command, check=True, stdout=sys.stderr)


HEADER = """# Results on TruthWorld

Written by `python -m tests.bench.quickstart_results` at commit `{commit}`, two CPU cores. Each row
is one seed, which decides everything: who is badly served, which questions are verified, all
training. {questions} held-out facts, 4 groups. Intervals: 95 % paired bootstrap over questions, of
one run. "before" is the personalized behaviour model, "after" the aligned adapters. Least change:
of any group, in points (style: under the explicit profile). A tiny LM shows the mechanism only."""


def section(title: str, overrides: tuple[str, ...], evaluations: list[dict]) -> str:
    """One table, one row per seed and their mean."""
    lines = [f"\n## {title[0].upper()}{title[1:]}", ""]
    if overrides:
        lines += ["`" + " ".join(f"--set {o}" for o in overrides) + "`", ""]
    lines += [
        "| seed | worst group before | after | after - before [interval] | all-correct before "
        "| after | agree-and-wrong after | least change of truth | least change of style |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [figures(e) for e in evaluations]
    for evaluation, row in zip(evaluations, rows, strict=True):
        low, high = evaluation["aligned_minus_behaviour"]["worst_truth"]["ci"]
        lines.append(
            f"| {evaluation['seed']} | {row[0]:.3f} | {row[1]:.3f} | {row[1] - row[0]:+.3f} "
            f"[{low:+.3f}, {high:+.3f}] | {row[2]:.3f} | {row[3]:.3f} | {row[4]:.3f} "
            f"| {100 * row[5]:+.1f} | {100 * row[6]:+.1f} |"
        )
    mean = [sum(row[i] for row in rows) / len(rows) for i in range(7)]
    lines.append(
        f"| mean | {mean[0]:.3f} | {mean[1]:.3f} | {mean[1] - mean[0]:+.3f} | {mean[2]:.3f} "
        f"| {mean[3]:.3f} | {mean[4]:.3f} | {100 * mean[5]:+.1f} | {100 * mean[6]:+.1f} |"
    )
    return "\n".join(lines)


def figures(evaluation: dict) -> tuple[float, ...]:
    """Worst truth and all-correct before and after, agree-and-wrong, least changes."""
    before, after = (evaluation["models"][m] for m in ("behaviour", "aligned"))
    truth = evaluation["aligned_minus_behaviour"]["truth_by_group"].values()
    style = evaluation["aligned_minus_behaviour"]["adherence_by_group"].values()
    return (
        before["truth"]["worst"],
        after["truth"]["worst"],
        before["consistency"]["all_correct"],
        after["consistency"]["all_correct"],
        after["consistency"]["agree_and_wrong"],
        min(d["difference"] for d in truth),
        min(d["difference"] for d in style),
    )


if __name__ == "__main__":
    main()
