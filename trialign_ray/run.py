"""The recipe, read first: collect -> dataset -> critic -> targets -> clone -> evaluate -> report.

Every stage leaves its result in the run directory; a stage whose result is there is not run again,
which is all that `resume` means here. Ray is started here, and nowhere else on a run's way.
"""

import json
import logging
import os
import shutil
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from envs.truthworld.corpus import behaviour_corpus
from envs.types import Split
from trialign_ray.actors.workers import Workers
from trialign_ray.assembly import Assembly
from trialign_ray.checkpoint import write_json
from trialign_ray.config import Config
from trialign_ray.progress import Progress
from trialign_ray.run_directory import RunDirectory
from trialign_ray.seeds import derive_seed
from trialign_ray.setting import Setting
from trialign_ray.supervised_settings import SupervisedSettings
from trialign_ray.tiny_lm import fit_on_dialogues

if TYPE_CHECKING:
    from trialign_ray.metrics import Protocol
    from trialign_ray.training import AdapterStage

logger = logging.getLogger(__name__)


def run(
    config: Config,
    setting: Setting,
    run_dir: RunDirectory,
    progress: Progress,
    until: str = "report",
    local: bool = False,
) -> dict[str, Any] | None:
    """Runs the stages up to `until` ("collect", "clone", "evaluate" or "report").

    Args: local: no Ray, everything in this process.
    Returns: the evaluation, or None if the run ends before it.
    Raises: ConfigError, DataError, WorkerError.
    """
    recipe = make_recipe(config, setting, run_dir, progress, local)
    try:
        recipe.fit_behaviour()
        recipe.collect()
        if until == "collect":
            return None
        recipe.score()
        recipe.solve()
        recipe.clone()
        if until == "clone":
            return None
        recipe.off_policy()
        evaluation = recipe.evaluate()
        if until == "report":
            recipe.report()
        return evaluation
    finally:
        recipe.close()


def make_recipe(
    config: Config,
    setting: Setting,
    run_dir: RunDirectory,
    progress: Progress,
    local: bool = False,
    own_engine: bool = True,
) -> "Recipe":
    """The recipe, nothing started. `local`, `own_engine`: see `Assembly`."""
    assembly = Assembly(config, setting, run_dir, local, own_engine=own_engine)
    return Recipe(config, setting, run_dir, progress, assembly)


def start_ray(dashboard: bool = False) -> dict[str, float]:
    """Connects to the cluster that RAY_ADDRESS names, or starts Ray here; returns its resources."""
    import ray

    if not ray.is_initialized():
        here: dict[str, Any] = {"address": "local", "include_dashboard": dashboard}
        ray.init(
            log_to_driver=False,
            logging_level=logging.WARNING,
            **({} if os.environ.get("RAY_ADDRESS") else here),
        )
    return dict(ray.cluster_resources())


@dataclass
class Recipe:
    """The stages, in order, each with what it reads and writes."""

    config: Config
    setting: Setting
    run_dir: RunDirectory
    progress: Progress
    assembly: Assembly

    def fit_behaviour(self) -> None:
        """Stage 0: TruthWorld's personalized behaviour model, on its corrupted logs."""
        target, config = self.run_dir.behaviour_dir, self.config.behaviour
        if not self.config.fits_behaviour or target.is_dir():
            return
        corpus = behaviour_corpus(
            self.setting.questions,
            self.setting.groups,
            self.setting.beliefs,
            self.config.world.corruption,
            config.switch_rate,
            self.config.seed,
        )
        settings = SupervisedSettings(
            **config.model_dump(include={"epochs", "batch_size", "learning_rate"}),
            seed=derive_seed(self.config.seed, "behaviour"),
        )
        work = self.run_dir.root / "models" / ".fitting"
        with self.progress.stage("behaviour", 100):
            fit_on_dialogues(
                self.assembly.facts_base,
                corpus,
                settings,
                target,
                work,
                0 if self.assembly.local else config.num_workers,
                config.num_threads,
                self._show_fitting,
            )
        shutil.rmtree(work, ignore_errors=True)

    def _show_fitting(self, step: int, steps: int, loss: float) -> None:
        self.progress.metrics({"behaviour/loss_nats": loss}, step)
        self.progress.display.advance("behaviour", 100 * step // steps, f"loss {loss:.3f}")

    def collect(self) -> None:
        """Stages 1 and 2: the log."""
        from envs.world import WorldSpec
        from trialign_ray.checks import check_log
        from trialign_ray.collect import collect
        from trialign_ray.dataset import write_dataset

        if self.run_dir.log_file.is_file():
            check_log(self.run_dir, self.setting, self.assembly.behaviour_id)
            return
        config = self.config.collect
        spec = WorldSpec(
            questions=self.setting.log_questions(config.label_fraction, self.config.seed),
            groups=self.setting.groups,
            judge=self.setting.log_judge,
            turns=config.turns,
            mode=self.config.world.prompt_mode,
            render=self.assembly.render,
        )
        workers = self.workers
        with self.progress.stage("collect", config.turns):
            rows = collect(
                spec,
                workers,
                config,
                self.config.seed,
                self.assembly.behaviour_id,
                lambda turn: self.progress.display.advance("collect", turn + 1),
            )
            write_dataset(rows, self.run_dir.log_file)

    def score(self) -> None:
        """Stage 3a: reference log-probabilities and preference scores of candidates and of peers'
        answers restated, once; no reference model runs after this."""
        from trialign_ray.dataset import content_hash, read_dataset
        from trialign_ray.preference_scorers import scorer_reports
        from trialign_ray.reference_scores import write_scores
        from trialign_ray.scoring import score_candidates

        if self.run_dir.scores_file.is_file():
            return
        workers = self.workers
        with self.progress.stage("score"):
            rows = read_dataset(self.run_dir.log_file)
            scores = score_candidates(rows, workers, self.setting.questions, self.setting.log_judge)
            if reports := scorer_reports(self.setting.scorer):
                write_json(self.run_dir.root / "dataset" / "preferences.json", reports)
            write_scores(scores, self.run_dir.scores_file, content_hash(rows))

    def fit_critic(self) -> None:
        """Stage 3b, in the critic-learner: truth heads, where the algorithm believes one."""
        from trialign_ray.critic_report import truth_head_report

        if self.run_dir.critic_report.is_file() or not self.assembly.algorithm.central:
            return
        workers = self.workers
        with self.progress.stage("critic"):
            self.progress.metrics(workers.on_critic("fit"), 0)
            report = truth_head_report(self.run_dir, self.setting, self.config)
            write_json(self.run_dir.critic_report, report)

    def solve(self) -> None:
        """Stage 4, in the critic-learner: the targets, after the critic that they are made from."""
        if self.run_dir.solution_file.is_file():
            return
        self.fit_critic()
        workers = self.workers
        with self.progress.stage("targets"):
            solution = workers.on_critic("solve")
            for kind in ("utility", "credit"):
                for objective, by_group in solution[kind].items():
                    for group, value in by_group.items():
                        metric = {f"targets/{kind}_{objective}": value}
                        self.progress.metrics(metric, 0, group=group)

    def clone(self) -> None:
        """Stage 5: every group's actor trains its own adapter."""
        if not self.run_dir.training_file.is_file():
            self.adapter_stage().run()

    def adapter_stage(self) -> "AdapterStage":
        """Stage 5 as the driver sees it, nothing trained."""
        from trialign_ray.training import AdapterStage

        trainees = self.assembly.trainees
        return AdapterStage(
            config=self.config.clone,
            run_dir=self.run_dir,
            workers=self.workers,
            trainees=trainees,
            common=self.assembly.common_adapter(trainees[0]),
            progress=self.progress,
        )

    def off_policy(self) -> None:
        """Stage 6, first half: what the log and the validation questions say of the adapters."""
        from trialign_ray.guard import judge_on_validation
        from trialign_ray.off_policy_stage import write_estimates

        run = self.run_dir
        if run.off_policy_file.is_file() and run.selection_file.is_file():
            return
        workers, protocol = self.workers, self.protocol("validation")
        with self.progress.stage("off_policy"):
            write_estimates(run, workers, self.config, self.progress)
            write_json(run.selection_file, judge_on_validation(protocol, workers, self.config))

    def evaluate(self, again: bool = False) -> dict[str, Any]:
        """Stage 6: held-out questions, one turn, every group's adapter alone."""
        from trialign_ray.evaluate import evaluate_models
        from trialign_ray.model_card import write_model_cards

        if self.run_dir.evaluation_file.is_file() and not again:
            return json.loads(self.run_dir.evaluation_file.read_text(encoding="utf-8"))
        protocol, controls = self.protocol("test"), self.setting.controls
        workers, folders = self.workers, self.assembly.models
        with self.progress.stage("evaluate", len(folders) + 1):
            show = partial(self.progress.display.advance, "evaluate")
            results = evaluate_models(protocol, workers, folders, controls, show)
            named = {"split": "test", "seed": self.config.seed, "algorithm": self.config.algorithm}
            evaluation = named | results
            write_model_cards(self.run_dir, evaluation, self.setting.groups)
            write_json(self.run_dir.evaluation_file, evaluation)
        return evaluation

    def protocol(self, split: Split) -> "Protocol":
        """What is asked in evaluation, of the given split."""
        from trialign_ray.metrics import Protocol

        return Protocol(
            questions=self.setting.of_split(split),
            groups=self.setting.groups,
            judge=self.setting.judge,
            render=self.assembly.render,
            config=self.config.evaluate,
            max_new_tokens=self.config.collect.max_new_tokens,
            batch_size=self.config.collect.batch_size,
            seed=self.config.seed,
        )

    def report(self) -> None:
        """Stage 7: report.html and report.md."""
        from trialign_ray.report import write_report

        with self.progress.stage("report"):
            write_report(self.run_dir)

    @property
    def workers(self) -> Workers:
        """Agents of all groups and the critic-learner; started when first needed."""
        if not self.assembly.started:
            with self.progress.stage("actors"):
                self.assembly.start()
        return self.assembly.workers

    def close(self) -> None:
        """Ends the actors; nothing is left running whatever happened."""
        self.assembly.close()
