"""How consistent the groups' answers are: agreement with truth, and agreement for its own sake.

Shapes: G groups, X questions. Answers are integer ids in one vocabulary for all questions: chance
agreement depends on how common an answer is over all of them.
"""

import warnings

import numpy as np
from numpy.typing import NDArray


def agreement(correct_GX: NDArray[np.bool_], answer_GX: NDArray[np.int_]) -> dict[str, float]:
    """Shares of questions, each in [0, 1].

    all_correct: every group is right (primary: agreeing on a falsehood does not help it).
    all_agree: every group gives the same answer. agree_and_wrong: the same false answer; always
    shown beside the others. truth_given_known: sum_x prod_g c / sum_x max_g c, the share of what
    some group was told rightly that all were told rightly; nan if nobody is ever right.
    """
    same_X = (answer_GX == answer_GX[:1]).all(0)
    all_X, some_X = correct_GX.all(0), correct_GX.any(0)
    known = some_X.sum()
    return {
        "all_correct": float(all_X.mean()),
        "all_agree": float(same_X.mean()),
        "agree_and_wrong": float((same_X & ~some_X).mean()),
        "truth_given_known": float(all_X.sum() / known) if known else float("nan"),
    }


def fleiss_kappa(answer_GX: NDArray[np.int_]) -> float:
    """Fleiss' kappa of the groups' answers; 1.0 where all are identical, nan for one group.

    By statsmodels, which gives nan where every rating of the table is one category.
    """
    from statsmodels.stats.inter_rater import aggregate_raters
    from statsmodels.stats.inter_rater import fleiss_kappa as kappa

    if len(answer_GX) < 2:
        return float("nan")
    if (answer_GX == answer_GX[:1]).all():
        return 1.0
    return float(kappa(aggregate_raters(answer_GX.T)[0]))


def krippendorff_alpha(answer_GX: NDArray[np.int_]) -> float:
    """Krippendorff's nominal alpha; 1.0 where all are identical, nan for one group."""
    import krippendorff

    if len(answer_GX) < 2:
        return float("nan")
    if (answer_GX == answer_GX[:1]).all():
        return 1.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return float(
            krippendorff.alpha(
                reliability_data=answer_GX.astype(float), level_of_measurement="nominal"
            )
        )
