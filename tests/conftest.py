"""Shared fixtures: small settings, and a Ray of our own."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import pytest

SMALL = [
    "behaviour.epochs=0.25",
    "collect.episodes_per_question=1",
    "clone.steps=6",
    "clone.batch_size=4",
    "clone.checkpoint_every=2",
    "critic.steps=20",
    "evaluate.num_resamples=100",
    "world.train_fraction=0.06",
    "world.validation_fraction=0.84",
]
"""Overrides under which the whole way takes seconds; its figures mean nothing."""


@pytest.fixture(scope="session")
def ray_local():
    """A Ray cluster of this test session, on its own ports, ended with it."""
    import ray

    os.environ.pop("RAY_ADDRESS", None)
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, address="local")
    yield ray
    ray.shutdown()


@pytest.fixture
def small_overrides() -> list[str]:
    return list(SMALL)


@pytest.fixture(scope="session")
def shipped_lm():
    from trialign_ray.language_model import load_language_model
    from trialign_ray.model_source import SHIPPED_BASE

    return load_language_model(SHIPPED_BASE)
