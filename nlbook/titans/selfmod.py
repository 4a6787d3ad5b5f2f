"""Self-modifying Titans: a layer whose keys, values, rates and answers are memories that it writes itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nlbook.errors import generator, need
from nlbook.numerics import unit
from nlbook.titans.group import Gates, answer, causal_conv, identity_taps, write
from nlbook.titans.layer import FastLayer, Group
from nlbook.titans.operators import for_self_modifying, run_self_modifying
from nlbook.titans.rules import Rule, layer_io, read
from nlbook.titans.state import TitansState

BOXES = ("mem", "k", "v", "eta", "alpha")


class SelfModifyingTitans(FastLayer):
    """Eq. 83-91: five memories make k, v, eta, alpha and the answer; all are written at once, with values of their own.

        y_t = M_mem(q_t)   k_t = M_k(x_t)   v_t = M_v(x_t)   eta_t = M_eta(x_t)   alpha_t = M_alpha(x_t)   (eq. 86, 94)
        v^_t = M(v_t)  for each memory                                                                     (eq. 87, 95)
        M <- M (alpha_t I - eta_t k_t k_t^T) - eta_t grad 1/2 |M(k_t) - v^_t|^2                            (eq. 88, 96)

    All right-hand sides are taken at the state of the last chunk boundary (eq. 90, index C floor((t-1)/C)); the factor
    in brackets acts on the running state. chunk = other_chunk = 1 is the token-wise rule. All initial states are
    learned outside. The value v^ is constant for the inner derivative only; the outer gradient runs through it.

    Args:
        dim, heads: width of x; each head has memories of its own for its dim / heads features.
        memory: "mlp" (residual, two layers, eq. 89) with `hidden` units (default: the head's width), or "linear".
        chunk, other_chunk: tokens per chunk of M_mem, and of the other memories.
        objective, factor, read, retention, rate: see `nlbook.titans.rules.Rule`.
        eta, eta_max: rates are eta_max sigmoid(M_eta(x) + b) and start at eta. With the squared objective the state
            along a key shrinks by alpha - 2 eta: eta_max = 0.5 keeps it in [alpha - 1, alpha], 1.0 allows -1 (needed to
            count parity).
        horizon: alpha starts at 1 - 1/horizon, in tokens. decay=False fixes alpha at 1.
        other_rate: the memories other than M_mem learn and forget at this learned fraction of the pace; None: at the
            same.
        adaptive: the boxes that move inside a sequence; the rest stay at their learned start (ablations).
        adaptive_q: q_t = M_q(x_t) with a sixth memory instead of a fixed projection.
        self_values: v^ = M(v) as above; False: v itself, the first form of eq. 79-81: all memories learn L(M; k_t, v_t)
            with the shared key (eq. 80 prints each memory's own output in its place: a scalar for the gates). The gate
            memories keep values of their own: a scalar cannot be v. Eq. 82 is read="after".
        momentum: S_t = mu_t S_{t-1} - eta_t grad, mu_t = sigmoid(x_t w + b), as in Titans.
        conv: taps of the causal depthwise convolution after the projections of q, k, v; 0: none. conv_noise: uniform
            noise on the taps at the start, 0 is the identity. activation: after it, "silu" or "none".
        normalise_v: v at length 1, as k and q always are. Without it self-generated values feed back and explode.
        mem_std, proj_std, gate_std: scale of W1 at the start. M_k and M_v must differ, or k = v and nothing is ever
            learned.
        mem_gain: factor on W2 of M_mem at the start. A write moves the answer by eta |silu(W2 k)|^2 of its error; with
            unit keys and W2 of std dim^-1/2 that square is small (0.3 at 32 units), and 2 to 3 makes one write count.
        query: how W_q starts. "random": std dim^-1/2, in a basis unrelated to the keys'. "identity": M_k is residual:
            keys start as x plus something, and queries that start as x share their features: to find a key takes
            one number a feature in the convolutions (measured in nlbook.book.chapters.hope.hope_race).
        block: tokens in one parallel piece: speed only. checkpoint, first_order: see FastLayer.

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
        objective: str = "l2",
        factor: str | None = "raw",
        read: str = "start",
        retention: str = "zero",
        rate: str = "explicit",
        eta: float = 0.1,
        eta_max: float = 0.5,
        horizon: float = 512.0,
        decay: bool = True,
        other_rate: float | None = None,
        adaptive: tuple[str, ...] | list[str] = BOXES,
        adaptive_q: bool = False,
        self_values: bool = True,
        momentum: bool = False,
        conv: int = 4,
        conv_noise: float = 0.0,
        activation: str = "silu",
        normalise_v: bool = True,
        mem_std: float = 0.02,
        proj_std: float = 2.0,
        gate_std: float = 0.0,
        mem_gain: float = 1.0,
        query: str = "random",
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
        need(set(adaptive) <= {*BOXES}, "adaptive", adaptive, f"boxes out of {BOXES} (and adaptive_q for q)")
        need(activation in ("silu", "none"), "activation", repr(activation), "'silu' or 'none'")
        need(query in ("random", "identity"), "query", repr(query), "'random' or 'identity'")
        need(other_rate is None or 0 < other_rate <= 1, "other_rate", other_rate, "a number in (0, 1], or None")
        for name, c in (("chunk", chunk), ("other_chunk", other_chunk)):
            need(isinstance(c, int) and c >= 1, name, c, "an int >= 1 (tokens)")
        self.adaptive, self.adaptive_q, self.self_values = (
            tuple(adaptive) + ("q",) * adaptive_q,
            adaptive_q,
            self_values,
        )
        self.activation, self.normalise_v, self.conv = activation, normalise_v, conv
        own = memory == "mlp"
        proj = ("q", "k", "v") if adaptive_q else ("k", "v")  # in the order of the taps
        self.groups = {
            "mem": Group(("mem",), chunk, own),
            "proj": Group(proj, other_chunk, own),
            "gate": Group(("eta", "alpha"), other_chunk, False),
        }
        g, d = generator(seed), self.width
        self._add("mem", d, [mem_std], g, identity=True, gain=mem_gain)
        self._add("proj", d, [proj_std if own else 1.0] * len(proj), g)
        self._add("gate", 1, [gate_std] * 2, g)
        if not adaptive_q:
            W_q = torch.randn(dim, dim, generator=g) / dim**0.5
            self.W_q = nn.Parameter(W_q if query == "random" else torch.eye(dim))
        if conv:  # boxes q, k, v
            self.taps = nn.Parameter(identity_taps(heads, 3, d, width=conv, noise=conv_noise, g=g))
        self.b_eta = nn.Parameter(torch.full((heads,), self._bias["eta"]))
        if decay:
            self.b_alpha = nn.Parameter(torch.full((heads,), self._bias["alpha"]))
        if other_rate is not None:
            self.log_other_rate = nn.Parameter(torch.tensor(math.log(other_rate)))
        self.other_rate = other_rate
        self._momentum = momentum
        if momentum:
            self.w_mu = nn.Parameter(torch.zeros(heads, dim))
            self.b_mu = nn.Parameter(torch.zeros(heads))

    @property
    def has_momentum(self) -> bool:
        return self._momentum

    def _tails(self, batch: int) -> dict[str, Tensor]:
        if not self.conv:
            return {}
        boxes = {"q": 1, "kv": 2} if not self.adaptive_q else {"qkv": 3}
        return {n: self.taps.new_zeros(batch, self.heads, k, self.conv - 1, self.width) for n, k in boxes.items()}

    # ------------------------------------------------------------------ forward
    def _shape(self, raw: Tensor, box: slice, tails: dict[str, Tensor], name: str) -> tuple[Tensor, dict[str, Tensor]]:
        """Convolution and activation of raw (batch, head, box, length, width); returns the new tails."""
        if self.conv:
            raw, tail = causal_conv(raw, self.taps[:, box], tails[name])
            tails = {**tails, name: tail}
        return (F.silu(raw) if self.activation == "silu" else raw), tails

    def _prepare(self, x: Tensor, state: TitansState) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        whole, last = {"x": self._heads(x)}, {}
        if not self.adaptive_q:  # eq. 86: the only projection that stays fixed
            q, tails = self._shape(self._heads(x @ self.W_q.mT)[:, :, None], slice(0, 1), state.tails, "q")
            whole["q"] = unit(q)[:, :, 0]
            last = {n: tails[n] for n in ("q",) if self.conv}
        if self._momentum:
            whole["mu"] = (x @ self.w_mu.mT).mT[..., None]  # (batch, head, length, 1)
        return whole, last

    def gates(self, raw: Tensor, mu: Tensor | None = None) -> Gates:
        """Rates and retentions from the raw answers of M_eta and M_alpha, (batch, head, 2, length)."""
        eta = self.eta_max * torch.sigmoid(raw[:, :, :1] + self.b_eta[:, None, None])
        keep = F.logsigmoid(raw[:, :, 1:] + self.b_alpha[:, None, None]) if self.decay else torch.zeros_like(eta)
        return Gates(keep, eta, None if mu is None else F.logsigmoid(mu.mT + self.b_mu[:, None, None]))

    def _run(self, part: dict[str, Tensor], state: TitansState) -> tuple[Tensor, TitansState]:
        S, x = state.start, part["x"][:, :, None]  # (batch, head, 1, length, width)
        raw = read(S["proj"], x, self.groups["proj"].residual)  # eq. 79, 83, 86: k and v (and q)
        if self.adaptive_q:
            z, tails = self._shape(raw, slice(0, 3), state.tails, "qkv")
            q, z = unit(z[:, :, :1]), z[:, :, 1:]
        else:
            z, tails = self._shape(raw, slice(1, 3), state.tails, "kv")
            q = part["q"][:, :, None]
        k, v = unit(z[:, :, :1]), z[:, :, 1:2]
        v = unit(v) if self.normalise_v else v
        gates = self.gates(read(S["gate"], x, False)[..., 0], part.get("mu"))
        slow = gates if self.other_rate is None else gates.slower(self.log_other_rate.exp())

        now, momentum = dict(state.now), dict(state.momentum)
        y = None
        for name, group in self.groups.items():
            moving = [b in self.adaptive for b in group.boxes]
            if any(moving):
                own = self.self_values or name == "gate"
                value = read(S[name], v, group.residual) if own else v  # eq. 84, 87 (80-81): v^, in the outer graph
                io = layer_io(S[name], k, value, self.rule.objective, group.residual)
                init = self.initial_weights(name) if self.rule.retention == "initial" else None
                moves = None if all(moving) else torch.tensor(moving, device=k.device)[:, None, None]
                now[name], pushed, inside = write(
                    now[name],
                    io,
                    gates if name == "mem" else slow,
                    self.rule,
                    init=init,
                    momentum=momentum.get(name),
                    moves=moves,
                )
                if pushed:
                    momentum[name] = pushed
            if name == "mem":
                y = (
                    answer(S[name], q, group.residual, self.rule.read, inside)
                    if any(moving)
                    else read(S[name], q, group.residual)
                )
        assert y is not None
        return y[:, :, 0], TitansState(now, state.start, momentum, tails, state.position)

    @property
    def operator(self) -> str | None:
        return for_self_modifying(self)

    def _operate(self, part: dict[str, Tensor], state: TitansState) -> tuple[Tensor, TitansState]:
        y, now = run_self_modifying(self, part["x"], part["q"], state.now)
        return y, TitansState(now, state.start, state.momentum, state.tails, state.position)
