"""What all tests with vLLM share. They run in .venv-vllm: `make vllm`."""

from pathlib import Path

import pytest

from tests.vllm.shipped_adapters import Reference, group_prompts, write_adapters


@pytest.fixture(scope="session")
def adapters(tmp_path_factory) -> dict[str, Path]:
    return write_adapters(tmp_path_factory.mktemp("adapters"))


@pytest.fixture(scope="session")
def prompts() -> dict[str, list[str]]:
    return group_prompts()


@pytest.fixture(scope="session")
def reference(adapters) -> Reference:
    return Reference(adapters)
