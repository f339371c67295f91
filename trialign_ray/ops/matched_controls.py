"""One group against several controls who were asked the same questions.

Shapes: C controls, X questions.
"""

import numpy as np
from numpy.typing import NDArray


def matched_p(correct_X: NDArray[np.bool_], control_CX: NDArray[np.bool_]) -> float:
    """Exact two-sided p that a group is served like its controls; McNemar's test where C = 1.

    If it is, the group is one of C + 1 exchangeable users within each question: of s_x right
    answers it has one with probability s_x / (C + 1), independently over questions. So its number
    of right answers, given all s_x, is a sum of independent unlike coins (Poisson binomial), whose
    distribution is had by convolution. Questions on which all C + 1 agree say nothing and drop out.
    A vote of the controls would not do in their place: it is right more often than any of them.

    Source: Miettinen 1969, Biometrics 25(2), "Individual matching with multiple controls in the
    case of all-or-none responses"; exact tails in place of the normal ones.
    Returns: min(1, 2 * smaller tail), in (0, 1].
    """
    users = len(control_CX) + 1
    right_X = control_CX.sum(0) + correct_X
    told_apart_X = (right_X > 0) & (right_X < users)
    observed = int(correct_X[told_apart_X].sum())
    probability = np.ones(1)
    for chance in right_X[told_apart_X] / users:
        probability = np.convolve(probability, (1 - chance, chance))
    lower, upper = probability[: observed + 1].sum(), probability[observed:].sum()
    return float(min(1.0, 2 * min(lower, upper)))
