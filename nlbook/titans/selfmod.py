"""Self-modifying Titans: a layer whose keys, values, rates and answers are memories that it writes itself."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from nlkernels import SelfRefState, selfref_memory
from torch import Tensor, nn

from nlbook.errors import generator, need
from nlbook.numerics import causal_conv, identity_taps, unit
from nlbook.titans.chunked import Pace, answer, write
from nlbook.titans.layer import FastLayer
from nlbook.titans.rules import Gates, Rule, Start, read, signals
from nlbook.titans.state import TitansState

BOXES = ("mem", "k", "v", "eta", "alpha")


class SelfModifyingTitans(FastLayer):
    """Eq. 83-91: five memories make k, v, eta, alpha and the answer; all are written at once, with values of their own.

        y_t = M_mem(q_t)   k_t = M_k(x_t)   v_t = M_v(x_t)   eta_t = M_eta(x_t)   alpha_t = M_alpha(x_t)   (eq. 86, 94)
        v^_t = M(v_t)  for each memory                                                                     (eq. 87, 95)
        M <- M (alpha_t I - eta_t k_t k_t^T) - eta_t grad 1/2 |M(k_t) - v^_t|^2                            (eq. 88, 96)

    All right-hand sides are taken at the state of the last chunk boundary (eq. 90, index C floor((t-1)/C)); the factor
    in brackets acts on the running state. chunk = other_chunk = 1 is the token-wise rule. All initial states are
    learned outside. The value v^ is constant for the inner derivative only; the outer gradient runs through it. With
    Rule(self_values=False) the targets are v itself (eq. 79, 80, 81, 82).

    Args:
        dim, heads: width of x; each head has memories of its own for its dim / heads features.
        memory: "mlp" (residual, two layers, eq. 89) with `hidden` units (default: the head's width), or "linear".
        chunk, other_chunk: tokens per chunk of M_mem, and of the other memories.
        rule, gates, start: the open choices, see `Rule`, `Gates` and `Start` in nlbook.titans.rules.
        adaptive: the boxes that move inside a sequence; the rest stay at their learned start (ablations).
        adaptive_q: q_t = M_q(x_t) with a sixth memory instead of a fixed projection.
        conv: taps of the causal depthwise convolution after the projections of q, k, v; 0: none. activation: after it,
            "silu" or "none".

    Shapes: x (batch, length, dim) -> y (batch, length, dim), TitansState.
    """

    def __init__(
        self,
        dim: int,
        *,
        heads: int = 1,
        hidden: int | None = None,
        memory: str = "mlp",
        chunk: int = 64,
        other_chunk: int = 16,
        rule: Rule = Rule(),  # noqa: B008 (frozen)
        gates: Gates = Gates(),  # noqa: B008
        start: Start = Start(),  # noqa: B008
        adaptive: tuple[str, ...] | list[str] = BOXES,
        adaptive_q: bool = False,
        conv: int = 4,
        activation: str = "silu",
        seed: int = 0,
    ) -> None:
        super().__init__(dim, heads, hidden, memory, rule, gates, conv, activation)
        need(set(adaptive) <= {*BOXES}, "adaptive", adaptive, f"boxes out of {BOXES} (and adaptive_q for q)")
        self.adaptive, self.adaptive_q = tuple(adaptive) + ("q",) * adaptive_q, adaptive_q
        proj = ("q", "k", "v") if adaptive_q else ("k", "v")  # in the order of the taps
        self.groups = {
            "mem": self._boxes(("mem",), chunk),
            "proj": self._boxes(proj, other_chunk, argument="other_chunk"),
            "gate": self._boxes(("eta", "alpha"), other_chunk, residual=False),
        }
        self.filtered = {"qkv": 3} if adaptive_q else {"q": 1, "kv": 2}
        g, d = generator(seed), self.width
        self._add("mem", d, [start.mem_std], g, identity=True, gain=start.mem_gain)
        self._add("proj", d, [start.proj_std if memory == "mlp" else 1.0] * len(proj), g)
        self._add("gate", 1, [start.gate_std] * 2, g)
        if not adaptive_q:
            W_q = torch.randn(dim, dim, generator=g) / dim**0.5
            self.W_q = nn.Parameter(W_q if start.query == "random" else torch.eye(dim))
        if conv:  # boxes q, k, v
            self.taps = nn.Parameter(identity_taps(heads, 3, d, width=conv, noise=start.conv_noise, g=g))
        b_eta, b_alpha = gates.biases()
        self.b_eta = nn.Parameter(torch.full((heads,), b_eta))
        if gates.decay:
            self.b_alpha = nn.Parameter(torch.full((heads,), b_alpha))
        if rule.momentum:
            self.w_mu = nn.Parameter(torch.zeros(heads, dim))
            self.b_mu = nn.Parameter(torch.zeros(heads))

    # ------------------------------------------------------------------ forward
    def _filter(self, raw: Tensor, boxes: slice, tails: dict[str, Tensor], name: str) -> tuple[Tensor, dict]:
        """Convolution and activation of raw (batch, head, box, length, width); returns the new tails."""
        if self.conv:
            raw, tail = causal_conv(raw, self.taps[:, boxes], tails[name])
            tails = {**tails, name: tail}
        return (F.silu(raw) if self.activation == "silu" else raw), tails

    def _prepare(self, x: Tensor, state: TitansState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        whole, last = {"x": self._heads(x)}, {}
        if not self.adaptive_q:  # eq. 86: the only projection that stays fixed
            q, tails = self._filter(self._heads(x @ self.W_q.mT)[:, :, None], slice(0, 1), state.tails, "q")
            whole["q"] = unit(q)[:, :, 0]
            last = {n: tails[n] for n in ("q",) if self.conv}
        if self.rule.momentum:
            whole["mu"] = (x @ self.w_mu.mT).mT[..., None]  # (batch, head, length, 1)
        return whole, last

    def gates(self, raw: Tensor, mu: Tensor | None = None) -> Pace:
        """Rates and retentions from the raw answers of M_eta and M_alpha, (batch, head, 2, length)."""
        eta = self.eta_max * torch.sigmoid(raw[:, :, :1] + self.b_eta[:, None, None])
        keep = F.logsigmoid(raw[:, :, 1:] + self.b_alpha[:, None, None]) if self.decay else torch.zeros_like(eta)
        return Pace(keep, eta, None if mu is None else F.logsigmoid(mu.mT + self.b_mu[:, None, None]))

    def _run(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        S, x = state.start, part["x"][:, :, None]  # (batch, head, 1, length, width)
        raw = read(S["proj"], x, self.groups["proj"].residual)  # eq. 79, 83, 86: k and v (and q)
        boxes, name = (slice(0, 3), "qkv") if self.adaptive_q else (slice(1, 3), "kv")
        z, tails = self._filter(raw, boxes, state.tails, name)
        q = unit(z[:, :, :1]) if self.adaptive_q else part["q"][:, :, None]
        k, v = unit(z[:, :, -2:-1]), z[:, :, -1:]
        v = unit(v) if self.rule.normalise_v else v
        pace = self.gates(read(S["gate"], x, False)[..., 0], part.get("mu"))
        now, momentum = dict(state.now), dict(state.momentum)
        y = None
        for name, group in self.groups.items():
            moving = [b in self.adaptive for b in group.names]
            inside: Any = None
            if any(moving):
                own = self.rule.self_values or name == "gate"
                value = read(S[name], v, group.residual) if own else v  # eq. 84, 87 (80-81): v^, in the outer graph
                io, said = signals(S[name], k, value, self.rule.objective, group.residual)
                moves = None if all(moving) else torch.tensor(moving, device=k.device)[:, None, None]
                said = said if now[name] is S[name] else {}
                push = momentum.get(name, {})
                now[name], pushed, inside = write(now[name], io, pace, self.rule, push, moves, said)
                momentum |= {name: pushed} if pushed else {}
            if name == "mem":
                y = answer(S[name], q, group.residual, self.rule.read if inside else "start", inside)
        assert y is not None
        return y[:, :, 0], TitansState(now, state.start, momentum, tails, state.position)

    @property
    def operator(self) -> str | None:
        fits = (
            self.memory == "linear"
            and (self.rule.factor, self.rule.read, self.rule.given) == ("raw", "start", True)
            and self.rule.self_values
            and not self.rule.momentum
            and len({g.chunk for g in self.groups.values()}) == 1
            and self.decay
            and not self.conv
            and self.activation == "none"
            and not self.adaptive_q
            and set(self.adaptive) == {*BOXES}
        )
        return "selfref_memory" if fits else None

    def _operate(self, part: dict[str, Any], state: TitansState) -> tuple[Tensor, TitansState]:
        mem, proj, gate = (state.now[g]["W"] for g in ("mem", "proj", "gate"))
        x, batch = part["x"], len(part["x"])
        y, end = selfref_memory(
            x,
            part["q"],
            SelfRefState(proj[:, :, 0], proj[:, :, 1], mem[:, :, 0], gate[:, :, 0, 0], gate[:, :, 1, 0]),
            b_eta=self.b_eta.expand(batch, -1),
            b_alpha=self.b_alpha.expand(batch, -1),
            eta_max=self.eta_max,
            chunk=self.groups["mem"].chunk,
            objective=self.rule.objective,
            unit_values=self.rule.normalise_v,
        )
        k, v, M, eta, alpha = (w.to(x.dtype) for w in end)
        new = {"mem": M[:, :, None], "proj": torch.stack([k, v], 2), "gate": torch.stack([eta, alpha], 2)[..., None, :]}
        return y, TitansState({g: {"W": w} for g, w in new.items()}, state.start, state.momentum, state.tails)
