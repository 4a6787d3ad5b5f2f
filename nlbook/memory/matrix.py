"""The linear memory: one matrix, any objective, learning rule and retention; and its scan in chunks.

Every rule whose step is linear in M is a setting of one recurrence, M_t = a M_{t-1} - e (M_{t-1} k) k^T + w v k^T, and
so of `nlkernels.linear_memory`. Oja looks at M from the other side, Omega at a window, L_p bends the error: they have
no such form and stay loops.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from nlbook.errors import NLBookError, need, need_float
from nlbook.memory.core import Kind, Memory, State
from nlbook.memory.objectives import Objective, get_objective
from nlbook.memory.rules import GD, Rate, Retention, dgd_rate

Feature = Callable[[Tensor], Tensor]


def elu1(x: Tensor) -> Tensor:
    """elu(x) + 1: the positive feature map of linear attention (phi of eq. 5)."""
    return torch.nn.functional.elu(x) + 1


FEATURES: dict[str, Feature | None] = {
    "identity": None,
    "elu1": elu1,
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
}


class MatrixMemory(Memory):
    """The linear memory y = M phi(q): any objective, any learning rule, any retention (eq. 5, 6, 64-68).

    M_t = keep(M_{t-1}) + step of the rule. lr: default write rate. phi: feature map of keys and queries, by name
    (identity, elu1, relu, silu) or a function (..., d) -> (..., D).

    >>> MatrixMemory("l2", GD(), Retention(0.9), lr=0.5, name="mine")
    mine(lr=0.5)
      objective  ½|Mk − v|²
      rule       M − η∇L(M; k, v)
      retention  αM
    """

    def __init__(
        self,
        objective: str | Objective = "l2",
        rule: GD | None = None,
        retention: Retention | None = None,
        *,
        lr: float = 1.0,
        phi: str | Feature = "identity",
        name: str = "memory",
    ) -> None:
        self.objective, self.rule, self.retention = get_objective(objective), rule or GD(), retention or Retention()
        need(
            not self.rule.needs_answer or self.objective.through_answer,
            "objective",
            self.objective.name,
            f"dot, l2 or lp: the rule {self.rule.name} steps on the answer alone",
        )
        need(self.rule.name != "rls" or self.objective.name == "l2", "objective", self.objective.name, "l2 (for RLS)")
        need(
            not self.rule.discounts_evidence or self.retention.towards == "zero",
            "towards",
            "'initial'",
            "'zero': RLS discounts old pairs, its state never decays",
        )
        self.lr = self._own_rate(lr)
        need(callable(phi) or phi in FEATURES, "phi", repr(phi), f"one of {', '.join(FEATURES)} or a function")
        self.phi: Feature | None = phi if callable(phi) else FEATURES[phi]
        self.name = name

    def _init(self, d_k: int, d_v: int, batch: tuple[int, ...], M0: Tensor | None, kind: Kind) -> State:
        """Zeros, or M0: (d_v, d_k') for every sequence alike (a learned start), or (*batch, d_v, d_k') with one for
        each. d_k' = d_k unless phi changes it.
        """
        for arg, size in (("d_k", d_k), ("d_v", d_v)):
            need(isinstance(size, int) and size >= 1, arg, size, "an int >= 1")
        width = d_k if self.phi is None else self.phi(torch.zeros(d_k, dtype=kind["dtype"])).shape[-1]
        if M0 is None:
            M0 = torch.zeros(*batch, d_v, width, **kind)
        else:
            need_float("M0", M0)
            need(
                tuple(M0.shape) in ((d_v, width), (*batch, d_v, width)),
                "M0",
                f"shape {tuple(M0.shape)}",
                f"({d_v}, {width}) or {(*batch, d_v, width)}",
            )
            M0 = M0.expand(*batch, d_v, width)
        return State(M0, M0, batch, d_k, d_v, self.rule.start(M0))

    def parts(self) -> dict[str, str]:
        discounts = self.rule.discounts_evidence and self.retention.keep != 1
        return super().parts() | ({"retention": "old pairs weigh αᵃᵍᵉ"} if discounts else {})

    def _write(self, state: State, k: Tensor, v: Tensor, lr: Rate, keep: Rate) -> State:
        k = k if self.phi is None else self.phi(k)
        kept = state.M if self.rule.discounts_evidence else self.retention.apply(state.M, state.start, keep)
        at = kept if self.retention.gradient_at == "kept" else state.M
        change, extra = self.rule.step(self.objective, at, k, v, lr, keep, state.extra)
        return replace(state, M=kept + change, extra=extra)

    def _chunked(
        self, state: State, k: Tensor, v: Tensor, q: Tensor, read: str, lr: Rate, keep: Rate
    ) -> tuple[Tensor, State]:
        """Through nlkernels: every rule whose step is linear in M is a setting of one recurrence."""
        from nlkernels.linear_memory import linear_memory

        k, q = (k, q) if self.phi is None else (self.phi(k), self.phi(q))
        alpha, erase, write = coefficients(self, k, lr, keep)

        def rows(x: Tensor, dims: int) -> Tensor:  # (*batch, ...) -> (sequences, 1 head, ...)
            return x.reshape(torch.Size(state.batch).numel(), 1, *x.shape[x.ndim - dims :])

        tokens, start = (rows(q, 2), rows(k, 2), rows(v, 2)), rows(state.M, 2)
        y, M = linear_memory(*tokens, rows(alpha, 1), rows(erase, 1), rows(write, 1), start, read=read)
        return y.reshape(v.shape), replace(state, M=M.to(v.dtype).reshape(state.M.shape))

    def _read(self, state: State, q: Tensor) -> Tensor:
        return (q if self.phi is None else self.phi(q)) @ state.M.mT

    def surprise(self, state: State, k: Tensor, v: Tensor) -> Tensor:
        """Gradient of the objective at the answer (*batch, d_v): what the memory did not expect (eq. 8)."""
        self._need(state, "k", k, (*state.batch, state.d_k))
        self._need(state, "v", v, (*state.batch, state.d_v))
        return self.objective.surprise(state.M, k if self.phi is None else self.phi(k), v)

    def loss(self, state: State, k: Tensor, v: Tensor) -> Tensor:
        """The objective at this pair, one number a sequence: (*batch)."""
        self._need(state, "k", k, (*state.batch, state.d_k))
        self._need(state, "v", v, (*state.batch, state.d_v))
        return self.objective.value(state.M, k if self.phi is None else self.phi(k), v)


# rule, objective -> how often the step erases what the key recalls (0: Hebb; 2: DGD on l2, once too often)
ERASES = {
    ("gd", "dot"): 0,
    ("gd", "l2"): 1,
    ("implicit", "dot"): 0,
    ("implicit", "l2"): 1,
    ("dgd", "dot"): 1,
    ("dgd", "l2"): 2,
}


def coefficients(memory: MatrixMemory, k: Tensor, lr: Rate, keep: Rate) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, erase, write (*batch, length) of this memory in the one recurrence; k (*batch, length, d_k) after phi."""
    kind = (memory.rule.name, memory.objective.name)
    if kind not in ERASES or memory.retention.towards != "zero":
        raise NLBookError(
            f"impl: got 'chunked' for {memory.name}, expected 'loop': {kind[0]} on {kind[1]} with a pull "
            f"towards {memory.retention.towards} is not linear in the state"
        )
    write, alpha = (torch.as_tensor(r, dtype=k.dtype, device=k.device).expand(k.shape[:-1]) for r in (lr, keep))
    if memory.rule.name == "dgd":
        write = dgd_rate(k, write, getattr(memory.rule, "form", "exact"))
    elif kind == ("implicit", "l2"):
        write = dgd_rate(k, write)
    at = alpha if memory.retention.gradient_at == "kept" else 1
    return alpha, ERASES[kind] * write * at, write
