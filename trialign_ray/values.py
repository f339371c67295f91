"""Values of more than one turn: implicit Q-learning on the log, all groups at once.

    Q_g(s, a) = r_g(s, a) + C_g(s, a)                    C: what follows, learned
    C_g -> gamma sum_h m_gh (1 - terminated_h) V_h(s')   m: whose future counts, rows sum to 1
    V_g -> the tau-expectile of min(Q1_g, Q2_g) over logged actions

Source: Kostrikov et al. 2021, arXiv 2110.06169, eqs. 5-7, with twin Q and Polyak-averaged targets.
Deviations: the reward of every action that we ask about is known, so only C is learned; a log of
one turn, or discount 0, then gives Q = r exactly, because C starts at 0 and its target is 0. And
the future may be that of all groups (`credit`), the reward of this turn stays the group's own.

Shapes: N joint turns, G groups, S state features, A action features, F features of a network,
E networks side by side, H hidden units.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trialign_ray.errors import ConfigError, DataError, ShapeError
from trialign_ray.ops.expectile import clipped_double_q, expectile_loss, polyak_update, td_target

Credit = Literal["own", "team", "peers"]


@dataclass(frozen=True)
class ValueConfig:
    """How values are learned.

    discount: gamma in [0, 1]; 0: Q = r, exactly. expectile: tau in (0, 1); .5 evaluates the logged
    policy, above it the better logged actions count more. credit: whose future an action is
    credited with: the group's own, the mean of all groups, or the mean of the others. steps:
    updates. hidden: units of each of two layers. batch_size: joint turns. polyak: share of the
    networks that goes into their targets per update; the paper's .005 is for 10^6 updates, .02
    follows within 50 of our 1,000.
    """

    discount: float = 0.9
    expectile: float = 0.7
    credit: Credit = "own"
    steps: int = 1000
    hidden: int = 32
    learning_rate: float = 3e-3
    batch_size: int = 128
    polyak: float = 0.02

    def __post_init__(self) -> None:
        if not (0 <= self.discount <= 1 and 0 < self.expectile < 1 and 0 < self.polyak <= 1):
            raise ConfigError(
                f"discount is {self.discount}, expectile is {self.expectile}, polyak is "
                f"{self.polyak}; expected discount in [0, 1], expectile in (0, 1), polyak in (0, 1]"
            )
        if min(self.steps, self.hidden, self.batch_size) < 1:
            raise ConfigError(
                f"steps, hidden and batch_size are {self.steps}, {self.hidden}, {self.batch_size}; "
                "expected at least 1 each"
            )


@dataclass(frozen=True)
class Transitions:
    """Joint turns of the log, one entry per group.

    reward_NG: NaN where not known or the group was absent; such entries teach nothing.
    next_state_NGS: where the group speaks next. terminated_NG: it never speaks again, because the
    episode ended; an episode that was only cut off (truncated) is not terminated.
    named_S: state features that belong to one group by name. Their weights start at 0, so that the
    draw of the weights favours no group and permuting groups permutes the values.
    """

    state_NGS: Tensor
    action_NGA: Tensor
    reward_NG: Tensor
    next_state_NGS: Tensor
    terminated_NG: Tensor
    named_S: Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.reward_NG.shape
        found = {n: tuple(getattr(self, n).shape) for n in ("state_NGS", "action_NGA")}
        fits = all(len(s) == 3 and s[:2] == shape for s in found.values())
        fits = fits and self.next_state_NGS.shape == self.state_NGS.shape
        if not fits or self.terminated_NG.shape != shape or shape.numel() == 0:
            raise ShapeError(
                f"transitions have reward_NG {tuple(shape)}, terminated_NG "
                f"{tuple(self.terminated_NG.shape)}, next_state_NGS "
                f"{tuple(self.next_state_NGS.shape)}, {found}; expected one entry per joint turn "
                "and group in each, and at least one"
            )

    def take(self, index_B: Tensor) -> "Transitions":
        """The joint turns at those places."""
        return Transitions(
            self.state_NGS[index_B],
            self.action_NGA[index_B],
            self.reward_NG[index_B],
            self.next_state_NGS[index_B],
            self.terminated_NG[index_B],
            self.named_S,
        )


class _GroupNetworks(nn.Module):
    """E networks of two hidden layers: a trunk for all groups, a bias and a head of each group.

    Every group starts alike (own parts and the output at 0); the trunks differ between networks.
    """

    def __init__(
        self, size_EF: tuple[int, int], num_groups: int, hidden: int, generator: torch.Generator
    ):
        super().__init__()
        num, features = size_EF

        def drawn(*shape: int, fan_in: int) -> nn.Parameter:
            uniform = torch.rand(shape, generator=generator) * 2 - 1
            return nn.Parameter(uniform / fan_in**0.5)

        self.inward_EFH = drawn(num, features, hidden, fan_in=features)
        self.inward_bias_EH = drawn(num, hidden, fan_in=features)
        self.middle_EHH = drawn(num, hidden, hidden, fan_in=hidden)
        self.middle_bias_EH = drawn(num, hidden, fan_in=hidden)
        self.own_bias_EGH = nn.Parameter(torch.zeros(num, num_groups, hidden))
        self.head_EH = nn.Parameter(torch.zeros(num, hidden))
        self.own_head_EGH = nn.Parameter(torch.zeros(num, num_groups, hidden))
        self.own_offset_EG = nn.Parameter(torch.zeros(num, num_groups))

    def forward(self, features_NGF: Tensor) -> Tensor:
        """Outputs of shape (E, N, G)."""
        bias_E1GH = (self.inward_bias_EH.unsqueeze(1) + self.own_bias_EGH).unsqueeze(1)
        first = torch.einsum("ngf,efh->engh", features_NGF, self.inward_EFH) + bias_E1GH
        bias_E11H = self.middle_bias_EH[:, None, None]
        second = torch.einsum("engh,ehk->engk", first.relu(), self.middle_EHH) + bias_E11H
        head_E1GH = (self.head_EH.unsqueeze(1) + self.own_head_EGH).unsqueeze(1)
        return (second.relu() * head_E1GH).sum(-1) + self.own_offset_EG.unsqueeze(1)


@dataclass(frozen=True)
class Values:
    """Learned values. Leading axes are free, the one before the features is the groups'."""

    state_network: nn.Module
    twin_networks: nn.Module
    config: ValueConfig

    @torch.no_grad()
    def v(self, state_NGS: Tensor) -> Tensor:
        """V_g(s), shape (..., G)."""
        flat = state_NGS.reshape(-1, *state_NGS.shape[-2:])
        return self.state_network(flat)[0].reshape(state_NGS.shape[:-1])

    @torch.no_grad()
    def continuation(self, state_NGS: Tensor, action_NGA: Tensor) -> Tensor:
        """C_g(s, a), the discounted value of what follows, shape (..., G)."""
        features = torch.cat([state_NGS, action_NGA], -1)
        twin = self.twin_networks(features.reshape(-1, *features.shape[-2:]))
        return clipped_double_q(twin[0], twin[1]).reshape(features.shape[:-1])

    def q(self, state_NGS: Tensor, action_NGA: Tensor, reward_NG: Tensor) -> Tensor:
        """min(Q1, Q2) = r + C, shape (..., G); NaN where the reward is."""
        return reward_NG + self.continuation(state_NGS, action_NGA)


def credit_matrix(credit: Credit, num_groups: int) -> Tensor:
    """m_gh: with which share of group h's future group g is credited. Rows sum to 1, or to 0."""
    own = torch.eye(num_groups)
    everyone = torch.ones(num_groups, num_groups)
    if credit == "own":
        return own
    if credit == "team":
        return everyone / num_groups
    if credit == "peers":
        return (everyone - own) / max(num_groups - 1, 1)
    raise ConfigError(f"credit is {credit!r}; expected own, team or peers")


def continuation_target(
    next_value_NG: Tensor, terminated_NG: Tensor, discount: float, credit_GG: Tensor
) -> Tensor:
    """gamma sum_h m_gh (1 - terminated_h) V_h(s'), m renormalised over groups that speak again."""
    alive_NG = (~terminated_NG).to(next_value_NG.dtype)
    future_NG = td_target(torch.zeros_like(next_value_NG), terminated_NG, next_value_NG, discount)
    share_NG = alive_NG @ credit_GG.T
    return (future_NG @ credit_GG.T) / share_NG.clamp_min(1e-9)


def fit_values(transitions: Transitions, config: ValueConfig, seed: int) -> Values:
    """V and twin Q of every group, deterministic in the seed.

    Batches are whole joint turns, so that every group learns from the same dialogues.
    Raises: DataError if no reward is known.
    """
    taught_N = (~transitions.reward_NG.isnan()).any(-1)
    if not taught_N.any():
        raise DataError("no transition has a known reward; there is nothing to learn values from")
    transitions = transitions.take(taught_N.nonzero().squeeze(-1))
    num_turns, num_groups, num_state = transitions.state_NGS.shape
    generator = torch.Generator().manual_seed(seed)
    num_action = transitions.action_NGA.shape[-1]
    v = _GroupNetworks((1, num_state), num_groups, config.hidden, generator)
    q = _GroupNetworks((2, num_state + num_action), num_groups, config.hidden, generator)
    if transitions.named_S is not None:
        with torch.no_grad():
            for network in (v, q):
                network.inward_EFH[:, : len(transitions.named_S)][:, transitions.named_S] = 0.0
    q_target = copy.deepcopy(q).requires_grad_(False)
    credit_GG = credit_matrix(config.credit, num_groups)
    optimizer = torch.optim.Adam([*v.parameters(), *q.parameters()], lr=config.learning_rate)
    for _ in range(config.steps):
        batch = transitions
        if config.batch_size < num_turns:
            drawn = torch.randint(num_turns, (config.batch_size,), generator=generator)
            batch = transitions.take(drawn)
        loss = value_loss(batch, v, q, config, credit_GG, q_target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        q_target.load_state_dict(
            polyak_update(q_target.state_dict(), q.state_dict(), config.polyak)
        )
    return Values(v.requires_grad_(False), q.requires_grad_(False), config)


def value_loss(
    batch: Transitions,
    v: nn.Module,
    q: nn.Module,
    config: ValueConfig,
    credit_GG: Tensor,
    q_target: nn.Module,
) -> Tensor:
    """L_V + L_Q: V learns from the target twins, Q from V; neither moves what it learns from."""
    known_NG = ~batch.reward_NG.isnan()
    features = torch.cat([batch.state_NGS, batch.action_NGA], -1)
    with torch.no_grad():
        twin = q_target(features)
        best_NG = batch.reward_NG.nan_to_num() + clipped_double_q(twin[0], twin[1])
        next_value_NG = v(batch.next_state_NGS)[0]
        target_NG = continuation_target(
            next_value_NG, batch.terminated_NG, config.discount, credit_GG
        )
    v_loss = expectile_loss((best_NG - v(batch.state_NGS)[0])[known_NG], config.expectile)
    q_loss = (q(features) - target_NG).square().sum(0)[known_NG].mean()
    return v_loss + q_loss
