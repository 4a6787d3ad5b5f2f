"""One level: an MLP, its derivative by hand, and what it gathers until its chunk is full."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from nlbook.cms.state import LevelState, Weights
from nlbook.errors import need, need_shape
from nlbook.numerics import silu_slope

Rows = dict[str, list[tuple[Tensor, Tensor]]]  # weight -> [(inputs (s, n, in), errors (s, n, out))]; gradient sum e a^T
Loss = Callable[[Tensor, Tensor], Tensor]  # (y, target) -> (batch, length); `loss.error(y, target)`, if any, is d / d y


def half_squared_error(y: Tensor, target: Tensor) -> Tensor:
    """1/2 |y - target|^2 per token."""
    return 0.5 * (y - target).square().sum(-1)


def _silu_back(e: Tensor, z: Tensor, a: Tensor) -> Tensor:
    if not torch.is_grad_enabled():
        return torch.ops.aten.silu_backward(e, z)  # one pass; has no derivative of its own
    s = torch.sigmoid(z)
    return e * silu_slope(s, a)


def _gelu_back(e: Tensor, z: Tensor, a: Tensor) -> Tensor:
    cdf = 0.5 * (1 + torch.erf(z / math.sqrt(2)))
    return e * (cdf + z * torch.exp(-0.5 * z * z) / math.sqrt(2 * math.pi))


# name -> (a = act(z), dz = e * act'(z) from e, z and a)
ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = {
    "silu": (F.silu, _silu_back),
    "gelu": (F.gelu, _gelu_back),
    "tanh": (torch.tanh, lambda e, z, a: e * (1 - a * a)),
    "relu": (torch.relu, lambda e, z, a: e * (z > 0)),
    "identity": (lambda z: z, lambda e, z, a: e),
}


@dataclass(frozen=True)
class MLP:
    """What the paper leaves open in a level: down act(up norm(h)).

    activation: "silu", "gelu", "tanh", "relu" or "identity". norm: rms(h) instead of h.
    """

    activation: str = "silu"
    norm: bool = True


def answer(mlp: MLP, w: Weights, n: Tensor, onto: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """down act(up n), added to `onto` if given; with what act saw (z) and said (a)."""
    z = n @ w["up"].mT
    a = ACTIVATIONS[mlp.activation][0](z)
    return a @ w["down"].mT if onto is None else torch.baddbmm(onto, a, w["down"].mT), z, a


def back(mlp: MLP, w: Weights, z: Tensor, a: Tensor, e: Tensor) -> Tensor:
    """From the error at a level's answer the error at its hidden layer."""
    return ACTIVATIONS[mlp.activation][1](e @ w["down"], z, a)


def add(rows: Rows, n: Tensor, a: Tensor, e: Tensor, dz: Tensor, weight: Tensor | None) -> None:
    """Rows of both weights of a level; the tokens' weights stay in the outer graph, first order or not."""
    if weight is not None:
        e, dz = weight[..., None] * e, weight[..., None] * dz
    rows.setdefault("down", []).append((a, e))
    rows.setdefault("up", []).append((n, dz))


def settle(s: LevelState, rows: Rows) -> None:
    """Turn pending rows into the gradient sum of the level's unfinished chunk."""
    if not rows:
        return
    total = {}
    for name, pairs in rows.items():
        a, e = pairs[0] if len(pairs) == 1 else tuple(torch.cat(t, 1) for t in zip(*pairs))
        g = e.mT @ a
        total[name] = g if s.buffer is None else s.buffer[name] + g
    s.buffer = total
    rows.clear()


def signal(y: Tensor, target: Tensor, loss: Loss, keep: bool) -> Tensor:
    """d loss / d y per token, with its graph if it is to be kept."""
    if loss is half_squared_error:
        need_shape("target", target, *y.shape)
        return y - target if keep else y.detach() - target.detach()
    if error := getattr(loss, "error", None):
        with torch.set_grad_enabled(keep):
            return error(y, target)
    with torch.enable_grad():
        at = y if keep and y.requires_grad else y.detach().requires_grad_()
        each = loss(at, target)
        need(
            tuple(each.shape) == tuple(y.shape[:2]),
            "loss",
            f"shape {tuple(each.shape)}",
            f"(batch, length) = {tuple(y.shape[:2])}, one number a token",
        )
        (e,) = torch.autograd.grad(each.sum(), at, create_graph=keep)
    return e
