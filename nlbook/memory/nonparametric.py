"""Memories without a learned matrix: softmax attention keeps every pair and fits a constant around each query.

Given weights s(k_i, q), the best constant answer, argmin_m sum_i s(k_i, q) |v_i - m|^2, is their weighted mean of the
values: the Nadaraya-Watson estimator, and with s = exp(<k, q>/tau) softmax attention (eq. 62). Nothing is trained and
nothing is forgotten; the state grows with the sequence (eq. 27: the raw context is the memory).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf
from typing import ClassVar

import torch
from torch import Tensor

from nlbook.errors import need
from nlbook.memory.core import Kind, Memory, State
from nlbook.memory.objectives import Objective
from nlbook.memory.rules import GD, Rate, Retention


@dataclass(frozen=True)
class LocalFit(Objective):
    """sum_i s(k_i, q) |v_i - m|^2 over a constant m, one problem for every query (eq. 62)."""

    name: ClassVar[str] = "local constant"
    formula: ClassVar[str] = "Σ s(kᵢ, q)|vᵢ − m|²"
    latex: ClassVar[str] = r"\sum_i s(k_i,q)\|v_i-m\|_2^2"
    field: ClassVar[str] = "Nadaraya-Watson; softmax attention"
    through_answer: ClassVar[bool] = False


@dataclass(frozen=True)
class ClosedForm(GD):
    """No steps at all: the pair goes into a cache, the minimiser is written down at the moment of reading (eq. 27)."""

    name: ClassVar[str] = "closed form"
    formula: ClassVar[str] = "m* = Σ sᵢvᵢ / Σ sᵢ"


def log_weights(
    q: Tensor, k: Tensor, temperature: float | None = None, kernel: str = "dot", seen: Tensor | None = None
) -> Tensor:
    """log s(k_i, q_j): q (..., n, d_k), k (..., m, d_k) -> (..., n, m). temperature None = sqrt(d_k).

    seen (..., n, m), bool: the pairs that count (matters at temperature 0, where only the best one does; None = all).
    kernel="dot": <k, q>/tau (softmax attention); "gaussian": -|k - q|^2 / (2 tau), the same thing for keys of one
    length.
    """
    need(kernel in ("dot", "gaussian"), "kernel", repr(kernel), "'dot' or 'gaussian'")
    tau = k.shape[-1] ** 0.5 if temperature is None else temperature
    need(tau >= 0, "temperature", temperature, "None or a number >= 0 (0: the nearest key, inf: the mean)")
    score = q @ k.mT if kernel == "dot" else -(q.unsqueeze(-2) - k.unsqueeze(-3)).square().sum(-1) / 2
    if tau == 0 and score.shape[-1]:  # the limit: every weight on the best key, shared where several are best
        best = (score if seen is None else score.masked_fill(~seen, -inf)).max(-1, keepdim=True).values
        return torch.zeros_like(score).masked_fill(score < best, -inf)
    return score * 0 if tau in (0, inf) else score / tau


def log(rate: Tensor) -> Tensor:
    """log(rate), -inf with a finite slope for a weight of 0."""
    return torch.where(rate > 0, torch.where(rate > 0, rate, 1).log(), -inf)


def normalised(score: Tensor) -> Tensor:
    """Softmax over the last dimension; zeros where no pair has a weight."""
    none = (score == -inf).all(-1, keepdim=True)
    return torch.softmax(score.masked_fill(none, 0), -1).masked_fill(none, 0)


class SoftmaxMemory(Memory):
    """Softmax attention as a memory (eq. 62), the last `window` tokens of it (eq. 63), or weighted by age.

    temperature: None = sqrt(d_k). kernel: dot or gaussian. keep: every pair loses this factor of weight at each later
    write (recency; 1 = none). lr: the weight of the pair that is written. A cache that is empty, or whose pairs all
    have weight 0, answers zeros.
    The window counts tokens: a read after t writes sees the last c of them. Printed eq. 63 weighs them with
    s(k_i, q_i), which no query could have meant; s(k_i, q_t) it is.
    """

    def __init__(
        self,
        *,
        temperature: float | None = None,
        window: int | None = None,
        kernel: str = "dot",
        keep: float = 1.0,
        lr: float = 1.0,
        name: str = "softmax",
    ) -> None:
        log_weights(torch.zeros(1, 1), torch.zeros(1, 1), temperature, kernel)  # its argument checks
        good = window is None or (isinstance(window, int) and window >= 1)
        need(good, "window", window, "None or an int >= 1 (tokens)")
        self.objective, self.rule, self.retention = LocalFit(), ClosedForm(), Retention(keep)
        self.temperature, self.window, self.kernel, self.name = temperature, window, kernel, name
        self.lr = self._own_rate(lr)

    def parts(self) -> dict[str, str]:
        kept = "everything" if self.window is None else f"the last {self.window} tokens"
        return super().parts() | {"retention": kept + ("" if self.retention.keep == 1 else ", weight αᵃᵍᵉ")}

    def _init(self, d_k: int, d_v: int, batch: tuple[int, ...], M0: Tensor | None, kind: Kind) -> State:
        """An empty cache. State.M holds the values (*batch, t, d_v), extra the keys and the log weights. M0 must be
        None.
        """
        need(M0 is None, "M0", "a tensor", "None: a cache has no initial state")
        empty = torch.zeros(*batch, 0, d_v, **kind)
        extra = {"keys": empty.new_zeros(*batch, 0, d_k), "log_weight": empty.new_zeros(*batch, 0)}
        return State(empty, empty, batch, d_k, d_v, extra)

    def _write(self, state: State, k: Tensor, v: Tensor, lr: Rate, keep: Rate) -> State:
        old = state.extra["log_weight"]
        age = torch.as_tensor(keep, dtype=v.dtype, device=v.device).log()
        new = log(torch.as_tensor(lr, dtype=v.dtype, device=v.device)).expand(state.batch).unsqueeze(-1)
        parts = [
            (state.extra["keys"], k.unsqueeze(-2), -2),
            (state.M, v.unsqueeze(-2), -2),
            (old + (age.unsqueeze(-1) if age.ndim else age), new, -1),
        ]
        length = old.shape[-1] + 1
        drop = 0 if self.window is None else max(0, length - self.window)
        keys, values, log_weight = (torch.cat([a, b], dim).narrow(dim, drop, length - drop) for a, b, dim in parts)
        return replace(state, M=values, extra={"keys": keys, "log_weight": log_weight})

    def weights(self, state: State, q: Tensor) -> Tensor:
        """How much each cached pair counts for each query: q (*batch, n, d_k) -> (*batch, n, t), rows sum to 1."""
        self._need(state, "q", q, (*state.batch, q.shape[-2] if q.ndim > 1 else "n", state.d_k))
        weight = state.extra["log_weight"].unsqueeze(-2)
        return normalised(log_weights(q, state.extra["keys"], self.temperature, self.kernel, weight > -inf) + weight)

    def _chunked(
        self, state: State, k: Tensor, v: Tensor, q: Tensor, read: str, lr: Rate, keep: Rate
    ) -> tuple[Tensor, State]:
        """All queries against all keys at once, with a mask: the form that attention is usually written in."""
        old, length = state.M.shape[-2], k.shape[-2]
        lrs, keeps = (log(torch.as_tensor(r, dtype=v.dtype, device=v.device)).expand(k.shape[:-1]) for r in (lr, keep))
        keys, values = torch.cat([state.extra["keys"], k], -2), torch.cat([state.M, v], -2)
        written = torch.nn.functional.pad(keeps.cumsum(-1), (old, 0))  # decay up to each token
        weight = torch.cat([state.extra["log_weight"], lrs], -1)  # of each pair, when written
        token = torch.arange(old + length, device=v.device)
        last = token[old:, None] - (1 if read == "before" else 0)  # newest pair that t may see
        seen = (token <= last) & (token > last - (self.window or old + length))
        # the decay up to the query is the same for a whole row: it keeps the numbers small and cancels in the softmax
        aged = weight.unsqueeze(-2) + written[..., old:].unsqueeze(-1) - written.unsqueeze(-2)
        score = log_weights(q, keys, self.temperature, self.kernel, seen & (weight > -inf).unsqueeze(-2)) + aged
        y = normalised(score.masked_fill(~seen, -inf)) @ values
        size = min(self.window or old + length, old + length)
        end = (weight + written[..., -1:] - written)[..., old + length - size :] if length else weight
        extra = {"keys": keys[..., old + length - size :, :], "log_weight": end}
        return y, replace(state, M=values[..., old + length - size :, :], extra=extra)

    def _read(self, state: State, q: Tensor) -> Tensor:
        if state.M.shape[-2] == 0:
            return q.new_zeros(*q.shape[:-1], state.d_v)
        return self.weights(state, q) @ state.M
