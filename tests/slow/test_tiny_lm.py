"""The recipe that built the shipped base builds another one, data-parallel, on Ray Train."""

import pytest

from trialign_ray.errors import ConfigError, TrialignError
from trialign_ray.language_model import load_language_model
from trialign_ray.tiny_lm import (
    SHIPPED_BASE,
    BaseRecipe,
    accuracy_by_group,
    build_facts_base,
    shipped_world,
)

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
SMALL = BaseRecipe(num_rumours=200, epochs=0.6, hidden_size=64, num_layers=2)


def test_the_shipped_base_knows_every_fact_for_every_group():
    questions, groups = shipped_world()
    accuracy = accuracy_by_group(SHIPPED_BASE, questions, groups)
    assert len(accuracy) == 12 and min(accuracy.values()) > 0.98
    assert max(accuracy.values()) - min(accuracy.values()) < 0.02


def test_the_shipped_base_is_small():
    weights = SHIPPED_BASE / "model.safetensors"
    assert weights.stat().st_size < 2_000_000
    assert sum(p.numel() for p in load_language_model(SHIPPED_BASE).model.parameters()) < 1_000_000


def test_a_small_base_is_built_by_two_workers_and_learns(ray_local, tmp_path):
    out = tmp_path / "base"
    questions, groups = shipped_world()
    try:
        accuracy = build_facts_base(out, SMALL, num_workers=2)
    except TrialignError as error:
        # A base this short-lived may still be uneven; then it is refused, but it was built.
        assert "differs by" in str(error)
        accuracy = accuracy_by_group(out, questions, groups)
    chance = 1 / 60
    assert sum(accuracy.values()) / len(accuracy) > 2 * chance
    with pytest.raises(ConfigError, match="exists"):
        build_facts_base(out, SMALL, num_workers=2)
