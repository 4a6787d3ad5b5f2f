"""Deep momentum gradient descent, DMGD (eq. 50): the memory of gradients is a small network, its output is the step.

Eq. 50 leaves open what the network's key, value and loss are and what decays; the four are options here. The
combinations that have a name:

    key        value       objective  hidden   what the step is
    constant   gradient    dot        0        heavy ball, exactly (eq. 33)
    gradient   gradient    dot        0        -(sum keep^i u u^T) u: a covariance preconditions the gradient
    gradient   gradient    l2         0        a filter that learns -u from u: directions that keep coming back pass in
                                               full, directions seen for the first time hardly at all
    gradient   gradient    l2         > 0      the same with an MLP: deep momentum proper (default)
    gradient   ones        dot        0        eq. 50 to the letter: every step is a multiple of the all-ones vector, so
                                               the printed formula does not contain momentum (a test shows it)
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import generator, need_choice, need_int, need_number
from nlbook.optim.base import GradientMemory, Group, decay_, options


def read_memory(weights: list[Tensor], keys: Tensor) -> Tensor:
    """Output (d_v, n) of the memory for keys (d_k, n), its columns: A k, or B tanh(A k) / sqrt(hidden).

    The root keeps the features' length at most 1, so that the output layer's write is stable for rates below 2.
    """
    return weights[-1] @ features(weights, keys)


def features(weights: list[Tensor], keys: Tensor) -> Tensor:
    """What the output layer sees: the keys themselves, or the scaled hidden layer."""
    return keys if len(weights) == 1 else (weights[0] @ keys).tanh() / math.sqrt(len(weights[0]))


def memory_loss(weights: list[Tensor], keys: Tensor, values: Tensor, objective: str) -> Tensor:
    """The inner loss L^(2) of eq. 50, which the text prints as its gradient: sum over columns of a fit.

    "dot": -<m(k), v>; "l2": |m(k) - v|^2 / 2. Means over the columns, so that the rate does not depend on their number.
    """
    out = read_memory(weights, keys)
    fit = -(out * values).sum() if objective == "dot" else (out - values).square().sum() / 2
    return fit / keys.shape[1]


def memory_gradient(weights: list[Tensor], keys: Tensor, values: Tensor, objective: str) -> list[Tensor]:
    """Gradient of `memory_loss` by hand: two outer products (tested against autograd)."""
    seen = features(weights, keys)
    delta = (-values if objective == "dot" else weights[-1] @ seen - values) / keys.shape[1]
    if len(weights) == 1:
        return [delta @ keys.mT]
    root = math.sqrt(len(weights[0]))
    return [(weights[1].mT @ delta * (1 / root - root * seen.square())) @ keys.mT, delta @ seen.mT]


class DeepMomentum(GradientMemory):
    """DMGD (eq. 50): m <- keep * m - inner_lr * grad L2(m; key, value), then W <- W + lr * scale * m(key).

    Every parameter has a memory of its own. A parameter (p, q) is q keys, its columns, in R^p (a vector is one column),
    so the memory holds 2 p hidden numbers beside the weights' p q. Write first, then read, as eq. 33 does.

    Args:
        lr: factor on the memory's output, >= 0 (default 0.1). The paper has 1, with the rate inside the memory only.
        inner_lr: the memory's own rate eta, >= 0 (default 0.5). With normalised keys and the l2 objective the output
            layer is stable below 2: the features' covariance has a trace of at most 1.
        keep: retention of the memory's *parameters* in (0, 1] (default 0.99): eq. 50's alpha_{i+1} m_i decays weights,
            not outputs, so an MLP memory fades faster than linearly.
        hidden: width of the hidden tanh layer; 0 is a linear memory (default 16).
        key: "gradient" (default) | "constant" (the number 1: one memory slot for the whole flattened parameter).
        value: "gradient" (default: -u, the downhill direction) | "ones" (as printed, to study).
        objective: "l2" (default) | "dot".
        normalise: divide keys and values by the root mean square length of the columns and multiply the output by it
            (default True): steps then scale like the gradient, and one inner_lr serves all parameters. False is
            literal.
        seed: of the hidden layer's initial weights; the output layer starts at zero, so the first reads are small.
        weight_decay: decoupled (default 0).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        inner_lr: float = 0.5,
        keep: float = 0.99,
        hidden: int = 16,
        key: str = "gradient",
        value: str = "gradient",
        objective: str = "l2",
        normalise: bool = True,
        seed: int = 0,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, options(locals()))

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_number("inner_lr", group["inner_lr"])
        need_number("keep", group["keep"], 0, 1, open_low=True)
        need_int("hidden", group["hidden"], 0)
        need_choice("key", group["key"], ("gradient", "constant"))
        need_choice("value", group["value"], ("gradient", "ones"))
        need_choice("objective", group["objective"], ("dot", "l2"))
        need_choice("normalise", group["normalise"], (True, False))
        need_int("seed", group["seed"], 0)
        need_number("weight_decay", group["weight_decay"])

    def _memory(self, group: Group, p: Tensor, d_k: int, d_v: int) -> list[Tensor]:
        state = self._kept(p)
        if "output" not in state:
            h = group["hidden"]
            if h:
                random = torch.randn(h, d_k, generator=generator(group["seed"]), dtype=torch.float64)
                state["hidden"] = random.to(p)  # unit entries: normalised keys have about unit length
            state["output"] = p.new_zeros(d_v, h or d_k)
        return [state["hidden"], state["output"]] if "hidden" in state else [state["output"]]

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        decay_(params, group["lr"] * group["weight_decay"])
        for p, g in zip(params, grads, strict=True):
            if group["key"] == "constant":
                columns, keys = g.reshape(-1, 1), g.new_ones(1, 1)
            else:
                columns = g.reshape(-1, 1) if g.ndim < 2 else g.flatten(1)
                keys = columns
            scale = g.new_ones(())
            if group["normalise"]:  # by the largest entry first: squares of small or large ones leave the range
                top = columns.abs().amax() if g.numel() else scale
                top = torch.where(top >= torch.finfo(g.dtype).tiny, top, 1)
                scale = top * (columns / top).square().sum(0).mean().sqrt()
                scale = torch.where(scale > 0, scale, 1)
            if group["key"] == "gradient":
                keys = keys / scale
            values = -columns / scale if group["value"] == "gradient" else torch.ones_like(columns)
            weights = self._memory(group, p, keys.shape[0], values.shape[0])
            slope = memory_gradient(weights, keys, values, group["objective"])
            torch._foreach_mul_(weights, group["keep"])
            torch._foreach_add_(weights, slope, alpha=-group["inner_lr"])
            p.add_((read_memory(weights, keys) * scale).reshape(p.shape), alpha=group["lr"])
