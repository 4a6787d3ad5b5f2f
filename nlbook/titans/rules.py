"""One memory, one write: how it is read, what its gradient is, how one token moves it. Every form of titans uses these.

Fast weights are dictionaries: {"W"} of a linear memory, {"W1", "W2"} of a two-layer one, each (..., out, in). Leading
dimensions are (batch, head, box): boxes are memories of equal shape that learn side by side. Tokens are rows.

The choices that the paper leaves open are three small dataclasses: `Rule`, `Gates`, `Start`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.errors import need
from nlbook.numerics import silu_slope

Weights = dict[str, Tensor]
Signals = dict[str, tuple[Tensor, Tensor]]  # weight -> its inputs a (..., length, in), its errors e (..., length, out)

CHOICES: dict[str, tuple[str | None, ...]] = {
    "objective": ("l2", "dot"),
    "factor": ("raw", None),
    "read": ("start", "before", "after"),
    "rate": ("explicit", "implicit"),
}


@dataclass(frozen=True)
class Rule:
    """What one write is: the open choices of eq. 86-90.

    objective: "l2": 1/2 |M(k) - v|^2 (eq. 93); "dot": -<M(k), v> (eq. 92, the sign that descends).
    factor: "raw": each weight matrix is multiplied by alpha I - eta n n^T with that layer's own input n (the derivation
        of eq. 57 per layer); None: by alpha alone, plain gradient descent.
    read: which state a query meets. "start": the state at the start of the chunk (eq. 90). "before", "after": the
        running state without or with this token's own write; keys, values, gates and gradients still come from the
        start.
    rate: "explicit": eta for every weight matrix; stable while eta |n|^2 < 1 + alpha, which the input of the second
        layer can break. "implicit": eta / (1 + eta |n|^2), the exact rate of eq. 57 for inputs of any length (the
        printed one is for |n| = 1); no input is too long for it.
    momentum: S_t = mu_t S_{t-1} - eta_t grad is added in place of the last term, mu_t = sigmoid(x_t w + b), as in
        Titans.
    self_values: every memory makes its own target, v^ = M(v) (eq. 84, 87); False: v itself, the first form of eq.
        79-81, but for the gate memories, whose targets are numbers and not v.
    normalise_v: v at length 1, as k and q always are. Without it self-made values feed back on themselves and explode.
    radius: two caps on the rate, so that no write takes a weight matrix out of the ball of this Frobenius norm:
        eta |n|^2 <= 2 alpha keeps |alpha I - eta n n^T| <= alpha, and eta |e| |n| <= (1 - alpha) radius bounds what is
        added, so |W_t| <= max(|W_0|, radius). With momentum the second cap is times 1 - mu, and the ball is larger by
        the spread of 1 - alpha over the tokens. It needs decay. None: no caps.
    """

    objective: str = "l2"
    factor: str | None = "raw"
    read: str = "start"
    rate: str = "explicit"
    momentum: bool = False
    self_values: bool = True
    normalise_v: bool = True
    radius: float | None = None

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            value = getattr(self, name)
            need(value in allowed, name, repr(value), f"one of {', '.join(map(repr, allowed))}")
        need(self.radius is None or self.radius > 0, "radius", self.radius, "a number > 0, or None")

    @property
    def given(self) -> bool:
        """Whether every weight matrix is written at the rate that the gates give."""
        return self.rate == "explicit" and self.radius is None

    def pace(self, eta: Tensor, log_keep: Tensor, log_mu: Tensor | None, a: Tensor, e: Tensor) -> Tensor:
        """The rate at which one weight matrix is written: eta (..., length), a (..., length, in), e (..., length, out).

        implicit: eta / (1 + eta |a|^2), eq. 57 corrected for inputs of any length. Then the caps of `radius`.
        """
        if self.rate == "implicit":
            eta = eta / (1 + eta * a.square().sum(-1))
        if self.radius is not None:
            tiny, n = torch.finfo(a.dtype).tiny, a.norm(dim=-1)
            room = -self.radius * torch.expm1(log_keep) * (1 if log_mu is None else -torch.expm1(log_mu))
            eta = torch.minimum(eta, room / (n * e.norm(dim=-1)).clamp_min(tiny))
            if self.factor is not None:
                eta = torch.minimum(eta, 2 * log_keep.exp() / n.square().clamp_min(tiny))
        return eta


@dataclass(frozen=True)
class Gates:
    """Rates eta_max sigmoid(. + b_eta) and retentions sigmoid(. + b_alpha), by the values at which they start.

    eta, eta_max: the first and the largest rate. With the squared objective the state along a key shrinks by alpha - 2
        eta: eta_max = 0.5 keeps that in [alpha - 1, alpha], 1.0 allows -1 (needed to count parity).
    horizon: alpha starts at 1 - 1 / horizon, in tokens. decay=False fixes alpha at 1.
    """

    eta: float = 0.1
    eta_max: float = 0.5
    horizon: float = 512.0
    decay: bool = True

    def __post_init__(self) -> None:
        need(0 < self.eta < self.eta_max, "eta", self.eta, f"a number in (0, eta_max = {self.eta_max})")
        need(self.horizon > 1, "horizon", self.horizon, "a number of tokens > 1: alpha starts at 1 - 1/horizon")

    def biases(self) -> tuple[float, float]:
        """b_eta and b_alpha at the start."""
        return math.log(self.eta / (self.eta_max - self.eta)), math.log(self.horizon - 1)


@dataclass(frozen=True)
class Start:
    """Where the outer parameters of a layer start.

    mem_std, proj_std, gate_std: scale of W1 of M_mem, of M_k and M_v, of M_eta and M_alpha. M_k and M_v must differ, or
        k = v and nothing is ever learned.
    mem_gain: factor on W2 of M_mem. A write moves the answer by eta |silu(W2 k)|^2 of its error; with unit keys and W2
        of std dim^-1/2 that square is small (0.3 at 32 units), and 2 to 3 makes one write count.
    query: "random": W_q of std dim^-1/2, in a basis unrelated to the keys'. "identity": M_k is residual, so keys start
        as x plus something, and queries that start as x share their features: to find a key takes one number a feature
        in the convolutions.
    conv_noise: uniform noise on the taps of the convolutions, which are the identity without it.
    """

    mem_std: float = 0.02
    proj_std: float = 2.0
    gate_std: float = 0.0
    mem_gain: float = 1.0
    query: str = "random"
    conv_noise: float = 0.0

    def __post_init__(self) -> None:
        need(self.query in ("random", "identity"), "query", repr(self.query), "'random' or 'identity'")


def read(S: Weights, x: Tensor, residual: bool) -> Tensor:
    """M(x) = W x, or [x +] W1 silu(W2 x)  (eq. 89, 91). Scalar memories have no residual (it would broadcast)."""
    if "W" in S:
        return x @ S["W"].mT
    o = F.silu(x @ S["W2"].mT) @ S["W1"].mT
    return x + o if residual else o


def layer_io(S: Weights, k: Tensor, value: Tensor, objective: str, residual: bool) -> Signals:
    """Per weight matrix the rows (a, e) with d L(M; k, value) / d W = sum e a^T, the value held fixed.

    The derivative is written out, so `value` needs no detach: it stays in the outer graph (eq. 84, 87).
    """
    return signals(S, k, value, objective, residual)[0]


def signals(S: Weights, k: Tensor, value: Tensor, objective: str, residual: bool) -> tuple[Signals, Weights]:
    """`layer_io`, and what each matrix answered to its input on the way: W a, where it was asked."""
    if "W" in S:
        said = {"W": k @ S["W"].mT} if objective == "l2" else {}
        return {"W": (k, said["W"] - value if said else -value)}, said
    z = k @ S["W2"].mT
    s = torch.sigmoid(z)
    a, e, said = z * s, -value, {"W2": z}
    if objective == "l2":
        said["W1"] = a @ S["W1"].mT
        e = said["W1"] - value + (k if residual else 0)
    return {"W1": (a, e), "W2": (k, (e @ S["W1"]) * silu_slope(s, a))}, said


def token_write(
    W: Tensor,
    a: Tensor,
    e: Tensor,
    keep: Tensor,
    eta: Tensor,
    factor: str | None,
    momentum: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """One token of eq. 88: W <- W (alpha I - eta a a^T) - eta e a^T; without the part a a^T for factor=None.

    a (..., 1, in), e (..., 1, out): one row each; keep, eta (..., 1, 1). momentum = (S, mu): S <- mu S - eta e a^T is
    added in place of - eta e a^T (Titans). Returns W and S.
    """
    pull, S = None if factor is None else eta * (W @ a.mT), None
    if momentum is not None:
        S = torch.addcmul(momentum[1] * momentum[0], eta * e.mT, a, value=-1)
        new = keep * W + S
    else:
        new, pull = keep * W, eta * e.mT if pull is None else eta * e.mT + pull
    return (new if pull is None else torch.addcmul(new, pull, a, value=-1)), S
