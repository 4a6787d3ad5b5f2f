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


def distance(a: Tensor, truth: Tensor) -> float:
    """|a - truth| / |truth|; infinity where a is no number."""
    far = float((a - truth).double().norm() / truth.double().norm())
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


# Each function draws its numbers and returns the truth, the printed form and the form that holds.
Three = tuple[Tensor, Tensor, Tensor]
EYE4 = torch.eye(4, dtype=F64)


def eq_19(d: Draw) -> Three:
    W, x, y, eta = d(4, 3), d(3), d(4), 0.1
    truth, u = W - eta * gradient(lambda w: 0.5 * (w @ x - y).square().sum(), W), W @ x - y

    def step(sign: int) -> Tensor:
        return lowest(lambda z: sign * (z @ x) @ u + (z - W).square().sum() / (2 * eta), W) - W

    return truth - W, step(-1), step(+1)


def eq_28(d: Draw) -> Three:
    a, b, eta = d(6).abs() + 0.5, d(6), 0.3  # tasks a/2 (phi - b)^2, one inner step

    def after(phi: Tensor) -> Tensor:
        return (a / 2 * (phi - eta * a * (phi - b) - b).square()).sum()

    share = a * (1 - eta * a).square()  # what is left of a task's curvature after a step
    printed = lowest(lambda phi: (a / 2 * (phi - b).square()).sum(), torch.zeros(1))
    return (share * b).sum() / share.sum(), printed[0], lowest(after, torch.zeros(1))[0]


def eq_42(d: Draw) -> Three:
    U, _, Vh = torch.linalg.svd(d(4, 3), full_matrices=False)

    def polar(m: Tensor) -> Tensor:
        u, _, vh = torch.linalg.svd(m, full_matrices=False)
        return u @ vh

    m = U @ torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=F64)) @ Vh
    return 0.1 * U @ Vh, polar(0.2 * m) - polar(0.1 * m), 0.2 * polar(m) - 0.1 * polar(m)


def eq_45(d: Draw) -> Three:
    share = torch.cumsum(0.1 * 0.9 ** torch.arange(100, dtype=F64), 0)
    solved = math.ceil(math.log(0.01) / math.log(0.9))
    return (share < 0.99).sum() + 1, torch.tensor(43), torch.tensor(solved)  # how many newest gradients make 99 %


def eq_49(d: Draw) -> Three:
    m, G, eta, keep = d(4, 3), d(4, 3), 0.1, 0.9
    truth = keep * m - eta * gradient(lambda z: 0.5 * (z @ G.T + EYE4).square().sum(), m)
    printed, holds = (m @ (keep * torch.eye(3, dtype=F64) - c * G.T @ G) - eta * G for c in (1, eta))
    return truth, printed, holds


def eq_57(d: Draw) -> Three:
    W, x, u, eta = d(4, 3), 2 * d(3), d(4), 0.5
    truth = lowest(lambda z: 0.5 * (z @ x - u).square().sum() + (z - W).square().sum() / (2 * eta), W)
    rates = eta / (1 + eta), eta / (1 + eta * float(x @ x))
    printed, holds = (W - rate * torch.outer(W @ x, x) + rate * torch.outer(u, x) for rate in rates)
    return truth, printed, holds


def eq_65(d: Draw) -> Three:
    M, k, v, eta = d(4, 4), d(4), d(4), 0.2
    truth = M - eta * gradient(lambda z: 0.5 * (z @ k - v).square().sum(), M)
    erase, write = EYE4 - eta * torch.outer(k, k), eta * torch.outer(v, k)
    return truth, erase @ M + write, M @ erase + write


def eq_71(d: Draw) -> Three:
    printed, holds = torch.zeros(13, dtype=F64), torch.zeros(13, dtype=F64)
    for i in (4, 8, 12):  # chunks of 4 tokens, numbered from 1
        printed[i - 4 : i + 1] += 1
        holds[i - 3 : i + 1] += 1
    return torch.tensor([0.0] + [1.0] * 12, dtype=F64), printed, holds  # every token once


def eq_75(d: Draw) -> Three:
    g = 1 + 0.3 * d(30)

    def memory(decay: bool) -> Tensor:
        m = torch.zeros((), dtype=F64)
        for x in g:
            m = (0.9 if decay else 1.0) * m + 0.1 * x
        return m

    weights = 0.1 * 0.9 ** torch.arange(29, -1, -1, dtype=F64)
    return (weights * g).sum(), memory(False), memory(True)  # a moving average with rate 0.1


def eq_120(d: Draw) -> Three:
    W, x, g, eta = d(4, 3), d(3), d(4), 0.4
    truth = lowest(lambda z: 0.5 * (z @ x + g).square().sum() + (z - W).square().sum() / (2 * eta), W)
    c, norm = 1 / eta, float(x.norm())
    erase = W @ (torch.eye(3, dtype=F64) - torch.outer(x, x) / (norm**2 + c))
    bracket = norm / (norm**2 * c + c**2) - 1 / c
    rate = eta / (1 + eta * norm**2)
    return truth, erase - bracket * torch.outer(g, x), erase - rate * torch.outer(g, x)


TEN: dict[int, tuple[Callable[[Draw], Three], str, str]] = {  # number -> function, what is asked, the lesson
    19: (eq_19, "one step of gradient descent", "a minus sign makes every box climb"),
    28: (
        eq_28,
        "the start that is best after one inner step",
        "without the inner step it is plain joint training",
    ),
    42: (eq_42, "that twice the rate is twice the step", "the rate stands inside a map that ignores scale"),
    45: (eq_45, "how many gradients make 99 % of momentum", "an index that counts from 0, read as a number"),
    49: (eq_49, "one gradient step on the stated loss", "the brake lacks the learning rate, and then diverges"),
    57: (eq_57, "the exact minimiser of eq. 56", "right only for inputs of length one"),
    65: (eq_65, "one gradient step on the squared error", "the eraser stands on the wrong side"),
    71: (
        eq_71,
        "that every token is learned once",
        "one term too many: tokens 4 and 8 twice, and a token 0",
    ),
    75: (eq_75, "a moving average of gradients", "nothing decays: momentum is a plain sum"),
    120: (
        eq_120,
        "the exact minimiser that the appendix solves for",
        "two slips in a row: the result climbs",
    ),
}


def slip(equation: int, seed: int = 0) -> Slip:
    """The printed form and the one that holds, on fresh random numbers."""
    need(equation in TEN, "equation", equation, f"one of {', '.join(map(str, TEN))}")
    g, (compute, asked, lesson) = generator(1000 * equation + seed), TEN[equation]
    truth, printed, holds = compute(lambda *shape: torch.randn(*shape, generator=g, dtype=F64))
    return Slip(equation, asked, lesson, distance(printed, truth), distance(holds, truth))


def ten(seed: int = 0) -> Iterator[Slip]:
    """The ten, in the order of the paper."""
    return (slip(n, seed) for n in TEN)
