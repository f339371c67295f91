"""`trialign compare --smoke` as a user runs it: killed midway, resumed, every row printed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from trialign_ray.comparison.launch import SMOKE_METHODS

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]


def start(root: Path, *options: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "trialign_ray", "compare", "--smoke", "--run-dir", str(root)]
    return subprocess.Popen(
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        start_new_session=True,
    )


def finished_cells(root: Path) -> set[Path]:
    return set(root.glob("cells/*/*/cell.json"))


def wait_for_cells(root: Path, count: int, deadline_s: float) -> None:
    end = time.monotonic() + deadline_s
    while len(finished_cells(root)) < count:
        assert time.monotonic() < end, f"{len(finished_cells(root))} cells after {deadline_s} s"
        time.sleep(0.5)


def test_a_killed_comparison_goes_on_where_it_was_and_prints_every_row(tmp_path):
    root = tmp_path / "comparison"
    first = start(root)
    try:
        wait_for_cells(root, 3, 300)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.communicate()
    before = {path: path.stat().st_mtime_ns for path in finished_cells(root)}
    second = start(root, "--resume")
    output, _ = second.communicate(timeout=500)
    assert second.returncode == 0, output
    assert len(finished_cells(root)) == len(SMOKE_METHODS)
    assert all(path.stat().st_mtime_ns == at for path, at in before.items())
    table = pq.read_table(root / "results.parquet").to_pylist()
    assert {r["method"] for r in table if r["split"] == "test"} == set(SMOKE_METHODS)
    page = (root / "comparison.html").read_text()
    for name in SMOKE_METHODS:
        assert name in output and name in page, name
    assert set(json.loads((root / "comparison.json").read_text())["methods"]) == set(SMOKE_METHODS)
