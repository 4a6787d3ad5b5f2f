"""Retention inside a chunk, in logarithms: decays over any stretch of tokens, exact however small a gate is.

A decay from token i to token t is exp(a_{i+1} + ... + a_t), a = log alpha. Its gradient belongs to each a in between:

    d a_s = sum over t >= s > i of dD_ti D_ti

Written as differences of cumulated sums, exp(g_t - g_i), autograd sums over all pairs and subtracts those that do not
cross s. They are of order 1, those that do cross are of order alpha_s, and so in float32 a gate of 1e-7 has no correct
digit left. Here only pairs that cross are summed. Forward nothing overflows, because masked differences are negative.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

SMALLEST = 1e-30  # what a gate of 0 counts as: the rule is linear in each gate, so its gradient is the same


class _LogGate(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(alpha):
        return alpha.clamp_min(SMALLEST).log()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        (alpha,) = ctx.saved_tensors
        return grad / alpha.clamp_min(SMALLEST)


class _Decay(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(a, before):
        g = a.cumsum(-1)
        to = pad(g, (1, -1)) if before else g
        return torch.exp((to[..., :, None] - g[..., None, :]).tril_(-before))

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.before = inputs[1]
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx, grad):
        (D,) = ctx.saved_tensors
        earlier = torch.ones(D.shape[-2:], dtype=D.dtype, device=D.device).triu(1)  # i < s
        return ((grad * D).tril(-1) @ earlier).tril(-ctx.before).sum(-2), None


def log_gate(alpha: Tensor) -> Tensor:
    """log alpha, for gates from 0 on."""
    return _LogGate.apply(alpha)


def decay(a: Tensor, before: bool = False) -> Tensor:
    """D_ti = exp(a_{i+1} + ... + a_t) for i <= t; `before`: to token t - 1, for i < t. (..., C) -> (..., C, C).

    Above that it holds ones: whoever needs zeros masks them away, and a triangular solve never looks at them.
    """
    return _Decay.apply(a, int(before))


def since_start(a: Tensor, before: bool = False) -> Tensor:
    """exp(a_1 + ... + a_t), or to token t - 1: what is left of the chunk-start state. (..., C) -> (..., C, 1)."""
    g = a.cumsum(-1)
    return (pad(g, (1, -1)) if before else g).exp()[..., None]


def until_end(a: Tensor) -> tuple[Tensor, Tensor]:
    """What is left at the chunk's end of what token i wrote, exp(a_{i+1} + ... + a_C), and of the chunk-start state.

    (..., C) -> (..., C, 1), (..., 1, 1).
    """
    g = a.flip(-1).cumsum(-1).flip(-1)
    return pad(g, (-1, 1)).exp()[..., None], g[..., :1].exp()[..., None]
