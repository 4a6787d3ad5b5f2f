"""Titans' neural memory: an MLP (or a matrix) that learns the sequence it reads, with fixed projections."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from nlkernels import linear_memory, mlp_memory, titans_memory
from torch import Tensor, nn

from nlbook.errors import generator
from nlbook.numerics import causal_conv, identity_taps, unit
from nlbook.titans.chunked import Pace, answer, write
from nlbook.titans.layer import FastLayer, positive_keep
from nlbook.titans.rules import Gates, Rule, Start, Weights, signals
from nlbook.titans.state import TitansState


class NeuralMemory(FastLayer):
    """Titans' long-term memory: surprise, momentum, forgetting. Eq. 76-78: a parametric memory with fixed projections.

        k_t, v_t, q_t = W x_t;   eta_t, alpha_t, mu_t = gates of x_t                                  (eq. 76)
        S_t = mu_t S_{t-1} - eta_t grad 1/2 |M(k_t) - v_t|^2       momentary surprise, carried on
        M_t = alpha_t M_{t-1} + S_t                                descent on the objective           (eq. 77)
        y_t = M_t(q_t)                                                                                (eq. 78)

    Gradients are taken at the last chunk boundary. alpha is what is kept here (Titans' paper writes 1 - alpha).
    Arguments as in `SelfModifyingTitans`, with Titans' choices as defaults.

    Shapes: x (batch, length, dim) -> y (batch, length, dim), TitansState.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 1,
        hidden: int | None = None,
        memory: str = "mlp",
        chunk: int = 16,
        rule: Rule = Rule(factor=None, read="after", momentum=True),  # noqa: B008 (frozen)
        gates: Gates = Gates(eta_max=1.0),  # noqa: B008
        start: Start = Start(mem_std=0.1),  # noqa: B008
        conv: int = 4,
        activation: str = "silu",
        seed: int = 0,
    ) -> None:
        super().__init__(dim, heads, hidden, memory, rule, gates, conv, activation)
        self.groups, self.filtered = {"mem": self._boxes(("mem",), chunk)}, {"qkv": 3}
        g, d = generator(seed), self.width
        self._add("mem", d, [start.mem_std], g)
        self.W_qkv = nn.Parameter(torch.randn(3, dim, dim, generator=g) / dim**0.5)
        if conv:
            self.taps = nn.Parameter(identity_taps(heads, 3, d, width=conv, noise=start.conv_noise, g=g))
        self.w_gate = nn.Parameter(torch.zeros(3, heads, dim))  # eta, alpha, mu
        self.b_gate = nn.Parameter(torch.tensor([*gates.biases(), 0.0])[:, None].repeat(1, heads))

    def _prepare(self, x: Tensor, state: TitansState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        z = torch.stack([self._heads(x @ W.mT) for W in self.W_qkv], 2)  # (batch, head, 3, length, width)
        last = {}
        if self.conv:
            z, last["qkv"] = causal_conv(z, self.taps, state.tails["qkv"])
        z = F.silu(z) if self.activation == "silu" else z
        z = torch.cat([unit(z[:, :, :2]), unit(z[:, :, 2:]) if self.rule.normalise_v else z[:, :, 2:]], 2)
        gate = torch.einsum("bld,ghd->bhgl", x, self.w_gate) + self.b_gate.mT[:, :, None]
        eta, alpha, mu = gate[:, :, :, None].unbind(2)  # each (batch, head, 1, length)
        gates = [F.logsigmoid(alpha) if self.decay else torch.zeros_like(alpha), self.eta_max * torch.sigmoid(eta)]
        if self.rule.momentum:
            gates.append(F.logsigmoid(mu))
        return {"qkv": z, "gate": torch.stack(gates, -1)}, last  # gate (batch, head, 1, length, 2 or 3)

    def _parts(self, whole: dict[str, Tensor], sizes: list[int]) -> list[dict[str, Any]]:
        """With the pace of each run: what follows from the gates is made for runs of equal length in one go."""
        parts, i = super()._parts(whole, sizes), 0
        for n, same in groupby(sizes):
            here = parts[i : i + len(list(same))]
            if n > 1 and len(here) > 1:
                first = sum(sizes[:i])
                gate = whole["gate"][..., first : first + n * len(here), :].unflatten(-2, (len(here), n))
                paces = Pace(*gate.unbind(-1)).runs()
            else:
                paces = [Pace(*part["gate"].unbind(-1)) for part in here]
            for part, pace in zip(here, paces):
                part["pace"] = pace
            i += len(here)
        return parts

    def _run(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        S, group = state.start["mem"], self.groups["mem"]
        q, k, v = part["qkv"].split(1, 2)
        io, said = signals(S, k, v, self.rule.objective, group.residual)
        said = said if state.now["mem"] is S else {}
        push = state.momentum.get("mem", {})
        now, pushed, inside = write(state.now["mem"], io, part["pace"], self.rule, push, said=said)
        y = answer(S, q, group.residual, self.rule.read, inside)
        return y[:, :, 0], self._state(state, now, pushed)

    def _state(self, old: TitansState, now: Weights, momentum: Weights) -> TitansState:
        return TitansState({"mem": now}, old.start, {"mem": momentum} if momentum else {}, old.tails, old.position)

    @property
    def operator(self) -> str | None:
        rule = self.rule
        if not rule.given:
            return None
        if not rule.momentum:
            return "linear_memory" if self.memory == "linear" else "mlp_memory"
        plain = self.memory == "linear" and rule.factor is None and rule.objective == "l2"
        return "titans_memory" if plain else None

    def _operate(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        q, k, v = part["qkv"].unbind(2)
        pace, rule = part["pace"], self.rule
        how: dict[str, Any] = {"chunk": self.groups["mem"].chunk, "read": rule.read}
        keep, eta = positive_keep(pace.log_keep)[:, :, 0], pace.eta[:, :, 0]
        W = {n: w[:, :, 0] for n, w in state.now["mem"].items()}
        S: list[Tensor] = []
        if rule.momentum:
            mu, first = positive_keep(pace.log_mu)[:, :, 0], state.momentum["mem"]["W"][:, :, 0]
            y, M, *S = titans_memory(q, k, v, keep, mu, eta, W["W"], first, **how)
            new = [M]
        elif self.memory == "linear":
            erase = eta if rule.factor else None
            y, *new = linear_memory(q, k, v, keep, erase, eta, W["W"], objective=rule.objective, **how)
        else:
            erase = rule.factor is not None
            y, *new = mlp_memory(q, k, v, keep, eta, W["W1"], W["W2"], objective=rule.objective, erase=erase, **how)
        now, pushed = ({n: w.to(q.dtype)[:, :, None] for n, w in zip(W, ws)} for ws in (new, S))
        return y, self._state(state, now, pushed)
