"""What all tests with vLLM share. They run in .venv-vllm: `make vllm`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vllm.quickstart_run import quickstart_run
from tests.vllm.served_run import served
from tests.vllm.shipped_adapters import Reference, group_prompts, write_adapters
from trialign_ray.run_directory import RunDirectory


@pytest.fixture(scope="session")
def adapters(tmp_path_factory) -> dict[str, Path]:
    return write_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def prompts() -> dict[str, list[str]]:
    return group_prompts()


@pytest.fixture(scope="session")
def reference(adapters) -> Reference:
    return Reference(adapters)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory) -> RunDirectory:
    """A behaviour model that serves one group badly, with four adapters."""
    return quickstart_run(tmp_path_factory.mktemp("quickstart") / "run")


@pytest.fixture(scope="session")
def served_url(quickstart) -> Iterator[str]:
    """Where `trialign serve` serves that run, up to /v1; one server for all tests."""
    with served(quickstart.root) as url:
        yield url
