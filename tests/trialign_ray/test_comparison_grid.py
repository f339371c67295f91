"""The grid of a comparison: what needs what, what is lost when something breaks."""

import json
from pathlib import Path

import pytest

from trialign_ray.comparison.cells import Cell, cell_file, run_cell
from trialign_ray.comparison.compare import Comparison, Plan, open_root
from trialign_ray.comparison.grid import GridSpec, LocalPool, Outcome, Task, grid_tasks, run_grid
from trialign_ray.comparison.launch import SMOKE_SETS, describe, make_plan, split_names, split_seeds
from trialign_ray.comparison.methods import NUM_SETTINGS, Method, all_methods, methods_by_name
from trialign_ray.comparison.worlds import KNOBS, World, world_dir, worlds_by_name
from trialign_ray.config import load_config
from trialign_ray.dataset import read_dataset
from trialign_ray.errors import ConfigError
from trialign_ray.model_source import SHIPPED_BASE
from trialign_ray.progress import Progress

WORLD = World("A+S", "T2", 0)
SMALL_SETS = (*SMOKE_SETS, f"behaviour.model={SHIPPED_BASE}", "clone.steps=3")


class ScriptedPool:
    """Ends tasks one by one, in order; those named fail."""

    def __init__(self, failing=()):
        self.failing, self.submitted, self._waiting = set(failing), [], []

    def submit(self, task):
        self.submitted.append(task.name)
        self._waiting.append(task)

    def running(self):
        return len(self._waiting)

    def wait(self):
        if not self._waiting:
            return []
        task = self._waiting.pop(0)
        broken = task.name in self.failing
        return [Outcome(task.name, "failed" if broken else "done", "broke" if broken else "")]


def tasks_of(*names: str) -> list[Task]:
    return grid_tasks([WORLD], methods_by_name(list(names)), lambda m: (0,))


def run(tasks, pool, done=()):
    return run_grid(tasks, pool, lambda task: task.name in done, lambda outcome: None)


def test_every_task_comes_after_what_it_needs():
    pool = ScriptedPool()
    run(tasks_of("sft", "rewarded_soup"), pool)
    order = {name: i for i, name in enumerate(pool.submitted)}
    assert order["AS-T3-s0/dialogues"] < order["AS-T2-s0/track"] < order["AS-T2-s0/sft.0"]
    parts = ("AS-T2-s0/awr_truth.0", "AS-T2-s0/awr_style.0")
    assert all(order[part] < order["AS-T2-s0/rewarded_soup.0"] for part in parts)


def test_one_broken_cell_does_not_lose_the_rest():
    outcomes = run(tasks_of("sft", "dpo", "rewarded_soup"), ScriptedPool({"AS-T2-s0/awr_style.0"}))
    status = {name.split("/")[1]: o.status for name, o in outcomes.items()}
    assert status["awr_style.0"] == "failed" and status["rewarded_soup.0"] == "skipped"
    assert status["sft.0"] == status["dpo.0"] == status["awr_truth.0"] == "done"
    assert "awr_style" in outcomes["AS-T2-s0/rewarded_soup.0"].error


def test_without_its_dialogues_a_world_is_skipped_and_another_is_not():
    other = World("clean", "T2", 0)
    tasks = grid_tasks([WORLD, other], methods_by_name(["sft"]), lambda m: (0,))
    outcomes = run(tasks, ScriptedPool({"AS-T3-s0/dialogues"}))
    assert outcomes["AS-T2-s0/sft.0"].status == "skipped"
    assert outcomes["clean-T2-s0/sft.0"].status == "done"


def test_what_is_done_is_not_done_again():
    pool = ScriptedPool()
    done = {"AS-T3-s0/dialogues", "AS-T2-s0/track", "AS-T2-s0/sft.0"}
    outcomes = run(tasks_of("sft", "dpo"), pool, done)
    assert pool.submitted == ["AS-T2-s0/dpo.0"] and len(outcomes) == 4


def test_tracks_of_one_seed_share_their_dialogues():
    tasks = grid_tasks(worlds_by_name(["A"], ["T1", "T2", "T3"], [0]), [], lambda m: ())
    assert [t.name for t in tasks if t.kind == "dialogues"] == ["A-T3-s0/dialogues"]


def test_every_trained_method_has_the_same_number_of_settings_and_each_is_valid():
    for method in all_methods().values():
        parts = ("awr_truth", "awr_style")
        fixed = method.family == "untrained" or method.name in parts
        assert len(method.settings) == (1 if fixed else NUM_SETTINGS), method.name
        for setting in range(len(method.settings)):
            load_config(None, Cell(WORLD, method, setting).overrides)


def test_an_ablation_changes_what_it_names_whatever_setting_was_chosen():
    cell = Cell(WORLD, all_methods()["no_penalty"], 2)
    assert load_config(None, cell.overrides).targets.penalty_weight == 0


def test_knobs_are_separate_and_clean_is_clean():
    for knob, values in KNOBS.items():
        corruption = load_config(None, World(knob, "T2", 0).overrides()).world.corruption
        on = {
            name
            for name in ("systematic_myth", "noise", "false_consensus", "sycophancy")
            if getattr(corruption, name) > 0
        }
        assert on == set(values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: methods_by_name(["dpoo"]), "method 'dpoo' does not exist; expected some of base"),
        (lambda: worlds_by_name(["Z"], ["T1"], [0]), "knob 'Z' does not exist; expected clean, A"),
        (lambda: worlds_by_name(["A"], ["T9"], [0]), "track 'T9' does not exist; expected T0, T1"),
        (lambda: split_seeds("0-x"), "expected numbers such as 0-4"),
        (lambda: split_seeds(""), "names no seed"),
        (lambda: plan(seeds=(100,), tune=True), "seed 100 is the one that settings are chosen on"),
        (lambda: plan(sets=["targets.penality=1"]), "unknown key"),
        (lambda: plan(sets=["targets.penalty=foo"]), "targets.penalty is 'foo'; expected one of"),
        (lambda: plan(sets=["seed=3"]), "the grid itself sets seed; use --seeds"),
        (lambda: plan(sets=["world.groups=nope"]), "nope"),
    ],
)
def test_bad_input_is_refused_with_the_way_out(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


def plan(methods=("behaviour", "sft"), sets=(), seeds=(0,), tune=False) -> Plan:
    return make_plan(None, list(sets), methods, ("A+S",), ("T2",), seeds, tune, smoke=False)


def test_names_and_seeds_are_read():
    assert split_names(" a, b,") == ("a", "b") and split_names(None) == ()
    assert split_seeds("0-2,7,1") == (0, 1, 2, 7)


def test_a_plan_says_what_it_costs():
    text = "\n".join(describe(plan(("sft", "dpo"), seeds=(0, 1), tune=True)))
    assert "methods: 3" in text and "cells: 6" in text  # the deployed model is the bar for choosing
    assert "cells to choose settings (AS-T2-s100): 7" in text
    assert "behaviour models to fit: 3" in text


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A real comparison without Ray: one world, one method that works and one that cannot."""
    root = tmp_path_factory.mktemp("comparison") / "root"
    small = Plan(("behaviour", "sft", "pooled_dpo"), ("A+S",), ("T2",), (0,), None, sets=SMALL_SETS)
    open_root(small, root, resume=False)
    comparison = Comparison(small, root, Progress(root))
    comparison.run(LocalPool)
    comparison.progress.close()
    assert not comparison.failed, comparison.failed
    return root


def test_a_cell_leaves_metrics_of_validation_and_test(finished):
    cell = Cell(WORLD, all_methods()["sft"])
    result = json.loads(cell_file(finished, cell).read_text())
    splits = result["splits"]
    assert set(splits) == {"validation", "test"} and result["method"] == "sft"
    asked = [set(splits[s]["per_question"]["question_ids"]) for s in splits]
    assert asked[0] and asked[1] and not asked[0] & asked[1]


def test_a_shared_adapter_is_the_same_for_every_group_and_own_ones_are_not(finished):
    def hashes(method):
        file = finished / f"cells/AS-T2-s0/{method}.0/adapters/training.json"
        return set(json.loads(file.read_text())["adapter_sha256"].values())

    assert len(hashes("pooled_dpo")) == 1 and len(hashes("sft")) == 4


def test_a_track_hides_gold_and_nothing_else(finished):
    full, part = (
        read_dataset(world_dir(finished, w) / "dataset/log.parquet") for w in (WORLD.full, WORLD)
    )
    shown = [r for r in part if r["gold_visible"]]
    facts = {r["question_id"] for r in part if r["kind"] != "subjective"}
    assert len({r["question_id"] for r in shown}) == round(0.3 * len(facts))
    assert all(a["action_text"] == b["action_text"] for a, b in zip(full, part, strict=True))
    hidden = [r for r in part if not r["gold_visible"]]
    assert hidden and all(v is None for r in hidden for v in r["r_truth"])


def test_a_second_run_does_nothing_and_another_plan_is_refused(finished):
    cell = cell_file(finished, Cell(WORLD, all_methods()["sft"]))
    before = cell.stat().st_mtime_ns
    again = Plan(("behaviour", "sft", "pooled_dpo"), ("A+S",), ("T2",), (0,), None, sets=SMALL_SETS)
    open_root(again, finished, resume=True)
    comparison = Comparison(again, finished, Progress(finished))
    comparison.run(LocalPool)
    assert cell.stat().st_mtime_ns == before
    other = Plan(("sft",), ("A+S",), ("T2",), (0,), None, sets=("clone.steps=4",))
    with pytest.raises(ConfigError, match="was started with sets"):
        open_root(other, finished, resume=True)
    with pytest.raises(ConfigError, match="go on with --resume"):
        open_root(again, finished, resume=False)


def test_a_cell_of_other_settings_is_not_taken_for_this_one(finished):
    cell = Cell(WORLD, Method("sft", "baseline", "", "sft", ("clone.steps=7",)))
    with pytest.raises(ConfigError, match="was made with"):
        run_cell(finished, cell, None, list(SMALL_SETS))


def test_settings_are_chosen_where_a_part_is_verified():
    tracks = make_plan(None, [], ("sft",), ("A",), ("T1", "T2", "T3"), (0,), True, False)
    assert tracks.tuning == World("A", "T2", 100)


def test_other_worlds_can_take_the_settings_chosen_on_the_main_one():
    def other(tune_on):
        return make_plan(None, [], ("sft",), ("F",), ("T1",), (0,), True, False, tune_on)

    assert other("A+S").tuning == World("A+S", "T1", 100)
    assert other("A+S").worlds == [World("F", "T1", 0)]
    with pytest.raises(ConfigError, match="knob 'Z' does not exist"):
        other("Z")


def test_a_cell_that_raises_is_logged_and_named(tmp_path):
    broken = Method("broken", "baseline", "", "sft", ("clone.target_modules=no_such_module",))
    spec = GridSpec(str(tmp_path), None, SMALL_SETS)
    outcomes = run_grid(
        grid_tasks([WORLD], [broken, all_methods()["behaviour"]], lambda m: (0,)),
        LocalPool(spec),
        lambda task: False,
        lambda outcome: None,
    )
    assert outcomes["AS-T2-s0/broken.0"].status == "failed"
    assert "no_such_module" in outcomes["AS-T2-s0/broken.0"].error
    assert "Traceback" in (tmp_path / "logs/AS-T2-s0/broken.0.log").read_text()
    assert outcomes["AS-T2-s0/behaviour.0"].status == "done"
