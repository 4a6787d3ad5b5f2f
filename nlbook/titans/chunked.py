"""The same writes for a piece of a chunk at once: exact, and nothing but matrix products and one triangular solve.

Inside a chunk the inputs a_t and errors e_t are frozen, so each weight matrix is a linear recurrence,

    S_t = mu_t S_{t-1} - eta_t e_t a_t^T                                  (momentum; without it only the last term)
    W_t = alpha_t W_{t-1} + (1 - alpha_t) W_init - eta_t (W_{t-1} n_t) n_t^T + S_t,

and W_t is the decayed beginning plus rank-one terms. With b_t = alpha_1 ... alpha_t, m_t = mu_1 ... mu_t and
u_t = eta_t W_{t-1} n_t,

    W_t = b_t W + (1 - b_t) W_init + f_t S - sum_{j<=t} (b_t/b_j) u_j n_j^T - sum_{j<=t} G_tj eta_j e_j a_j^T
    f_t = sum_{i<=t} (b_t/b_i) m_i,    G_tj = sum_{j<=i<=t} (b_t/b_i) (m_i/m_j)       (G_tj = b_t/b_j without momentum)

so that the u_t follow from reading the state before token t with n_t: a unit lower triangular system (the UT transform
of the delta rule, here with frozen errors, momentum and a retention target). A query inside the chunk is one more such
read. Ratios
are differences of logarithms, never quotients, and the system is solved by forward substitution: powers of it overflow
in float32 when keys repeat.
"""
from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from nlbook.titans.rules import factor_rows


def _ratios(log_total: Tensor) -> Tensor:
    """exp(l_t - l_j) for j <= t, else 0: (..., C) -> (..., C, C)."""
    past = torch.ones(log_total.shape[-1], log_total.shape[-1], dtype=torch.bool, device=log_total.device).tril()
    return torch.exp((log_total[..., :, None] - log_total[..., None, :]).masked_fill(~past, float("-inf")))


def _shift(rows: Tensor, first: float = 0.0) -> Tensor:
    """Row t becomes row t - 1; row 0 becomes `first`."""
    return pad(rows[..., :-1, :], (0, 0, 1, 0), value=first)


class Decays:
    """What all weight matrices of one box group share: decays and their sums, "after" token t and "before" it.

    log_keep, log_mu (..., C), eta (..., C); log_mu = None: no momentum.
    """

    def __init__(self, log_keep: Tensor, eta: Tensor, log_mu: Tensor | None = None) -> None:
        total = log_keep.cumsum(-1)
        self.eta = eta[..., None]                                          # (..., C, 1)
        b, D = total.exp()[..., None], _ratios(total)                      # (..., C, 1), (..., C, C)
        self.b, self.D = {"after": b, "before": _shift(b, 1.0)}, {"after": D, "before": _shift(D)}
        self.f, self.G, self.m, self.N = None, self.D, None, None
        if log_mu is not None:
            mass = log_mu.cumsum(-1)
            self.m, self.N = mass.exp()[..., None], _ratios(mass)
            f, G = D @ self.m, D @ self.N
            self.f, self.G = {"after": f, "before": _shift(f)}, {"after": G, "before": _shift(G)}


class Piece:
    """One weight matrix W (..., out, in) over C tokens of one chunk. Eq. 88, 90 and 92-93 in closed form.

    a (..., C, in), e (..., C, out): frozen inputs and errors of its gradient. init: the retention target, or None for
    zero.
    momentum: S before the first token. `read` answers with the running state, `end` is the state after the last token.
    """

    def __init__(
        self,
        W: Tensor,
        a: Tensor,
        e: Tensor,
        decays: Decays,
        factor: str | None,
        *,
        init: Tensor | None = None,
        momentum: Tensor | None = None,
    ) -> None:
        self.W, self.a, self.decays, self.init, self.momentum = W, a, decays, init, momentum
        d = decays
        self.step = d.eta * e                                              # eta_t e_t
        self.n, self.u = factor_rows(a, factor), None
        if self.n is not None:
            system = torch.eye(a.shape[-2], dtype=a.dtype, device=a.device) + d.eta * (
                d.D["before"] * (self.n @ self.n.mT)
            )
            drive = d.eta * self.read(self.n, "before")
            self.u = torch.linalg.solve_triangular(system, drive, upper=False, unitriangular=True)

    def read(self, rows: Tensor, when: str) -> Tensor:
        """W_t r_t ("after") or W_{t-1} r_t ("before") for rows r (..., C, in) -> (..., C, out)."""
        d = self.decays
        b = d.b[when]
        y = b * (rows @ self.W.mT)
        if self.init is not None:
            y = y + (1 - b) * (rows @ self.init.mT)
        if self.momentum is not None and d.f is not None:
            y = y + d.f[when] * (rows @ self.momentum.mT)
        y = y - (d.G[when] * (rows @ self.a.mT)) @ self.step
        return y if self.u is None or self.n is None else y - (d.D[when] * (rows @ self.n.mT)) @ self.u

    def end(self) -> tuple[Tensor, Tensor | None]:
        """W and S after the last token."""
        d = self.decays
        b = d.b["after"][..., -1:, :]
        W = b * self.W
        if self.init is not None:
            W = W + (1 - b) * self.init
        S = None
        if self.momentum is not None:
            assert d.f is not None and d.m is not None and d.N is not None
            W = W + d.f["after"][..., -1:, :] * self.momentum
            S = d.m[..., -1:, :] * self.momentum - (d.N[..., -1, :, None] * self.step).mT @ self.a
        G = d.G["after"][..., -1, :, None]
        if self.u is None or self.n is None:
            return W - (G * self.step).mT @ self.a, S
        if self.n is self.a and self.momentum is None:                     # same rows, same decay: one product
            return W - (G * (self.u + self.step)).mT @ self.a, S
        return W - (G * self.step).mT @ self.a - (d.D["after"][..., -1, :, None] * self.u).mT @ self.n, S
