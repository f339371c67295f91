"""The central problem at size: seconds and iterations to a certified 1e-4, and a sweep of settings.

    python -m tests.bench.central_solver

Random returns, references and answers; 80 % of the questions have a truth. Median of five.
"""

import argparse
import statistics
import time

import torch

from trialign_ray.ops.inconsistency import generalized_jsd
from trialign_ray.ops.welfare import GeneralizedGini, LogNash, PowerMean, SoftMin
from trialign_ray.targets import CentralSolution, solve_central

WELFARES = {
    "log_nash": LogNash(),
    "power_mean -1": PowerMean(-1),
    "soft_min .05": SoftMin(0.05),
    "gini": GeneralizedGini.gini(),
    "cvar .5": GeneralizedGini.cvar(level=0.5),
    "maximin": GeneralizedGini.maximin(),
}


def main() -> None:
    """Prints one row per welfare and penalty weight, then the time of a warm-started sweep."""
    options = parsed()
    torch.set_num_threads(options.threads)
    inputs = random_problem(options.groups, options.questions, options.candidates)
    print(
        f"{options.questions} questions x {options.groups} groups x {options.candidates} "
        f"candidates, generalized_jsd, beta {options.kl_weight}, tol {options.tol:g}, "
        f"{options.threads} threads"
    )
    print("| welfare | lambda | seconds | iterations | gap / J |")
    print("| --- | --- | --- | --- | --- |")
    for name, welfare in WELFARES.items():
        for penalty_weight in (0.0, 0.3, 1.0, 4.0):
            seconds, found = [], None
            for _ in range(options.repeats):
                start = time.perf_counter()
                found = solved(inputs, welfare, penalty_weight, options.kl_weight, options.tol)
                seconds.append(time.perf_counter() - start)
            if found is not None:
                print(
                    f"| {name} | {penalty_weight} | {statistics.median(seconds):.2f} | "
                    f"{found.num_iterations} | {found.gap / abs(found.objective):.0e} |",
                    flush=True,
                )
    sweep(options)


def sweep(options: argparse.Namespace) -> None:
    """Every welfare and beta over a ladder of lambda, each solved from the one before."""
    inputs = random_problem(4, 290, 8)
    ladder = torch.logspace(-2, 1, options.settings // (2 * len(WELFARES))).tolist()
    start, num_solved = time.perf_counter(), 0
    for welfare in WELFARES.values():
        for kl_weight in (0.05, 0.1):
            near = None
            for penalty_weight in ladder:
                near = solved(inputs, welfare, penalty_weight, kl_weight, options.tol, near)
                num_solved += 1
    seconds = time.perf_counter() - start
    print(f"\nsweep of {num_solved} settings, 290 x 4 x 8, beta .05 and .1: {seconds:.1f} s")


def solved(
    inputs: tuple[torch.Tensor, ...],
    welfare: LogNash | PowerMean | SoftMin | GeneralizedGini,
    penalty_weight: float,
    kl_weight: float,
    tol: float,
    near: CentralSolution | None = None,
) -> CentralSolution:
    value, reference, answers, is_truth = inputs
    return solve_central(
        value,
        reference,
        answers,
        is_truth,
        welfare=welfare,
        penalty=generalized_jsd,
        penalty_weight=penalty_weight,
        kl_weight=kl_weight,
        tol=tol,
        initial_GXK=None if near is None else near.policy_GXK,
        initial_credit_G=None if near is None else near.credit_G,
    )


def random_problem(groups: int, questions: int, candidates: int) -> tuple[torch.Tensor, ...]:
    """Returns of two objectives, references, answers (6 per question), and truth questions."""
    generator = torch.Generator().manual_seed(0)
    shape = (groups, questions, candidates)
    scale = 0.3 + torch.rand((2, groups, 1, 1), generator=generator)
    value = scale * torch.rand((2, *shape), generator=generator)
    reference = torch.rand(shape, generator=generator) + 0.05
    answers = torch.randint(0, 6, shape, generator=generator)
    return value, reference, answers, torch.rand(questions, generator=generator) < 0.8


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--questions", type=int, default=2000)
    parser.add_argument("--groups", type=int, default=12)
    parser.add_argument("--candidates", type=int, default=16)
    parser.add_argument("--kl-weight", type=float, default=0.1)
    parser.add_argument("--tol", type=float, default=1e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--settings", type=int, default=504, help="settings of the sweep")
    return parser.parse_args()


if __name__ == "__main__":
    main()
