"""The same writes for a piece of a chunk at once: exact, and nothing but matrix products and one triangular solve.

Inside a chunk the inputs a_t and errors e_t are frozen, so each weight matrix is a linear recurrence,

    S_t = mu_t S_{t-1} - eta_t e_t a_t^T                                  (momentum; without it only the last term)
    W_t = alpha_t W_{t-1} + (1 - alpha_t) W_init - eta_t (W_{t-1} n_t) n_t^T + S_t,

and W_t is the decayed beginning plus rank-one terms. With b_t = alpha_1 ... alpha_t and m_t = mu_1 ... mu_t,

    W_t = b_t W + (1 - b_t) W_init + f_t S - sum_{j<=t} (b_t/b_j) u_j n_j^T - sum_{j<=t} G_tj eta_j e_j a_j^T
    f_t = sum_{i<=t} (b_t/b_i) m_i,    G_tj = sum_{j<=i<=t} (b_t/b_i) (m_i/m_j)

where u_t = eta_t W_{t-1} n_t: the u_t follow from reading the state before token t with n_t, a unit lower triangular
system (the UT transform of the delta rule, here with frozen errors, momentum and a retention target). Without momentum
G_tj = b_t/b_j, and since a_t points along n_t the two sums are one, whose unknown is the whole write u_t + eta_t e_t: a
product fewer for each read. A query inside the chunk is one more such read. Ratios are differences of logarithms, never
quotients, and the system is solved by forward substitution: powers of it overflow in float32 when keys repeat.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from nlbook.numerics import unit


def _ratios(log_total: Tensor) -> Tensor:
    """exp(l_t - l_j) for j <= t, else 0: (..., C) -> (..., C, C)."""
    past = torch.ones(log_total.shape[-1], log_total.shape[-1], dtype=torch.bool, device=log_total.device).tril()
    return torch.exp((log_total[..., :, None] - log_total[..., None, :]).masked_fill(~past, float("-inf")))


def _shift(rows: Tensor, first: float = 0.0) -> Tensor:
    """Row t becomes row t - 1; row 0 becomes `first`."""
    return pad(rows[..., :-1, :], (0, 0, 1, 0), value=first)


class Decays:
    """What all weight matrices of one box group share: decays and their sums, "after" token t and "before" it.

    log_keep, log_mu (..., C), eta (..., C); log_mu = None: no momentum. decays(name, when) gives b (..., C, 1),
    D_tj = b_t/b_j and, with momentum, f, G, m and N_tj = m_t/m_j; without it G is D.
    """

    def __init__(self, log_keep: Tensor, eta: Tensor, log_mu: Tensor | None = None) -> None:
        total = log_keep.cumsum(-1)
        self.eta = eta[..., None]  # (..., C, 1)
        D = _ratios(total)  # (..., C, C)
        self._after = {"b": total.exp()[..., None], "D": D, "G": D}
        self._before: dict[str, Tensor] = {}
        self._paced: Tensor | None = None
        if log_mu is not None:
            mass = log_mu.cumsum(-1)
            m, N = mass.exp()[..., None], _ratios(mass)
            self._after |= {"m": m, "N": N, "f": D @ m, "G": D @ N}

    @classmethod
    def together(cls, log_keep: Tensor, eta: Tensor, log_mu: Tensor | None = None) -> list[Decays]:
        """One for each run of equal length, made in one go: (..., run, C) -> a Decays of (..., C) a run."""
        whole = cls(log_keep, eta, log_mu)
        names = [n for n in whole._after if n != "G" or log_mu is not None]
        each = {n: whole._after[n].unbind(-3) for n in names}
        out = []
        for i, e in enumerate(whole.eta.unbind(-3)):
            d = cls.__new__(cls)
            d.eta, d._after, d._before, d._paced = e, {n: each[n][i] for n in names}, {}, None
            d._after.setdefault("G", d._after["D"])
            out.append(d)
        return out

    def __call__(self, name: str, when: str) -> Tensor:
        if when == "after":
            return self._after[name]
        if name not in self._before:  # made when it is asked for
            self._before[name] = _shift(self._after[name], 1.0 if name == "b" else 0.0)
        return self._before[name]

    def last(self, name: str) -> Tensor:
        """After the last token: (..., 1, 1) for b, f and m, (..., C, 1) for D, G and N."""
        rows = self._after[name]
        return rows[..., -1:, :] if name in "bfm" else rows[..., -1, :, None]

    @property
    def paced(self) -> Tensor:
        """eta_t D_tj before token t: the system's lower triangle but for the products of its rows."""
        if self._paced is None:
            self._paced = self.eta * self("D", "before")
        return self._paced


class Piece:
    """One weight matrix W (..., out, in) over C tokens of one chunk. Eq. 88, 90 and 92-93 in closed form.

    a (..., C, in), e (..., C, out): frozen inputs and errors of its gradient. init: the retention target, or None for
    zero. momentum: S before the first token. `read` answers with the running state, `end` is the state after the last
    token.
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
        self.W, self.decays, self.init, self.momentum = W, decays, init, momentum
        self.rows: list[tuple[Tensor, Tensor, str]] = []  # (r, c, w): minus sum_j w_tj c_j r_j^T
        d = decays
        if momentum is None:
            if factor == "unit":  # e a^T = (|a| e) n^T
                e = e * (a.square().sum(-1, keepdim=True) + 1e-12).sqrt()
                a = unit(a)
            write = self._solve(a, e) if factor else d.eta * e
            self.rows = [(a, write, "D")]
        else:
            self.step = d.eta * e
            self.rows = [(a, self.step, "G")]
            if factor:
                n = unit(a) if factor == "unit" else a
                self.rows.append((n, self._solve(n), "D"))

    def _solve(self, n: Tensor, e: Tensor | None = None) -> Tensor:
        """u_t = eta_t (W_{t-1} n_t [+ e_t]), where the state before t contains the u_j of earlier tokens."""
        d = self.decays
        known = self.read(n, "before")
        size = torch.eye(n.shape[-2], dtype=n.dtype, device=n.device)
        system = torch.addcmul(size, d.paced, n @ n.mT)
        return torch.linalg.solve_triangular(
            system, d.eta * (known if e is None else known + e), upper=False, unitriangular=True
        )

    def read(self, rows: Tensor, when: str) -> Tensor:
        """W_t r_t ("after") or W_{t-1} r_t ("before") for rows r (..., C, in) -> (..., C, out)."""
        d = self.decays
        b = d("b", when)
        y = b * (rows @ self.W.mT)
        if self.init is not None:
            y = y + (1 - b) * (rows @ self.init.mT)
        if self.momentum is not None:
            y = y + d("f", when) * (rows @ self.momentum.mT)
        for r, c, weight in self.rows:
            y = y - (d(weight, when) * (rows @ r.mT)) @ c
        return y

    def end(self) -> tuple[Tensor, Tensor | None]:
        """W and S after the last token."""
        d = self.decays
        b = d.last("b")
        W = b * self.W
        if self.init is not None:
            W = W + (1 - b) * self.init
        S = None
        if self.momentum is not None:
            W = W + d.last("f") * self.momentum
            S = d.last("m") * self.momentum - (d.last("N") * self.step).mT @ self.rows[0][0]
        for r, c, weight in self.rows:
            W = W - (d.last(weight) * c).mT @ r
        return W, S
