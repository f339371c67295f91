"""Stage 5, clone, as the driver sees it: who trains when, and what the run directory keeps of it.

First all groups' common adapter, where there is one (`clone.shared_rank`), in the first group's
agent alone; then every group's own, in parallel and without a barrier but where agents report and
the centre solves again (`clone.coordinate_every`), and for the progress display.

Deviation, declared: the common adapter is trained to its end before the groups' own begin, on the
first round's targets, by one agent that sees all groups' rows. A batch holds as many rows of each
group and their losses are weighted by the welfare's credits, so that its gradient is the weighted
average of the groups' gradients; nothing but the finished adapter is shared between agents.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trialign_ray.actors.workers import Workers
from trialign_ray.checkpoint import write_json
from trialign_ray.common_adapter import CommonAdapterSpec
from trialign_ray.config_sections import CloneConfig
from trialign_ray.coordination import SOLUTION, round_folder
from trialign_ray.progress import Progress
from trialign_ray.run_directory import RunDirectory


@dataclass(frozen=True)
class AdapterStage:
    """trainees: groups whose agents train. common: of the first of them, the adapter that it trains
    for all; None where there is none."""

    config: CloneConfig
    run_dir: RunDirectory
    workers: Workers
    trainees: tuple[str, ...]
    common: CommonAdapterSpec | None
    progress: Progress

    def run(self) -> None:
        """Trains and exports what is not exported yet. Raises: TrialignError."""
        if self.run_dir.training_file.is_file():
            return
        self._train_common()
        self._train_own()

    def advance_to(self, step: int) -> None:
        """Trains the groups' own adapters to `step` of all updates, where a checkpoint is written;
        nothing is exported. Going on from there gives what `run` gives at once."""
        self._train_common()
        with self.progress.stage("clone", self.config.steps):
            self._advance("clone", self.trainees, coordinate=True, until=step)
            self.workers.on_groups("save", dict.fromkeys(self.trainees, ()))

    def _train_common(self) -> None:
        common = self.common
        if common is None or Path(common.record_file).is_file():
            return
        lead = self.trainees[0]
        with self.progress.stage("clone_common", self.config.steps):
            states = self._advance("clone_common", (lead,), coordinate=False)
            sha256 = self.workers.on_groups("export_common", {lead: ()})[lead]
            state = states[lead]
            record = {"losses": list(state.losses), "resumed_at": state.resumed_at}
            write_json(Path(common.record_file), {"adapter_sha256": sha256, **record})

    def _train_own(self) -> None:
        with self.progress.stage("clone", self.config.steps):
            states = self._advance("clone", self.trainees, coordinate=True)
            record = {
                "adapter_sha256": self._export(),
                "losses": {g: list(s.losses) for g, s in states.items()},
                "resumed_at": {g: s.resumed_at for g, s in states.items()},
            }
            write_json(self.run_dir.training_file, record)

    def _advance(
        self, verb: str, members: Sequence[str], coordinate: bool, until: int | None = None
    ) -> dict[str, Any]:
        """Trains to the last update, or to `until`, wherever each agent stands; states by group."""
        states = self.workers.on_groups(verb, dict.fromkeys(members, (0,)))
        done = min(s.step for s in states.values())
        seen = {g: s.step for g, s in states.items()}
        every = self.config.coordinate_every if coordinate else 0
        self._begin_round(done, every)
        last = self.config.steps if until is None else until
        for step in stops(done, last, self.config.checkpoint_every, every):
            states = self.workers.on_groups(verb, dict.fromkeys(members, (step,)))
            self._show(verb, states, seen, step)
            self._begin_round(step, every)
        return states

    def _begin_round(self, step: int, every: int) -> None:
        """Where a round ended that is not the last: its agents' answers to the centre, whose new
        rows they find. Not again if the next round's rows are there."""
        if every == 0 or step % every or not 0 < step < self.config.steps:
            return
        number = step // every
        folder = round_folder(self.run_dir.solution_file.parent, number)
        if (folder / SOLUTION).is_file():
            return
        reports = self.workers.on_groups("policy", dict.fromkeys(self.trainees, (step,)))
        summary = self.workers.on_critic("coordinate", number, reports)
        names = ("agents_inconsistency", "distance_to_targets", "inconsistency")
        self.progress.metrics({f"coordinate/{name}": summary[name] for name in names}, step)

    def _show(self, verb: str, states: dict[str, Any], seen: dict[str, int], until: int) -> None:
        for group, state in states.items():
            for step in range(seen[group], state.step):
                loss = {f"{verb}/loss_nats": state.losses[step]}
                self.progress.metrics(loss, step, group=group)
            seen[group] = max(seen[group], state.step)
        mean = sum(s.losses[-1] for s in states.values()) / len(states)
        self.progress.display.advance(verb, until, f"loss {mean:.3f}")

    def _export(self) -> dict[str, str]:
        """Every group's adapter in its folder, the shared one in all; sha256 by group."""
        if len(self.trainees) == len(self.workers.groups):
            folders = {g: (str(self.run_dir.adapter_dir(g)),) for g in self.trainees}
            return self.workers.on_groups("export", folders)
        (lead,) = self.trainees
        return {
            g: self.workers.on_groups("export", {lead: (str(self.run_dir.adapter_dir(g)), g)})[lead]
            for g in self.workers.groups
        }


def stops(done: int, steps: int, chunk: int, every: int) -> list[int]:
    """Updates at which the driver looks, ascending, the last one, `steps`, included: every `chunk`
    from `done` on, and wherever a round ends (`every` updates; 0: there is one round)."""
    ends = range((done // every + 1) * every, steps, every) if every else ()
    return sorted({*range(done + chunk, steps, chunk), *ends, steps})
