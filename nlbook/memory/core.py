"""The protocol that every memory keeps.

    state = memory.init(d_k, d_v, batch=(2,))       # the state before anything was seen
    state = memory.write(state, k, v)               # one pair a sequence: k (2, d_k), v (2, d_v)
    y = memory.read(state, q)                       # q (2, d_k) -> (2, d_v), or many queries (2, n, d_k) -> (2, n, d_v)
    y, state = memory.scan(k, v, q)                 # a sequence: k, q (2, length, d_k), v (2, length, d_v)

States are values: a write returns a new state and leaves the old one alone. Every sequence of a batch has its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import torch
from torch import Tensor

from nlbook.errors import NLBookError, holds, need, need_float
from nlbook.memory.objectives import Objective
from nlbook.memory.rules import GD, Rate, Retention
from nlbook.tree import Tree


class Kind(TypedDict):
    """What a new tensor is made of."""

    dtype: torch.dtype
    device: torch.device | str


@dataclass(frozen=True)
class State(Tree):
    """A memory's fast state. M is the (main) tensor, `start` what retention may pull towards, `extra` the rest."""

    M: Tensor
    start: Tensor
    batch: tuple[int, ...]
    d_k: int
    d_v: int
    extra: dict[str, Tensor] = field(default_factory=dict)

    def floats(self) -> int:
        """Numbers kept for one sequence. Starts (`start`, extra "..._start") are the same for all and do not count."""
        own = [self.M, *(x for name, x in self.extra.items() if not name.endswith("_start"))]
        return sum(x.numel() for x in own) // max(1, torch.Size(self.batch).numel())


class Memory:
    """What all memories share: argument checks, the scan over a sequence, the three parts in `repr`."""

    name: str = "memory"
    objective: Objective
    rule: GD
    retention: Retention
    lr: float

    # ---- to be written by each memory ----
    def _init(self, d_k: int, d_v: int, batch: tuple[int, ...], M0: Tensor | None, kind: Kind) -> State:
        raise NotImplementedError

    def _write(self, state: State, k: Tensor, v: Tensor, lr: Rate, keep: Rate) -> State:
        raise NotImplementedError

    def _read(self, state: State, q: Tensor) -> Tensor:
        """q (*batch, n, d_k) -> (*batch, n, d_v)."""
        raise NotImplementedError

    def _chunked(
        self, state: State, k: Tensor, v: Tensor, q: Tensor, read: str, lr: Rate, keep: Rate
    ) -> tuple[Tensor, State]:
        raise NLBookError(f"impl: got 'chunked', expected 'loop': {self.name} has no parallel form here")

    def parts(self) -> dict[str, str]:
        """objective, rule and retention, each as its formula."""
        return {"objective": self.objective.formula, "rule": self.rule.formula, "retention": self.retention.formula}

    # ---- the protocol ----
    def init(
        self,
        d_k: int,
        d_v: int,
        batch: Sequence[int] = (),
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        M0: Tensor | None = None,
    ) -> State:
        """The state before the first write. M0: where its main tensor starts, if it has one. M0 keeps its graph: an
        outer level can learn it (eq. 4, 28, 69).
        """
        return self._init(d_k, d_v, tuple(batch), M0, {"dtype": dtype, "device": device})

    def write(self, state: State, k: Tensor, v: Tensor, lr: Rate | None = None, keep: Rate | None = None) -> State:
        """Store one pair in each sequence: k (*batch, d_k), v (*batch, d_v); lr, keep a number or (*batch) -> new
        state.
        """
        self._need(state, "k", k, (*state.batch, state.d_k))
        self._need(state, "v", v, (*state.batch, state.d_v))
        return self._write(state, k, v, self._rate("lr", lr, state.batch, k), self._rate("keep", keep, state.batch, k))

    def read(self, state: State, q: Tensor) -> Tensor:
        """Ask: q (*batch, d_k) -> (*batch, d_v), or n queries a sequence, (*batch, n, d_k) -> (*batch, n, d_v)."""
        need_float("q", q)
        if q.ndim == len(state.batch) + 1:
            self._need(state, "q", q, (*state.batch, state.d_k))
            return self._read(state, q.unsqueeze(-2)).squeeze(-2)
        n = q.shape[-2] if q.ndim > 1 else "n"
        self._need(state, "q", q, (*state.batch, n, state.d_k))
        return self._read(state, q)

    def scan(
        self,
        k: Tensor,
        v: Tensor,
        q: Tensor,
        state: State | None = None,
        read: str = "before",
        *,
        lr: Rate | None = None,
        keep: Rate | None = None,
        impl: str = "loop",
    ) -> tuple[Tensor, State]:
        """Read and write every token of a sequence.

        k, q (*batch, length, d_k), v (*batch, length, d_v) -> y (*batch, length, d_v) and the state after the last
        token. read="before": token t is answered from the tokens < t; "after": from the tokens <= t (eq. 5, 16).
        lr, keep: a number, or one per token (*batch, length). state: from an earlier call; cutting a sequence anywhere
        and handing the state on gives what one call gives.
        impl: "loop" is the definition; "chunked" the same numbers many tokens at once, where such a form is known.
        torch.compile takes both into one graph, torch.func.vmap maps over the loop; neither reads values, so neither
        refuses NaN.
        """
        need(read in ("before", "after"), "read", repr(read), "'before' or 'after'")
        need(impl in ("loop", "chunked"), "impl", repr(impl), "'loop' or 'chunked'")
        state, length = self._sequence(k, v, state)
        self._need(state, "q", q, (*state.batch, length, state.d_k))
        if impl == "chunked":
            rates = [self._rate(name, r, (*state.batch, length), k) for name, r in (("lr", lr), ("keep", keep))]
            try:
                return self._chunked(state, k, v, q, read, rates[0], rates[1])
            except RuntimeError as error:
                need("vmap" not in str(error), "impl", "'chunked' inside torch.func.vmap", "'loop', or a leading batch")
                raise
        lrs, keeps = self._rates("lr", lr, state.batch, k), self._rates("keep", keep, state.batch, k)
        answers = []
        for t in range(length):
            if read == "before":
                answers.append(self._read(state, q[..., t : t + 1, :]))
            state = self._write(state, k[..., t, :], v[..., t, :], lrs(t), keeps(t))
            if read == "after":
                answers.append(self._read(state, q[..., t : t + 1, :]))
        y = torch.cat(answers, -2) if answers else v[..., :0, :]
        return y, state

    def write_all(
        self,
        k: Tensor,
        v: Tensor,
        state: State | None = None,
        *,
        lr: Rate | None = None,
        keep: Rate | None = None,
        passes: int = 1,
    ) -> State:
        """Write a whole sequence, `passes` times over, and read nothing. Shapes as in `scan`."""
        need(isinstance(passes, int) and passes >= 1, "passes", passes, "an int >= 1")
        state, length = self._sequence(k, v, state)
        lrs, keeps = self._rates("lr", lr, state.batch, k), self._rates("keep", keep, state.batch, k)
        for _ in range(passes):
            for t in range(length):
                state = self._write(state, k[..., t, :], v[..., t, :], lrs(t), keeps(t))
        return state

    # ---- checks ----
    def _sequence(self, k: Tensor, v: Tensor, state: State | None) -> tuple[State, int]:
        for name, x in (("k", k), ("v", v)):
            need_float(name, x)
            need(x.ndim >= 2, name, f"shape {tuple(x.shape)}", "(..., length, dim)")
        *batch, length, d_k = k.shape
        if state is None:
            state = self.init(d_k, v.shape[-1], batch, dtype=k.dtype, device=k.device)
        self._need(state, "k", k, (*state.batch, length, state.d_k))
        self._need(state, "v", v, (*state.batch, length, state.d_v))
        return state, length

    @staticmethod
    def _need(state: State, name: str, x: Any, shape: tuple[int | str, ...]) -> None:
        need_float(name, x)
        need(tuple(x.shape) == shape, name, f"shape {tuple(x.shape)}", f"{shape}: batch {state.batch} as the state has")
        need(
            x.dtype == state.M.dtype and x.device == state.M.device,
            name,
            f"{x.dtype} on {x.device}",
            f"{state.M.dtype} on {state.M.device}, as the state has",
        )

    @staticmethod
    def _own_rate(lr: float) -> float:
        """The memory's default write rate. A learned rate is a tensor and goes in with the call, not here."""
        need(isinstance(lr, (int, float)) and 0 <= lr < float("inf"), "lr", lr, "a finite number >= 0")
        return float(lr)

    def _rate(self, name: str, rate: Rate | None, shape: tuple[int, ...], like: Tensor) -> Rate:
        """lr or keep: a number, or a tensor of exactly `shape`; the memory's own where None was given."""
        if rate is None:
            return self.lr if name == "lr" else self.retention.keep
        want = "a number in (0, 1]" if name == "keep" else "a finite number >= 0"
        if isinstance(rate, Tensor):
            need(
                rate.dtype == like.dtype and rate.device == like.device,
                name,
                f"{rate.dtype} on {rate.device}",
                f"{like.dtype} on {like.device}, as k has",
            )
            came = tuple(rate.shape)
            need(came in ((), shape), name, f"shape {came}", f"a number or shape {shape}")
            good = (rate > 0) & (rate <= 1) if name == "keep" else (rate >= 0) & rate.isfinite()
            if not holds(good):
                raise NLBookError(f"{name}: got values from {rate.min():.4g} to {rate.max():.4g}, expected {want}")
            return rate
        need(isinstance(rate, (int, float)), name, type(rate).__name__, want + " or a tensor")
        need(0 < rate <= 1 if name == "keep" else 0 <= rate < float("inf"), name, rate, want)
        return rate

    def _rates(self, name: str, rate: Rate | None, batch: tuple[int, ...], k: Tensor) -> Callable[[int], Rate]:
        checked = self._rate(name, rate, (*batch, k.shape[-2]), k)
        if isinstance(checked, Tensor) and checked.ndim:
            per_token = checked
            return lambda t: per_token[..., t]
        return lambda t: checked

    def __repr__(self) -> str:
        return f"{self.name}(lr={self.lr:g})\n" + "\n".join(f"  {part:9s}  {how}" for part, how in self.parts().items())
