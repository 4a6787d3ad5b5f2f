"""One memory, one write: how it is read, what its gradient is, how one token moves it. Every form of titans uses these.

Fast weights are dictionaries: {"W"} of a linear memory, {"W1", "W2"} of a two-layer one, each (..., out, in). Leading
dimensions are (batch, head, box): boxes are memories of equal shape that learn side by side. Tokens are rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.errors import need
from nlbook.numerics import silu_slope, unit

Weights = dict[str, Tensor]
Signals = dict[str, tuple[Tensor, Tensor]]  # weight -> its inputs a (..., length, in), its errors e (..., length, out)

OBJECTIVES, FACTORS, READS, RETENTIONS = (
    ("l2", "dot"),
    ("raw", "first", "unit", None),
    ("start", "before", "after"),
    ("zero", "initial"),
)
RATES = ("explicit", "implicit")


@dataclass(frozen=True)
class Rule:
    """The open choices of eq. 88 and 90.

    objective: "l2": 1/2 |M(k) - v|^2 (eq. 93); "dot": -<M(k), v> (eq. 92, the sign that descends).
    factor: the n of the DGD factor alpha I - eta n n^T of each weight matrix: "raw": n is that layer's input (the
        derivation of eq. 57 per layer); "first": only the matrix that reads the key has one; "unit": the input at
        length 1 (collapses a two-layer memory; for study); None: plain gradient descent.
    read: which state a query meets. "start": the state at the start of the chunk (eq. 90). "before", "after": the
        running state without or with this token's own write; keys, values, gates and gradients still come from the
        start.
    retention: what alpha < 1 decays towards: "zero" (as printed) or the "initial" state.
    rate: "explicit": eta for every weight matrix; stable while eta |n|^2 < 1 + alpha, which the input of the second
        layer can break. "implicit": eta / (1 + eta |a|^2) with each matrix's own input a, the exact rate of eq. 57 for
        inputs of any length (the printed one is for |a| = 1); no input is too long for it.
    """

    objective: str = "l2"
    factor: str | None = "raw"
    read: str = "start"
    retention: str = "zero"
    rate: str = "explicit"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("objective", OBJECTIVES),
            ("factor", FACTORS),
            ("read", READS),
            ("retention", RETENTIONS),
            ("rate", RATES),
        ):
            value = getattr(self, name)
            need(value in allowed, name, repr(value), f"one of {', '.join(map(repr, allowed))}")

    def factor_of(self, name: str) -> str | None:
        """The DGD factor of one weight matrix."""
        if self.factor == "first":
            return None if name == "W1" else "raw"
        return self.factor


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
    if "W" in S:
        return {"W": (k, k @ S["W"].mT - value if objective == "l2" else -value)}
    z = k @ S["W2"].mT
    s = torch.sigmoid(z)
    a = z * s
    e = -value
    if objective == "l2":
        e = a @ S["W1"].mT - value + (k if residual else 0)
    return {"W1": (a, e), "W2": (k, (e @ S["W1"]) * silu_slope(s, a))}


def implicit_rate(eta: Tensor, a: Tensor) -> Tensor:
    """eta / (1 + eta |a|^2): eta (..., length), a (..., length, in). Eq. 57, corrected for inputs of any length."""
    return eta / (1 + eta * a.square().sum(-1))


def factor_rows(a: Tensor, factor: str | None) -> Tensor | None:
    """The n of the DGD factor for layer inputs a."""
    return None if factor is None else unit(a) if factor == "unit" else a


def token_write(
    W: Tensor,
    a: Tensor,
    e: Tensor,
    keep: Tensor,
    eta: Tensor,
    factor: str | None,
    *,
    init: Tensor | None = None,
    momentum: Tensor | None = None,
    mu: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """One token of eq. 88: W <- W (alpha I - eta n n^T) - eta e a^T, with the retention target and momentum as options.

    a (..., 1, in), e (..., 1, out): one row each; keep, eta, mu (..., 1, 1). With momentum S <- mu S - eta e a^T is
    added instead of - eta e a^T (Titans). Returns W and S.
    """
    new = keep * W if init is None else keep * W + (1 - keep) * init
    push = -eta * e.mT @ a
    if momentum is not None:
        assert mu is not None
        push = momentum = mu * momentum + push
    n = factor_rows(a, factor)
    return (new + push if n is None else new + push - eta * (W @ n.mT) @ n), momentum
