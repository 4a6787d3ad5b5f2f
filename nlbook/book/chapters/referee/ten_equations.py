"""Ten printed equations and what holds in their place, each computed in float64 against a truth that needs neither.

    for slip in ten(seed=0):
        print(slip.label, slip.printed, slip.holds)      # distance of each form from the truth, relative to its size

The truth is autograd, an exact minimiser, torch's own optimizer, or plain counting. All slips of the paper, with their
tests, are in `nlbook.paper.errata()`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from nlbook.errors import generator, need

Draw = Callable[..., Tensor]
F64 = torch.float64


@dataclass(frozen=True)
class Slip:
    """equation: its number. asked: what the truth is. printed, holds: relative distances from it."""

    equation: int
    asked: str
    lesson: str
    printed: float
    holds: float

    @property
    def label(self) -> str:
        return f"eq. {self.equation}"


def distance(a: Tensor | float, truth: Tensor | float) -> float:
    """|a - truth| / |truth|; infinity where a is no number."""
    a, truth = (torch.as_tensor(x, dtype=F64) for x in (a, truth))
    far = float((a - truth).norm() / truth.norm())
    return far if math.isfinite(far) else math.inf


def gradient(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


def lowest(f: Callable[[Tensor], Tensor], like: Tensor) -> Tensor:
    """The exact minimiser of a convex quadratic: one Newton step."""
    zero = torch.zeros(like.numel(), dtype=F64)
    slope = torch.autograd.functional.jacobian(lambda z: f(z.view_as(like)), zero)
    bend = torch.autograd.functional.hessian(lambda z: f(z.view_as(like)), zero)
    return -torch.linalg.solve(bend, slope).view_as(like)


def eq_19(d: Draw) -> tuple[str, str, float, float]:
    W, x, y, eta = d(4, 3), d(3), d(4), 0.1
    truth = W - eta * gradient(lambda w: 0.5 * (w @ x - y).square().sum(), W)
    u = W @ x - y

    def box(sign: int) -> Tensor:
        return lowest(lambda z: sign * (z @ x) @ u + (z - W).square().sum() / (2 * eta), W)

    return (
        "one step of gradient descent",
        "a minus sign makes every box climb",
        distance(box(-1) - W, truth - W),
        distance(box(+1) - W, truth - W),
    )


def eq_28(d: Draw) -> tuple[str, str, float, float]:
    a, b, eta = d(6).abs() + 0.5, d(6), 0.3  # tasks a/2 (phi - b)^2, one inner step

    def after(phi: Tensor) -> Tensor:
        return (a / 2 * (phi - eta * a * (phi - b) - b).square()).sum()

    share = a * (1 - eta * a).square()  # what is left of a task's curvature after a step
    truth = (share * b).sum() / share.sum()
    printed = lowest(lambda phi: (a / 2 * (phi - b).square()).sum(), torch.zeros(1))
    return (
        "the start that is best after one inner step",
        "without the inner step it is plain joint training",
        distance(printed[0], truth),
        distance(lowest(after, torch.zeros(1))[0], truth),
    )


def eq_42(d: Draw) -> tuple[str, str, float, float]:
    U, _, Vh = torch.linalg.svd(d(4, 3), full_matrices=False)
    step = [eta * U @ Vh for eta in (0.1, 0.2)]  # what a rate is for

    def polar(m: Tensor) -> Tensor:
        u, _, vh = torch.linalg.svd(m, full_matrices=False)
        return u @ vh

    m = U @ torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=F64)) @ Vh
    return (
        "that twice the rate is twice the step",
        "the rate stands inside a map that ignores scale",
        distance(polar(0.2 * m) - polar(0.1 * m), step[1] - step[0]),
        distance(0.2 * polar(m) - 0.1 * polar(m), step[1] - step[0]),
    )


def eq_45(d: Draw) -> tuple[str, str, float, float]:
    share = torch.cumsum(0.1 * 0.9 ** torch.arange(100, dtype=F64), 0)
    truth = float((share < 0.99).sum()) + 1  # how many newest gradients make 99 %
    solved = float(math.ceil(math.log(0.01) / math.log(0.9)))
    return (
        "how many gradients make 99 % of momentum",
        "an index that counts from 0, read as a number",
        distance(43.0, truth),
        distance(solved, truth),
    )


def eq_49(d: Draw) -> tuple[str, str, float, float]:
    m, G, eta, keep = d(4, 3), d(4, 3), 0.1, 0.9
    truth = keep * m - eta * gradient(lambda z: 0.5 * (z @ G.T + torch.eye(4, dtype=F64)).square().sum(), m)
    eye = torch.eye(3, dtype=F64)
    return (
        "one gradient step on the stated loss",
        "the brake lacks the learning rate, and then diverges",
        distance(m @ (keep * eye - G.T @ G) - eta * G, truth),
        distance(m @ (keep * eye - eta * G.T @ G) - eta * G, truth),
    )


def eq_57(d: Draw) -> tuple[str, str, float, float]:
    W, x, u, eta = d(4, 3), 2 * d(3), d(4), 0.5
    truth = lowest(lambda z: 0.5 * (z @ x - u).square().sum() + (z - W).square().sum() / (2 * eta), W)

    def step(rate: float) -> Tensor:
        return W - rate * torch.outer(W @ x, x) + rate * torch.outer(u, x)

    return (
        "the exact minimiser of eq. 56",
        "right only for inputs of length one",
        distance(step(eta / (1 + eta)), truth),
        distance(step(eta / (1 + eta * float(x @ x))), truth),
    )


def eq_65(d: Draw) -> tuple[str, str, float, float]:
    M, k, v, eta = d(4, 4), d(4), d(4), 0.2
    truth = M - eta * gradient(lambda z: 0.5 * (z @ k - v).square().sum(), M)
    erase = torch.eye(4, dtype=F64) - eta * torch.outer(k, k)
    write = eta * torch.outer(v, k)
    return (
        "one gradient step on the squared error",
        "the eraser stands on the wrong side",
        distance(erase @ M + write, truth),
        distance(M @ erase + write, truth),
    )


def eq_71(d: Draw) -> tuple[str, str, float, float]:
    used = {"printed": [0] * 13, "holds": [0] * 13}
    for i in (4, 8, 12):  # chunks of 4 tokens, numbered from 1
        for t in range(i - 4, i + 1):
            used["printed"][t] += 1
        for t in range(i - 3, i + 1):
            used["holds"][t] += 1
    truth = torch.tensor([0.0] + [1.0] * 12, dtype=F64)  # every token once
    return (
        "that every token is learned once",
        "one term too many: tokens 4 and 8 twice, and a token 0",
        distance(torch.tensor(used["printed"], dtype=F64), truth),
        distance(torch.tensor(used["holds"], dtype=F64), truth),
    )


def eq_75(d: Draw) -> tuple[str, str, float, float]:
    g = 1 + 0.3 * d(30)

    def memory(beta: float, decay: bool) -> Tensor:
        m = torch.zeros((), dtype=F64)
        for x in g:
            m = (1 - beta if decay else 1.0) * m + beta * x
        return m

    weights = 0.1 * 0.9 ** torch.arange(29, -1, -1, dtype=F64)
    truth = (weights * g).sum()  # a moving average with rate 0.1
    return (
        "a moving average of gradients",
        "nothing decays: momentum is a plain sum",
        distance(memory(0.1, False), truth),
        distance(memory(0.1, True), truth),
    )


def eq_120(d: Draw) -> tuple[str, str, float, float]:
    W, x, g, eta = d(4, 3), d(3), d(4), 0.4
    truth = lowest(lambda z: 0.5 * (z @ x + g).square().sum() + (z - W).square().sum() / (2 * eta), W)
    c, norm = 1 / eta, float(x.norm())
    erase = W @ (torch.eye(3, dtype=F64) - torch.outer(x, x) / (norm**2 + c))
    bracket = norm / (norm**2 * c + c**2) - 1 / c
    rate = eta / (1 + eta * norm**2)
    return (
        "the exact minimiser that the appendix solves for",
        "two slips in a row: the result climbs",
        distance(erase - bracket * torch.outer(g, x), truth),
        distance(erase - rate * torch.outer(g, x), truth),
    )


TEN: dict[int, Callable[[Draw], tuple[str, str, float, float]]] = {
    19: eq_19,
    28: eq_28,
    42: eq_42,
    45: eq_45,
    49: eq_49,
    57: eq_57,
    65: eq_65,
    71: eq_71,
    75: eq_75,
    120: eq_120,
}


def slip(equation: int, seed: int = 0) -> Slip:
    """The printed form and the one that holds, on fresh random numbers."""
    need(equation in TEN, "equation", equation, f"one of {', '.join(map(str, TEN))}")
    g = generator(1000 * equation + seed)
    return Slip(equation, *TEN[equation](lambda *shape: torch.randn(*shape, generator=g, dtype=F64)))


def ten(seed: int = 0) -> Iterator[Slip]:
    """The ten, in the order of the paper."""
    return (slip(n, seed) for n in TEN)
