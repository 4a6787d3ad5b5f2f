"""Nested systems that run: boxes of gradient flow (Def. 3-4 and 6-7; eq. 19-20 and 98-99 with their signs corrected).

Eq. 19 and 20 are printed with a minus before the gradient; that argmin climbs the loss. With the plus, each box takes
one proximal step on the *linearised* loss, which is a gradient step. Eq. 98 and 99 keep the whole loss: the proximal
point method, i.e. implicit gradient descent, equal to the explicit one only to first order in the rate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import NLBookError, need, need_float, need_shape
from nlbook.levels.order import Component, NestedSystem

Loss = Callable[..., Tensor]


def proximal_step(theta: Tensor, x: Tensor, signal: Tensor, lr: float) -> Tensor:
    """argmin_Phi <Phi x, signal> + |Phi - theta|^2 / (2 lr) = theta - lr signal x^T. Eq. 19, corrected sign.

    Args:
        theta: (out, in). x: (in,). signal: (out,), the gradient of the loss at the output theta x, a constant.

    For parameters that do not act linearly on x, use `explicit_step`.
    """
    need_shape("theta", theta, "out", "in")
    need_shape("x", x, theta.shape[-1])
    need_shape("signal", signal, theta.shape[-2])
    return theta - lr * torch.outer(signal, x)


def explicit_step(theta: Tensor, loss: Loss, *data: Any, lr: float) -> Tensor:
    """One explicit proximal (gradient) step. Eq. 19-20, corrected.

    argmin_Phi <Phi, grad loss(theta; data)> + |Phi - theta|^2 / (2 lr), for theta of any shape. With data = (k, v) and
    a key-to-value loss this is the associative memory of eq. 20.
    """
    need_float("theta", theta)
    with torch.enable_grad():
        leaf = theta.detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(leaf, *data), leaf)
    return theta.detach() - lr * g


def implicit_step(theta: Tensor, loss: Loss, *data: Any, lr: float, most: int = 50) -> Tensor:
    """argmin_Phi loss(Phi; data) + |Phi - theta|^2 / (2 lr), by Newton steps with the full Hessian. Eq. 98-99.

    The result satisfies theta' = theta - lr grad loss(theta'). Small parameters only (the Hessian is size x size); the
    sum must be convex, which a small `lr` ensures. Raises NLBookError when it does not settle.
    """
    need_float("theta", theta)
    start = theta.detach().reshape(-1)
    z = start.clone()

    def full(flat: Tensor) -> Tensor:
        return loss(flat.reshape(theta.shape), *data) + (flat - start).square().sum() / (2 * lr)

    for _ in range(most):
        g = torch.autograd.functional.jacobian(full, z)
        if float(g.norm()) * lr <= 1e-10 * (1 + float(z.norm())):
            return z.reshape(theta.shape)
        z = z - torch.linalg.solve(torch.autograd.functional.hessian(full, z), g)
    raise NLBookError(
        f"implicit_step: got a residual of {float(g.norm()):.2g} after {most} Newton steps, "
        "expected convergence; use a smaller lr"
    )


def implicit_delta(memory: Tensor, k: Tensor, v: Tensor, lr: float) -> Tensor:
    """Eq. 99 for 1/2 |M k - v|^2 in closed form: the delta rule at rate lr / (1 + lr |k|^2), stable for all lr > 0."""
    need_shape("memory", memory, "d_v", "d_k")
    need_shape("k", k, memory.shape[-1])
    need_shape("v", v, memory.shape[-2])
    return memory - lr / (1 + lr * k @ k) * torch.outer(memory @ k - v, k)


@dataclass
class Box:
    """One problem of a nested system: objective and context (Def. 3, without a feasible set; Def. 4 if the context is (k, v)).

    Args:
        name: its name; `theta`: its present parameter.
        loss: `loss(theta, others, *data) -> scalar`, where `others` maps every other box's name to its present
            parameter, a constant: each box has a gradient flow of its own.
        context: `context(time, others) -> data` (a tuple) for the update at `time` >= 1; a box may generate another's
            context.
        lr, period: step size, and time steps between two updates.
        needs: names of the boxes whose state of the *same* time the loss or the context reads. All others are seen as
            they were before this time step.
        implicit: eq. 98-99 instead of eq. 19-20.
    """

    name: str
    theta: Tensor
    loss: Loss
    context: Callable[[int, Mapping[str, Tensor]], tuple]
    lr: float
    period: int = 1
    needs: frozenset[str] = frozenset()
    implicit: bool = False
    updates: int = field(default=0, init=False)


def system_of(boxes: Sequence[Box]) -> NestedSystem:
    """The levels of a set of boxes."""
    return NestedSystem(
        [Component(b.name, period=b.period, needs=b.needs, size=b.theta.numel()) for b in boxes], "time step"
    )


def run(boxes: Sequence[Box], steps: int) -> None:
    """Run the nested system for `steps` time steps, in place. Eq. 19-20 (98-99 for implicit boxes).

    At each time, faster boxes go first, so that whoever needs their state of this time finds it; every other read sees
    the state before this time step.
    """
    by_name = {b.name: b for b in boxes}
    order = [by_name[n] for level in reversed(system_of(boxes).levels) for n in level]
    for time in range(1, steps + 1):
        before = {b.name: b.theta for b in boxes}
        for b in order:
            if time % b.period:
                continue
            others = {n: (o.theta if n in b.needs else before[n]).detach() for n, o in by_name.items() if o is not b}
            data = b.context(time, others)
            need(isinstance(data, tuple), f"{b.name}.context", type(data).__name__, "a tuple of data for the loss")
            step = implicit_step if b.implicit else explicit_step
            b.theta = step(b.theta, lambda theta, *d, b=b, o=others: b.loss(theta, o, *d), *data, lr=b.lr)
            b.updates += 1
