"""What `trialign doctor` looks at."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("ray", "torch", "transformers", "peft", "pyarrow", "gymnasium", "pydantic", "plotly")
MIN_FREE_GIB = 2.0


@dataclass(frozen=True)
class Finding:
    """One thing looked at."""

    what: str
    ok: bool
    detail: str


def examine() -> Iterator[Finding]:
    """Findings in order; the slow ones last."""
    yield Finding("python", sys.version_info >= (3, 11), platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding(name, True, version(name))
        except PackageNotFoundError:
            yield Finding(name, False, "not installed; run `pip install -e .`")
    yield Finding("CPUs", True, str(os.cpu_count()))
    free_gib = shutil.disk_usage(Path.cwd()).free / 2**30
    yield Finding("free disk", free_gib >= MIN_FREE_GIB, f"{free_gib:.1f} GiB here")
    yield _model()
    yield _ray()


def _model() -> Finding:
    from trialign_ray.language_model import load_language_model
    from trialign_ray.model_source import SHIPPED_BASE

    try:
        loaded = load_language_model(SHIPPED_BASE)
    except Exception as error:
        return Finding("tiny language model", False, str(error))
    return Finding("tiny language model", True, f"loads, checksum {loaded.checksum[:12]}")


def _ray() -> Finding:
    from trialign_ray.run import start_ray

    try:
        resources = start_ray()
    except Exception as error:
        return Finding("Ray", False, str(error))
    where = os.environ.get("RAY_ADDRESS", "started here")
    return Finding("Ray", True, f"{where}, {resources.get('CPU', 0):g} CPUs")
