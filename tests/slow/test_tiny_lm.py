"""The recipe that built the shipped base builds another one, data-parallel, on Ray Train."""

import pytest

from trialign_ray.errors import ConfigError
from trialign_ray.language_model import load_language_model
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.tiny_lm import BaseRecipe, accuracy_by_group, build_facts_base, shipped_world

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(600)]
SMALL = BaseRecipe(num_rumours=24, epochs=80, batch_size=32, warmup_steps=20, hidden_size=64)


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
    questions, groups = shipped_world()
    world = ([q for q in questions if q.source == "capital"][:24], groups[:2])
    out = tmp_path / "base"
    accuracy = build_facts_base(out, SMALL, num_workers=2, world=world)
    # It refuses a gap of .02 between groups by itself; chance is 1 in 141 capitals.
    assert set(accuracy) == {"amber", "birch"} and min(accuracy.values()) > 0.9
    assert load_language_model(out).checksum != load_language_model(SHIPPED_BASE).checksum
    with pytest.raises(ConfigError, match="exists"):
        build_facts_base(out, SMALL, num_workers=2, world=world)
