"""Which utterances an engine of its own gives, and which the groups' agents."""

from typing import Any

import pytest

from trialign_ray.actors.engine_workers import EngineWorkers
from trialign_ray.engines import Decoding


class Agents:
    groups: tuple[str, ...] = ("blue", "green")
    closed = False

    def on_groups(self, verb, arguments):
        return {g: ("agents", verb, args[0]) for g, args in arguments.items()}

    def on_critic(self, verb, *arguments):
        return verb

    def close(self):
        self.closed = True


class Host:
    def __init__(self, collection_only, fails=False):
        self.collection_only, self._fails, self.closed = collection_only, fails, 0

    def serves(self, model):
        return model == "behaviour"

    def generate(self, model, calls) -> dict[str, Any]:
        return dict.fromkeys(calls, ("host", "generate", model))

    def close(self):
        self.closed += 1
        if self._fails:
            raise RuntimeError("the engine cannot be ended")


def who_answers(host, model, temperature):
    decoding = Decoding(temperature, 8, 4)
    asked = {"blue": (model, ["Yes?"], decoding), "green": ("aligned", ["Yes?"], decoding)}
    said = EngineWorkers(Agents(), host).on_groups("generate", asked)
    assert list(said) == ["blue", "green"] and said["green"] == ("agents", "generate", "aligned")
    return said["blue"][0]


@pytest.mark.parametrize(
    ("collection_only", "temperature", "who"),
    [(False, 1.0, "host"), (False, 0.0, "host"), (True, 1.0, "host"), (True, 0.0, "agents")],
)
def test_before_and_after_are_evaluated_by_one_engine(collection_only, temperature, who):
    assert who_answers(Host(collection_only), "behaviour", temperature) == who
    assert who_answers(Host(collection_only), "other", temperature) == "agents"


def test_everything_else_is_the_agents_and_training_gets_the_engines_room():
    host = Host(False)
    workers = EngineWorkers(Agents(), host)
    assert workers.on_groups("score", {"blue": ("behaviour",)})["blue"][0] == "agents"
    assert host.closed == 0
    workers.on_groups("clone", {"blue": (3,)})
    assert host.closed == 1 and workers.on_critic("fit") == "fit"


def test_agents_are_ended_though_the_engine_cannot_be():
    agents = Agents()
    with pytest.raises(RuntimeError):
        EngineWorkers(agents, Host(False, fails=True)).close()
    assert agents.closed
