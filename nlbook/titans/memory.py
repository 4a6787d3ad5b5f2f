"""Titans' neural memory: an MLP (or a matrix) that learns the sequence it reads, with fixed projections."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.errors import generator, need
from nlbook.numerics import unit
from nlbook.titans.group import Gates, answer, causal_conv, identity_taps, write
from nlbook.titans.layer import FastLayer, Group
from nlbook.titans.operators import for_neural_memory, run_neural_memory
from nlbook.titans.rules import Rule, layer_io
from nlbook.titans.state import TitansState

TOGETHER = 16  # runs whose decays are made in one go: fewer operations; more would only hold more memory


class NeuralMemory(FastLayer):
    """Titans' long-term memory: surprise, momentum, forgetting. Eq. 76-78: a parametric memory with fixed projections.

        k_t, v_t, q_t = W x_t;   eta_t, alpha_t, mu_t = gates of x_t                                  (eq. 76)
        S_t = mu_t S_{t-1} - eta_t grad 1/2 |M(k_t) - v_t|^2       momentary surprise, carried on
        M_t = alpha_t M_{t-1} + S_t                                descent on the objective           (eq. 77)
        y_t = M_t(q_t)                                                                                (eq. 78)

    Gradients are taken at the last chunk boundary. alpha is what is kept here (Titans' paper writes 1 - alpha).
    Arguments as in `SelfModifyingTitans`; `factor="raw"` adds the DGD factor, `momentum=False` drops S.

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
        objective: str = "l2",
        factor: str | None = None,
        read: str = "after",
        retention: str = "zero",
        rate: str = "explicit",
        eta: float = 0.1,
        eta_max: float = 1.0,
        horizon: float = 512.0,
        decay: bool = True,
        momentum: bool = True,
        conv: int = 4,
        conv_noise: float = 0.0,
        activation: str = "silu",
        normalise_v: bool = True,
        mem_std: float = 0.1,
        block: int = 64,
        checkpoint: bool = False,
        first_order: bool = False,
        seed: int = 0,
    ) -> None:
        rule = Rule(objective, factor, read, retention, rate)
        super().__init__(
            dim,
            heads,
            hidden,
            memory,
            rule,
            eta_max=eta_max,
            eta=eta,
            horizon=horizon,
            decay=decay,
            block=block,
            checkpoint=checkpoint,
            first_order=first_order,
        )
        need(isinstance(chunk, int) and chunk >= 1, "chunk", chunk, "an int >= 1 (tokens)")
        need(activation in ("silu", "none"), "activation", repr(activation), "'silu' or 'none'")
        self.groups = {"mem": Group(("mem",), chunk, memory == "mlp")}
        self.conv, self.activation, self.normalise_v, self._momentum = conv, activation, normalise_v, momentum
        g, d = generator(seed), self.width
        self._add("mem", d, [mem_std], g)
        self.W_qkv = nn.Parameter(torch.randn(3, dim, dim, generator=g) / dim**0.5)
        if conv:
            self.taps = nn.Parameter(identity_taps(heads, 3, d, width=conv, noise=conv_noise, g=g))
        self.w_gate = nn.Parameter(torch.zeros(3, heads, dim))  # eta, alpha, mu
        self.b_gate = nn.Parameter(
            torch.tensor([self._bias["eta"], self._bias["alpha"], 0.0])[:, None].repeat(1, heads)
        )

    @property
    def has_momentum(self) -> bool:
        return self._momentum

    def _tails(self, batch: int) -> dict[str, Tensor]:
        return {"qkv": self.taps.new_zeros(batch, self.heads, 3, self.conv - 1, self.width)} if self.conv else {}

    def _prepare(self, x: Tensor, state: TitansState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        z = torch.stack([self._heads(x @ W.mT) for W in self.W_qkv], 2)  # (batch, head, 3, length, width)
        last = {}
        if self.conv:
            z, last["qkv"] = causal_conv(z, self.taps, state.tails["qkv"])
        z = F.silu(z) if self.activation == "silu" else z
        z = torch.cat([unit(z[:, :, :2]), unit(z[:, :, 2:]) if self.normalise_v else z[:, :, 2:]], 2)
        gate = torch.einsum("bld,ghd->bhgl", x, self.w_gate) + self.b_gate.mT[:, :, None]
        eta, alpha, mu = gate[:, :, :, None].unbind(2)  # each (batch, head, 1, length)
        gates = [F.logsigmoid(alpha) if self.decay else torch.zeros_like(alpha), self.eta_max * torch.sigmoid(eta)]
        if self._momentum:
            gates.append(F.logsigmoid(mu))
        return {"qkv": z, "gate": torch.stack(gates, -1)}, last  # gate (batch, head, 1, length, 2 or 3)

    def _gates_of(self, whole: dict[str, Tensor], runs: list[tuple[int, int]]) -> dict[int, Any]:
        out: dict[int, Any] = {}
        for n, same in groupby((r for r in runs if r[1] > 1), key=lambda r: r[1]):
            firsts = [i for i, _ in same]
            for few in (firsts[j : j + TOGETHER] for j in range(0, len(firsts), TOGETHER)):
                if few[-1] - few[0] == n * (len(few) - 1) and len(few) > 1:
                    gate = whole["gate"][..., few[0] : few[-1] + n, :].unflatten(-2, (len(few), n))
                    out |= zip(few, Gates.together(*gate.unbind(-1)))
        return out

    def _gates(self, part: dict[str, Any]) -> Gates:
        return part.get("gates") or Gates(*part["gate"].unbind(-1))

    def _run(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        S, group = state.start["mem"], self.groups["mem"]
        q, k, v = part["qkv"].split(1, 2)
        init = self.initial_weights("mem") if self.rule.retention == "initial" else None
        io = layer_io(S, k, v, self.rule.objective, group.residual)
        now, pushed, inside = write(
            state.now["mem"], io, self._gates(part), self.rule, init=init, momentum=state.momentum.get("mem")
        )
        y = answer(S, q, group.residual, self.rule.read, inside)
        return y[:, :, 0], TitansState(
            {"mem": now}, state.start, {"mem": pushed} if pushed else {}, state.tails, state.position
        )

    @property
    def operator(self) -> str | None:
        return for_neural_memory(self)

    def _operate(self, part: dict[str, Tensor], state: TitansState) -> tuple[Tensor, TitansState]:
        assert self.operator is not None
        q, k, v = part["qkv"].unbind(2)
        y, now, pushed = run_neural_memory(
            self.operator, self, q, k, v, self._gates(part), state.now["mem"], state.momentum.get("mem", {})
        )
        return y, TitansState({"mem": now}, state.start, {"mem": pushed} if pushed else {}, state.tails, state.position)
