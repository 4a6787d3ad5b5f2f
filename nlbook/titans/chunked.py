"""The same writes for a run of tokens at once: exact, and nothing but matrix products and one triangular solve.

Inside a chunk the inputs a_t and errors e_t are frozen, so each weight matrix is a linear recurrence,

    S_t = mu_t S_{t-1} - eta_t e_t a_t^T                         (momentum; without it only the last term)
    W_t = alpha_t W_{t-1} - eta_t (W_{t-1} a_t) a_t^T + S_t,

and W_t is the decayed beginning plus rank-one terms. With b_t = alpha_1 ... alpha_t and m_t = mu_1 ... mu_t,

    W_t = b_t W + f_t S - sum_{j<=t} (b_t/b_j) u_j a_j^T - sum_{j<=t} G_tj eta_j e_j a_j^T
    f_t = sum_{i<=t} (b_t/b_i) m_i,    G_tj = sum_{j<=i<=t} (b_t/b_i) (m_i/m_j)

where u_t = eta_t W_{t-1} a_t: the u_t follow from reading the state before token t with a_t, a unit lower triangular
system (the UT transform of the delta rule, here with frozen errors and momentum). Without momentum G_tj = b_t/b_j, and
the two sums are one, whose unknown is the whole write u_t + eta_t e_t: a product fewer for each read. A query inside
the chunk is one more such read. Ratios are differences of logarithms, never quotients, and the system is solved by
forward substitution: powers of it overflow in float32 when keys repeat.

Settings that are an operator of nlkernels go there (see `FastLayer.forward`). This form is for what no operator covers:
a boundary of one group of memories inside a chunk of another, two layers with momentum, and implicit rates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.functional import pad

from nlbook.titans.rules import Rule, Signals, Weights, read, token_write

Inside = Callable[[str, str, Tensor], Tensor]


def _ratios(log_total: Tensor) -> Tensor:
    """exp(l_t - l_j) for j <= t, else 0: (..., C) -> (..., C, C)."""
    past = torch.ones(log_total.shape[-1], log_total.shape[-1], dtype=torch.bool, device=log_total.device).tril()
    return torch.exp((log_total[..., :, None] - log_total[..., None, :]).masked_fill(~past, float("-inf")))


class Pace:
    """The gates of a run of C tokens, which all matrices of a layer share: log alpha, eta, log mu (None: no momentum),
    each (..., C); and what follows from them, made once, when it is asked for.

    pace(name, when) is, "after" token t or "before" it, b (..., C, 1), D_tj = b_t/b_j and, with momentum, f, G, m and
    N_tj = m_t/m_j.
    """

    def __init__(
        self, log_keep: Tensor, eta: Tensor, log_mu: Tensor | None = None, sums: dict[str, Tensor] | None = None
    ) -> None:
        self.log_keep, self.eta, self.log_mu, self.rate = log_keep, eta, log_mu, eta[..., None]
        self._sums = sums
        self._before: dict[str, Tensor] = {}

    @property
    def sums(self) -> dict[str, Tensor]:
        """b, D and, with momentum, m, N, f and G, all after token t."""
        if self._sums is None:
            total = self.log_keep.cumsum(-1)
            D = _ratios(total)
            self._sums = {"b": total.exp()[..., None], "D": D}
            if self.log_mu is not None:
                mass = self.log_mu.cumsum(-1)
                m, N = mass.exp()[..., None], _ratios(mass)
                self._sums |= {"m": m, "N": N, "f": D @ m, "G": D @ N}
        return self._sums

    def at(self, eta: Tensor) -> Pace:
        """The same retentions with other rates."""
        return Pace(self.log_keep, eta, self.log_mu, self.sums)

    def runs(self) -> list[Pace]:
        """One for each run, of gates (..., run, C) that were made for many runs at once."""
        mu = [None] * self.eta.shape[-2] if self.log_mu is None else self.log_mu.unbind(-2)
        each = {n: x.unbind(-3) for n, x in self.sums.items()}
        gates = zip(self.log_keep.unbind(-2), self.eta.unbind(-2), mu)
        return [Pace(*g, {n: x[i] for n, x in each.items()}) for i, g in enumerate(gates)]

    def __call__(self, name: str, when: str) -> Tensor:
        if when == "after":
            return self.sums[name]
        if name not in self._before:  # row t is row t - 1; nothing was multiplied before the first token
            rows = self.sums[name][..., :-1, :]
            self._before[name] = pad(rows, (0, 0, 1, 0), value=1.0 if name == "b" else 0.0)
        return self._before[name]

    def last(self, name: str) -> Tensor:
        """After the last token: (..., 1, 1) for b, f and m, (..., C, 1) for D, G and N."""
        rows = self.sums[name]
        return rows[..., -1:, :] if name in "bfm" else rows[..., -1, :, None]

    def system(self, a: Tensor) -> Tensor:
        """I + eta_t D_tj (a_t . a_j) for j < t, the system that the writes solve: a (..., C, in) -> (..., C, C)."""
        if "paced" not in self._before:
            self._before["paced"] = self.rate * self("D", "before")
        eye = torch.eye(a.shape[-2], dtype=a.dtype, device=a.device)
        return torch.addcmul(eye, self._before["paced"], a @ a.mT)


class Piece:
    """One weight matrix W (..., out, in) over C tokens of one chunk. Eq. 88, 90 and 92-93 in closed form.

    a (..., C, in), e (..., C, out): frozen inputs and errors of its gradient. S: the momentum before the first token.
    `read` answers with the running state, `end` is the state after the last token.
    """

    def __init__(
        self,
        W: Tensor,
        a: Tensor,
        e: Tensor,
        pace: Pace,
        factor: str | None,
        S: Tensor | None = None,
        said: Tensor | None = None,
    ):
        self.W, self.S, self.pace, self.a, self.said = W, S, pace, a, said
        self.terms: list[tuple[str, Tensor]] = []  # (weight, c): minus sum_j weight_tj c_j a_j^T
        if S is not None:
            self.terms.append(("G", pace.rate * e))
            if factor:
                self.terms.append(("D", self._solve(None)))
        else:
            self.terms.append(("D", self._solve(e) if factor else pace.rate * e))

    def _solve(self, e: Tensor | None) -> Tensor:
        """u_t = eta_t (W_{t-1} a_t [+ e_t]), where the state before t contains the u_j of earlier tokens."""
        known, system = self.read(self.a, "before", self.said), self.pace.system(self.a)
        known = self.pace.rate * (known if e is None else known + e)
        wide = torch.promote_types(known.dtype, torch.float32)  # torch solves no system in half precision
        solved = torch.linalg.solve_triangular(system.to(wide), known.to(wide), upper=False, unitriangular=True)
        return solved.to(known.dtype)

    def read(self, rows: Tensor, when: str, said: Tensor | None = None) -> Tensor:
        """W_t r_t ("after") or W_{t-1} r_t ("before") for rows r (..., C, in) -> (..., C, out). said: W r, if known."""
        y = self.pace("b", when) * (rows @ self.W.mT if said is None else said)
        if self.S is not None:
            y = y + self.pace("f", when) * (rows @ self.S.mT)
        for weight, c in self.terms:
            y = y - (self.pace(weight, when) * (rows @ self.a.mT)) @ c
        return y

    def end(self) -> tuple[Tensor, Tensor | None]:
        """W and S after the last token."""
        last = self.pace.last
        W, S = last("b") * self.W, None
        if self.S is not None:
            W = W + last("f") * self.S
            S = last("m") * self.S - (last("N") * self.terms[0][1]).mT @ self.a
        for weight, c in self.terms:
            W = W - (last(weight) * c).mT @ self.a
        return W, S


def write(
    now: Weights,
    io: Signals,
    pace: Pace,
    rule: Rule,
    momentum: Weights,
    moves: Tensor | None = None,
    said: Weights = {},  # noqa: B006 (read only)
) -> tuple[Weights, Weights, Inside]:
    """Write a run of tokens whose inputs and errors are frozen (eq. 88, 90).

    momentum: S of each weight matrix; empty without momentum. moves: (box, 1, 1) bool, boxes that learn at all; None:
    all. said: what each matrix of `now` answers to its input, where it is known. Returns the new weights, the new
    momentum, and `inside(name, when, rows)`: one weight matrix of the running state applied to one row a token.
    """
    new, pushed, pieces = {}, {}, {}
    single = pace.eta.shape[-1] == 1
    for name, (a, e) in io.items():
        eta = pace.eta if rule.given else rule.pace(pace.eta, pace.log_keep, pace.log_mu, a, e)
        if single:  # one token needs no system
            push = None if pace.log_mu is None else (momentum[name], pace.log_mu.exp()[..., None])
            W, S = token_write(now[name], a, e, pace.log_keep.exp()[..., None], eta[..., None], rule.factor, push)
        else:
            own = pace if eta is pace.eta else pace.at(eta)
            pieces[name] = Piece(now[name], a, e, own, rule.factor, momentum.get(name), said.get(name))
            W, S = pieces[name].end()
        new[name] = W if moves is None else torch.where(moves, W, now[name])
        if S is not None:
            pushed[name] = S

    def inside(name: str, when: str, rows: Tensor) -> Tensor:
        if single:
            return rows @ (now if when == "before" else new)[name].mT
        return pieces[name].read(rows, when)

    return new, pushed, inside


def answer(start: Weights, q: Tensor, residual: bool, when: str, inside: Inside) -> Tensor:
    """y_t = M(q_t) as of `when`: the "start" of the chunk, or the running state "before" or "after" token t."""
    if when == "start":
        return read(start, q, residual)
    if "W" in start:
        return inside("W", when, q)
    o = inside("W1", when, F.silu(inside("W2", when, q)))
    return q + o if residual else o
