"""A deep memory: two layers, a residual, M(x) = x + W1 silu(W2 x) (eq. 89), trained by the token in closed form."""

from __future__ import annotations

from dataclasses import replace

import torch
from nlkernels.mlp_memory.reference import silu_slope
from torch import Tensor

from nlbook.errors import generator, need
from nlbook.memory.core import Kind, Memory, State
from nlbook.memory.objectives import Objective, get_objective, outer, recall
from nlbook.memory.rules import GD, Rate, Retention, spread


class MLPMemory(Memory):
    """y = q + W1 silu(W2 q) with W2 (hidden, d_k) random and W1 (d_v, hidden) zero at the start; GD on both.

    steps: gradient steps on each pair (passes over a whole sequence: `write_all(passes=n)`). residual=True needs d_k =
    d_v. lr: None = 1 / hidden, which holds for unit keys. The start is drawn once from `seed` and is the same for every
    sequence; the state is not. State.M is W1, extra["W2"] the rest.
    """

    def __init__(
        self,
        objective: str | Objective = "l2",
        *,
        hidden: int = 64,
        residual: bool = True,
        steps: int = 1,
        keep: float = 1.0,
        towards: str = "initial",
        lr: float | None = None,
        seed: int = 0,
        name: str = "mlp",
    ) -> None:
        self.objective, self.rule, self.retention = get_objective(objective), GD(), Retention(keep, towards)
        need(self.objective.through_answer, "objective", self.objective.name, "dot, l2 or lp")
        for arg, n in (("hidden", hidden), ("steps", steps)):
            need(isinstance(n, int) and n >= 1, arg, n, "an int >= 1")
        self.hidden, self.residual, self.steps, self.seed, self.name = hidden, residual, steps, seed, name
        self.lr = self._own_rate(1 / hidden if lr is None else lr)

    def parts(self) -> dict[str, str]:
        form = "M(k) = k + W₁σ(W₂k)" if self.residual else "M(k) = W₁σ(W₂k)"
        rule = "W − η∇L" + (f", {self.steps} steps a pair" if self.steps > 1 else "")
        objective = self.objective.formula.replace("Mk", "M(k)")
        return super().parts() | {"objective": f"{objective},  {form}", "rule": rule}

    def _init(self, d_k: int, d_v: int, batch: tuple[int, ...], M0: Tensor | None, kind: Kind) -> State:
        """W1 = M0 or zeros (d_v, hidden); W2 from the seed, entries of variance 1 (unit keys then give unit pre-
        activations).
        """
        need(not self.residual or d_k == d_v, "d_v", d_v, f"{d_k}, as d_k is: the residual adds the key to the answer")
        try:
            W2 = torch.randn(self.hidden, d_k, generator=generator(self.seed), dtype=torch.float64).to(**kind)
        except RuntimeError as error:
            need("vmap" not in str(error), "state", "None inside torch.func.vmap", "one that `init` made outside")
            raise
        W1 = torch.zeros(d_v, self.hidden, **kind) if M0 is None else M0
        need(tuple(W1.shape) == (d_v, self.hidden), "M0", f"shape {tuple(W1.shape)}", f"({d_v}, {self.hidden})")
        W1, W2 = W1.expand(*batch, d_v, self.hidden), W2.expand(*batch, self.hidden, d_k)
        return State(W1, W1, batch, d_k, d_v, {"W2": W2, "W2_start": W2})

    def grads(self, state: State, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Closed-form gradients of the objective at one pair: for W1 (*batch, d_v, hidden) and W2 (*batch, hidden,
        d_k).
        """
        W1, W2 = state.M, state.extra["W2"]
        z = recall(W2, k)
        h = torch.nn.functional.silu(z)
        s = self.objective.surprise_at(recall(W1, h) + (k if self.residual else 0), v)
        return outer(s, h), outer(recall(W1.mT, s) * silu_slope(z), k)  # eq. 29: each layer's error times its input

    def _write(self, state: State, k: Tensor, v: Tensor, lr: Rate, keep: Rate) -> State:
        at, W2_start = state, state.extra["W2_start"]
        for step in range(self.steps):
            g1, g2 = self.grads(at, k, v)
            W1, W2 = at.M, at.extra["W2"]
            if step == 0:  # one decay a token, however many steps
                W1, W2 = self.retention.apply(W1, state.start, keep), self.retention.apply(W2, W2_start, keep)
            at = replace(at, M=W1 - spread(lr, 2) * g1, extra={"W2": W2 - spread(lr, 2) * g2, "W2_start": W2_start})
        return at

    def _read(self, state: State, q: Tensor) -> Tensor:
        y = torch.nn.functional.silu(q @ state.extra["W2"].mT) @ state.M.mT
        return y + q if self.residual else y
