"""Where the evaluation data lie, which are read in place; without them tests are skipped."""

import os
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent.parent
DATA = Path(os.environ.get("TRIALIGN_DATA") or _ROOT.parent / "shared" / "data")
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="evaluation data are not here; name their folder in TRIALIGN_DATA"
)
