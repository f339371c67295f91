"""The frontier of a small real run: every promise is what the definition says, and holds up."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from tests.trialign_ray.runs import make_recipe, small_config
from trialign_ray.algorithms import algorithm_by_name
from trialign_ray.config import load_config
from trialign_ray.errors import ConfigError, ConvergenceError, DataError
from trialign_ray.progress import Progress
from trialign_ray.run_directory import config_hash
from trialign_ray.run_variant import Realised, Variant, train_variant
from trialign_ray.targets_frontier import chosen_to_train, find_frontier, rank_agreement
from trialign_ray.targets_prediction import Prediction, known_means, read_swept_log
from trialign_ray.targets_sweep import (
    Point,
    chains_of,
    overrides_of,
    solve_setting,
    sweep,
    swept_targets,
)
from tuning.frontier import FrontierSummary, run_frontier
from tuning.frontier_grid import default_grid, setting_name
from tuning.frontier_page import frontier_tables
from tuning.frontier_training import TrainedPoint, correlations, train_on_ray

SMALL = (
    "clone.steps=4",
    "clone.checkpoint_every=4",
    "world.validation_fraction=0.04",
    "world.train_fraction=0.9",
    "evaluate.modes=[explicit]",
)
UNSOLVABLE = {
    "players": "groups",
    "welfare": "power_mean",
    "welfare_exponent": -4.0,
    "truth_weight": 0.0,
    "personalization_weight": 0.0,
}
"""With both weights 0 every return is 0, where a power mean is not concave."""


def scored(folder: Path, *overrides: str) -> Path:
    recipe = make_recipe(folder, small_config(*SMALL, *overrides), local=True)
    try:
        recipe.collect()
        recipe.score()
    finally:
        recipe.close()
        recipe.progress.close()
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return scored(tmp_path_factory.mktemp("frontier") / "run")


@pytest.fixture(scope="module")
def log(run):
    return read_swept_log(run)


@pytest.fixture(scope="module")
def points(log) -> list[Point]:
    grid = [s for s in default_grid(200) if s["welfare"] != "maximin"]
    return sweep(log, grid)


@pytest.fixture(scope="module")
def summary(run) -> FrontierSummary:
    return run_frontier(run, train=1, settings=40, progress=Progress(run / "frontier"))


def promise(truth: float, style: float, inconsistency: float = 0.0) -> Prediction:
    return Prediction({"a": truth, "b": 1.0}, {"a": style, "b": 1.0}, inconsistency, 0.0)


def points_at(*promises: Prediction) -> list[Point]:
    return [Point({"penalty_weight": float(i)}, p) for i, p in enumerate(promises)]


def test_the_default_grid_has_500_settings_and_every_one_is_a_valid_configuration():
    grid = default_grid()
    assert len(grid) >= 500
    hashes = set()
    for settings in grid:
        config = load_config(None, overrides_of(load_config(None), settings))
        assert {k: getattr(config.targets, k) for k in settings} == settings
        hashes.add(config_hash(config))
    assert len(hashes) == len(grid) == len({setting_name(s) for s in grid})


@pytest.mark.parametrize("count", (1, 7, 600, 630, 631, 2000))
def test_a_grid_has_as_many_different_settings_as_were_asked_for(count):
    grid = default_grid(count)
    assert len(grid) == count == len({setting_name(s) for s in grid})


def test_a_grid_is_the_same_every_time_and_spans_lambda_from_zero_to_ten():
    assert default_grid() == default_grid()
    weights = sorted({s["penalty_weight"] for s in default_grid()})
    assert weights[0] == 0 and weights[1] == 0.03 and weights[-1] == 10


@pytest.mark.parametrize("count", (0, -3))
def test_a_grid_of_no_settings_is_refused(count):
    with pytest.raises(ConfigError, match="at least 1"):
        default_grid(count)


def test_predicted_truth_and_style_equal_a_naive_loop(log):
    tensors, groups = log.problem.tensors, log.groups
    generator = torch.Generator().manual_seed(0)
    q = torch.rand(tensors.reference_GXK.shape, generator=generator).double() * tensors.mask_GXK
    q = q / q.sum(-1, keepdim=True)
    found = log.predict(q)
    for value, by_group in (
        (log.truth_GXK, found.truth),
        (log.personalization_GXK, found.personalization),
    ):
        for g, group in enumerate(groups):
            means = []
            for x in range(q.shape[1]):
                total = mass = 0.0
                for k in range(q.shape[2]):
                    v = float(value[g, x, k])
                    if tensors.mask_GXK[g, x, k] and not math.isnan(v):
                        total += float(q[g, x, k]) * v
                        mass += float(q[g, x, k])
                if mass > 0:
                    means.append(total / mass)
            assert by_group[group] == pytest.approx(sum(means) / len(means), abs=1e-12)


def test_predicted_truth_is_gold_where_it_is_visible(log):
    gold = log.problem.tensors.truth_GXK
    verified = (gold == 1).any(-1) & log.problem.tensors.is_truth_X
    assert verified.any()
    assert torch.equal(log.truth_GXK[gold == 1], torch.ones(int((gold == 1).sum())).double())


def test_kl_and_inconsistency_equal_a_naive_loop(log):
    tensors, mu = log.problem.tensors, log.reference_GXK
    generator = torch.Generator().manual_seed(1)
    q = mu * torch.rand(mu.shape, generator=generator).double()
    q = q / q.sum(-1, keepdim=True)
    weights = log.problem.weights_G / log.problem.weights_G.sum()
    kl = 0.0
    for g, weight in enumerate(weights.tolist()):
        rows = [x for x in range(mu.shape[1]) if bool(tensors.mask_GXK[g, x].any())]
        for x in rows:
            for k in range(mu.shape[2]):
                if mu[g, x, k] > 0:
                    kl += weight / len(rows) * float(q[g, x, k] * (q[g, x, k] / mu[g, x, k]).log())
    found = log.predict(q)
    assert found.kl == pytest.approx(kl, rel=1e-9)
    divergences = []
    for x in tensors.is_truth_X.nonzero().flatten().tolist():
        p = [{} for _ in log.groups]
        for g in range(len(p)):
            for k in range(mu.shape[2]):
                answer = int(tensors.answer_GXK[g, x, k])
                p[g][answer] = p[g].get(answer, 0.0) + float(q[g, x, k])
        mean = {y: sum(own.get(y, 0.0) for own in p) / len(p) for own in p for y in own}
        entropies = [-sum(v * math.log(v) for v in d.values() if v > 0) for d in (*p, mean)]
        divergences.append(entropies[-1] - sum(entropies[:-1]) / len(p))
    assert found.inconsistency == pytest.approx(sum(divergences) / len(divergences), abs=1e-9)


def test_a_mean_over_known_candidates_leaves_out_what_nobody_knows():
    # Question 0: (.2 * 1 + .3 * 0) / (.2 + .3) = .4. Question 1: nothing known. Mean: .4.
    nan = math.nan
    q = torch.tensor([[[0.2, 0.3, 0.5], [0.5, 0.5, 0.0]], [[1.0, 0, 0], [1.0, 0, 0]]])
    value = torch.tensor([[[1.0, 0.0, nan], [nan, nan, nan]], [[nan] * 3, [nan] * 3]])
    assert known_means(q, value, ("a", "b")) == {"a": pytest.approx(0.4)}


def test_the_log_itself_has_no_kl_and_the_runs_own_setting_is_one_of_the_sweeps(log):
    assert log.predict(log.reference_GXK).kl == pytest.approx(0.0, abs=1e-12)
    own = {"penalty_weight": log.config.targets.penalty_weight}
    (point,) = sweep(log, [own])
    assert log.of_the_run() == point.prediction


@pytest.mark.parametrize("players", ("groups", "group_objectives"))
def test_the_swept_problem_is_the_algorithms_own(log, players):
    settings = {"players": players, "welfare": "gini", "truth_weight": 0.3}
    problem = replace(log.problem, config=swept_targets(log.config, settings))
    trained = algorithm_by_name("trialign").solve(problem)
    found = solve_setting(log, problem.config)
    assert torch.equal(found.policy_GXK, trained.policy_GXK)


def test_a_run_of_an_algorithm_without_a_central_problem_has_a_frontier_too(log):
    baseline = replace(log, config=log.config.model_copy(update={"algorithm": "dpo"}))
    assert baseline.of_the_run() is None
    assert sweep(baseline, [{}])[0].prediction == sweep(log, [{}])[0].prediction
    assert overrides_of(baseline.config, {"kl_weight": 0.2}) == [
        "algorithm=trialign",
        "targets.kl_weight=0.2",
    ]


def test_a_target_inconsistency_of_the_run_does_not_replace_the_swept_lambda(log):
    targets = log.config.targets.model_copy(update={"target_inconsistency": 0.01})
    aimed = replace(log, config=log.config.model_copy(update={"targets": targets}))
    assert swept_targets(aimed.config, {}).target_inconsistency is None
    overrides = overrides_of(aimed.config, {"penalty_weight": 3.0})
    assert load_config(None, overrides).targets.target_inconsistency is None


def test_more_lambda_never_raises_inconsistency(points):
    groups: dict[str, list[Point]] = {}
    for point in points:
        rest = {k: v for k, v in point.settings.items() if k != "penalty_weight"}
        groups.setdefault(setting_name(rest), []).append(point)
    compared = 0
    for own in groups.values():
        own.sort(key=lambda p: p.settings["penalty_weight"])
        for less, more in zip(own, own[1:], strict=False):
            assert more.promise.inconsistency <= less.promise.inconsistency + 2e-3
            compared += 1
    assert compared >= 30


def test_warm_starts_change_no_promise(log, points):
    for point in points[::17]:
        cold = solve_setting(log, swept_targets(log.config, point.settings))
        assert point.promise.worst_truth == pytest.approx(
            log.predict(cold.policy_GXK).worst_truth, abs=5e-3
        )


def test_welfare_of_a_point_is_that_of_its_utilities(log):
    (point,) = sweep(log, [{"players": "groups", "welfare": "power_mean", "welfare_exponent": 1.0}])
    targets = swept_targets(log.config, point.settings)
    utility = solve_setting(log, targets).utility_G
    assert point.welfare == pytest.approx(float(utility.mean()), abs=1e-6)
    assert point.credit is not None
    assert point.credit["return"] == pytest.approx(dict.fromkeys(log.groups, 1 / len(log.groups)))


def test_a_chain_holds_the_settings_that_differ_in_lambda_and_beta_alone():
    grid = [
        {"welfare": "gini", "penalty_weight": 0.0},
        {"welfare": "maximin", "penalty_weight": 0.0},
        {"welfare": "gini", "penalty_weight": 1.0, "kl_weight": 0.1},
    ]
    assert chains_of(grid) == [[0, 2], [1]]


def test_a_setting_without_a_certificate_is_kept_with_its_reason(log):
    good = {"kl_weight": 0.5}
    points = sweep(log, [good, UNSOLVABLE, {**good, "kl_weight": 1.0}])
    assert [p.prediction is None for p in points] == [False, True, False]
    assert "concave" in points[1].failure
    frontier = find_frontier(points, log.predict(log.reference_GXK))
    assert 1 not in frontier.pareto
    with pytest.raises(ConfigError, match="2 that have a solution"):
        chosen_to_train(points, frontier, 3)


def test_a_grid_with_nothing_in_it_or_nothing_solvable_is_refused(log):
    with pytest.raises(ConfigError, match="no setting"):
        sweep(log, [])
    with pytest.raises(ConvergenceError, match="none of 1 settings"):
        sweep(log, [UNSOLVABLE])
    with pytest.raises(ConfigError, match="kl_weight"):
        sweep(log, [{"kl_weight": -1.0}])
    with pytest.raises(ConfigError, match="penalty_wait"):
        sweep(log, [{"penalty_wait": 1.0}])


def test_the_pareto_set_equals_brute_force(log, points):
    frontier = find_frontier(points, log.predict(log.reference_GXK))

    def at(point: Point, count: int) -> tuple[float, ...]:
        p = point.promise
        return tuple(
            round(v, 3) for v in (p.worst_truth, p.worst_personalization, -p.inconsistency)
        )[:count]

    for count, found in ((3, frontier.pareto), (2, frontier.line)):
        rows = [at(p, count) for p in points]
        front = {
            r
            for r in rows
            if not any(
                all(a >= b for a, b in zip(other, r, strict=True)) and other != r for other in rows
            )
        }
        assert sorted(rows[i] for i in found) == sorted(front)
        assert all(rows.index(rows[i]) == i for i in found)
    assert set(at(points[i], 2) for i in frontier.line) <= {at(points[i], 2) for i in frontier.pareto}


def test_hypervolume_and_recommendations_by_hand():
    # Log: truth .2, style .9. Kept: style >= .88 and truth >= .2, so neither .9/.5 nor .1/.99.
    # Line .6/.89, .5/.95, .3/.96, scaled (1, 0), (.667, .857), (0, 1): the middle one is the knee.
    points = points_at(
        promise(0.9, 0.5),
        promise(0.6, 0.89, 0.3),
        promise(0.5, 0.95, 0.2),
        promise(0.3, 0.96, 0.1),
        promise(0.1, 0.99),
        promise(0.585, 0.885, 0.05),
    )
    frontier = find_frontier(points, promise(0.2, 0.9))
    assert [r.index for r in frontier.recommended] == [1, 2, 5]
    assert frontier.line == (0, 1, 2, 3, 4)
    assert frontier.pareto == (0, 1, 5, 2, 3, 4)  # 5 is more consistent than 1, which beats it in both
    # .9*.5 + .6*(.89-.5) + .5*(.95-.89) + .3*(.96-.95) + .1*(.99-.96)
    assert frontier.hypervolume == pytest.approx(0.45 + 0.234 + 0.03 + 0.003 + 0.003)


def test_nothing_is_recommended_that_takes_from_a_group_what_it_had():
    frontier = find_frontier(points_at(promise(0.9, 0.5)), promise(0.2, 0.9))
    assert [r.index for r in frontier.recommended] == [None, None, None]
    assert chosen_to_train(points_at(promise(0.9, 0.5)), frontier, 1) == [0]


def test_points_to_train_are_different_spread_and_partly_off_the_front():
    line = [promise(t / 10, 1 - t / 10) for t in range(1, 10)]
    bad = [promise(0.1, 0.1), promise(0.2, 0.2)]
    points = points_at(*line, *bad)
    frontier = find_frontier(points, promise(0.0, 0.0))
    chosen = chosen_to_train(points, frontier, 6)
    assert len(set(chosen)) == 6
    assert {0, 4, 8} <= set(chosen[:4]) and 9 in chosen[4:]
    assert chosen_to_train(points, frontier, 1) == [8]
    assert sorted(chosen_to_train(points, frontier, len(points))) == list(range(len(points)))
    with pytest.raises(ConfigError, match="12 points to train"):
        chosen_to_train(points, frontier, 12)


def test_rank_agreement_is_none_where_nothing_varies():
    assert rank_agreement([0.1, 0.2, 0.9], [0.5, 0.6, 0.7]) == pytest.approx(1.0)
    assert rank_agreement([0.1, 0.2, 0.9], [0.5, 0.5, 0.5]) is None
    assert rank_agreement([0.1], [0.5]) is None


def test_correlations_leave_out_what_failed():
    points = points_at(promise(0.1, 0.3), promise(0.5, 0.2), promise(0.9, 0.1))

    def trained(index: int, truth: float) -> TrainedPoint:
        done = Realised({"test": {"a": truth}}, {"test": {"a": 1 - truth}})
        return TrainedPoint(index, "", (), done)

    broken = TrainedPoint(2, "", (), Realised({}, {}, failure="killed"))
    found = correlations(points, [trained(0, 0.4), trained(1, 0.2), broken])
    assert found == {"test": {"truth": pytest.approx(-1.0), "personalization": pytest.approx(-1.0)}}
    assert correlations(points, [broken]) == {}


def test_a_frontier_leaves_all_points_the_choice_and_a_page(run, summary):
    folder = run / "frontier"
    table = pq.read_table(folder / "frontier.parquet")
    assert table.num_rows == len(summary.points) == 40
    for name in ("worst_truth", "worst_personalization", "inconsistency", "kl", "gap", "wall_s"):
        assert name in table.column_names
    assert {"truth_amber", "personalization_delta", "penalty_weight"} <= set(table.column_names)
    record = json.loads((folder / "frontier.json").read_text())
    assert record["num_settings"] == 40 and record["failed"] == []
    assert [p["index"] for p in record["pareto"]] == list(summary.frontier.pareto)
    for entry in record["pareto"]:
        config = load_config(run / "config.yaml", entry["overrides"])
        assert config.algorithm == "trialign"
        assert entry["worst_truth"] == min(entry["truth"].values())


def test_the_page_loads_nothing_from_outside_and_shows_every_point(summary):
    html = summary.html.read_text(encoding="utf-8")
    without_scripts = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)
    assert "http:" not in without_scripts and "https:" not in without_scripts
    assert "<script src" not in html and "<link" not in html and "default-src 'none'" in html
    charts = re.findall(r'"(\w+)": JSON\.parse\((".*?")\),', html)
    found = {name: json.loads(json.loads(spec)) for name, spec in charts}
    assert set(found) == {"tradeoff", "inconsistency", "realised"}
    dots = [t for t in found["tradeoff"]["data"] if "coloraxis" in t.get("marker", {})]
    assert sum(len(t["x"]) for t in dots) == len(summary.points)
    names = {t["name"] for t in found["tradeoff"]["data"]}
    assert {"this run's setting", "the log as it is", "recommended"} <= names


def test_the_terminal_shows_recommendations_that_can_be_pasted(summary):
    console = Console(width=400)
    with console.capture() as captured:
        for table in frontier_tables(summary):
            console.print(table)
    text = captured.get()
    for r in summary.frontier.recommended:
        assert r.name in text
        if r.index is not None:
            assert f"--set {summary.overrides[r.index][0]}" in text
    assert len(text.splitlines()) < 60


def test_a_trained_point_shares_the_log_and_is_asked_on_validation_and_test(run, summary):
    (trained,) = summary.trained
    assert trained.realised.failure == ""
    assert set(trained.realised.truth) == {"validation", "test"}
    assert set(trained.realised.truth["test"]) == {"amber", "birch", "cedar", "delta"}
    folder = run / "frontier" / "trained" / trained.name
    for name in ("dataset", "critic/reference_scores.parquet"):
        link = folder / name
        assert link.is_symlink() and not link.readlink().is_absolute()
        assert link.resolve() == (run / name).resolve()
    assert not (folder / "checkpoints").exists()
    assert (folder / "adapters" / "amber" / "adapter_model.safetensors").is_file()
    config = load_config(folder / "config.yaml")
    chosen = summary.points[trained.index].settings
    assert {k: getattr(config.targets, k) for k in chosen} == chosen


def test_what_the_adapters_were_taught_is_what_was_promised(run, summary):
    (trained,) = summary.trained
    solution = json.loads(
        (run / "frontier" / "trained" / trained.name / "targets" / "solution.json").read_text()
    )
    promised = summary.points[trained.index].promise
    assert solution["inconsistency"] == pytest.approx(promised.inconsistency, abs=2e-3)


def test_training_again_reads_what_is_there(run, summary):
    files = {p: p.stat().st_mtime_ns for p in run.rglob("adapter_model.safetensors")}
    again = run_frontier(run, train=1, settings=40, progress=Progress(run / "frontier"))
    assert again.trained == summary.trained
    assert files == {p: p.stat().st_mtime_ns for p in run.rglob("adapter_model.safetensors")}


def test_a_variant_trained_with_other_settings_is_not_taken_for_this_one(run, summary):
    (trained,) = summary.trained
    folder = run / "frontier" / "trained" / trained.name
    other = Variant(str(run), str(folder), (*trained.overrides, "clone.steps=5"))
    assert "clone.steps" in train_variant(other).failure


@pytest.mark.ray
def test_ray_trains_variants_to_the_same_result(run, summary, ray_local):
    (trained,) = summary.trained
    folder = run / "frontier" / "trained" / trained.name
    done = Variant(str(run), str(folder), trained.overrides)
    broken = Variant(str(run), str(run / "frontier" / "broken"), ("targets.kl_weight=-1",))
    results = dict(train_on_ray([done, broken]))
    assert results[0] == trained.realised
    assert "kl_weight" in results[1].failure


def test_a_run_without_log_or_scores_is_refused_with_the_command_that_makes_them(run, tmp_path):
    recipe = make_recipe(tmp_path / "new", small_config(*SMALL), local=True)
    recipe.progress.close()
    with pytest.raises(ConfigError, match=r"no log .*trialign train .*--resume --run-dir"):
        read_swept_log(tmp_path / "new")
    (tmp_path / "new" / "dataset").symlink_to(run / "dataset")
    with pytest.raises(ConfigError, match="no reference scores"):
        read_swept_log(tmp_path / "new")
    with pytest.raises(ConfigError, match="no run directory"):
        read_swept_log(tmp_path / "nothing")


def test_a_log_of_which_nobody_knows_the_truth_has_no_frontier(tmp_path):
    folder = scored(
        tmp_path / "blind",
        "collect.label_fraction=0",
        "critic.truth_head=labels",
        "world.train_fraction=0.06",
    )
    with pytest.raises(DataError, match="nobody knows the truth"):
        read_swept_log(folder)
