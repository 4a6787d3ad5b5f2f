"""What the paper derives, computed in float64: how far each statement is from exact, as printed and as corrected.

Each function draws random inputs by `seed` and returns two distances, the largest absolute difference of two ways to
compute the same thing: "holds" for the form that this book carries, "printed" for the paper's.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from nlbook import paper
from nlbook.book.coverage import checkout_tests
from nlbook.errors import generator
from nlbook.hope.mixers import LinearMixer
from nlbook.memory.dual import squared_loss, train_linear
from nlbook.memory.rules import dgd_rate
from nlbook.optim import adam_memory, momentum_weights
from nlbook.optim.momentum import momentum_objective, momentum_write
from nlbook.optim.muon import orthogonality_loss, orthogonality_step
from nlbook.titans import SelfModifyingTitans, Start
from nlbook.titans.reference import self_modifying_reference


def _draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator(seed), dtype=torch.float64)


def _far(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _slope(f: Any, x: Tensor) -> Tensor:
    x = x.detach().clone().requires_grad_()
    return torch.autograd.grad(f(x), x)[0]


def training_writes(*, seed: int) -> dict[str, float]:
    """Eq. 8-9: SGD on a linear layer is a memory of (input, surprise): the trained weights against the start plus the
    sum of the written pairs. "frozen": the same sum with the surprises of the untrained layer, as linear attention over
    the data would have it; that must differ.
    """
    W, xs, goal = _draw(seed, 4, 5), _draw(seed + 1000, 12, 5), _draw(seed + 2000, 12, 4)
    layer = torch.nn.Linear(5, 4, bias=False, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(W)
    for x, y in zip(xs, goal):
        loss = (layer(x) - y).square().sum() / 2
        layer.weight.grad = None
        loss.backward()
        with torch.no_grad():
            layer.weight -= 0.1 * layer.weight.grad  # type: ignore[operator]
    end = layer.weight.detach()
    far = _far(train_linear(W, xs, squared_loss(goal), 0.1).weight(), end)
    frozen = _far(train_linear(W, xs, squared_loss(goal), 0.1, frozen_surprises=True).weight(), end)
    return {"holds": far, "printed": far, "frozen": frozen}


def momentum_is_a_memory(*, seed: int) -> dict[str, float]:
    """Eq. 10-13: the momentum term is the minimiser of an inner problem about the gradient: its slope there is zero."""
    m, g = _draw(seed, 4, 3), _draw(seed + 1000, 4, 3)
    slope = _slope(lambda z: momentum_objective(z, m, g, 0.1), momentum_write(m, g, 0.1))
    far = _far(slope, torch.zeros_like(slope))
    return {"holds": far, "printed": far}


def linear_attention_descends(*, seed: int) -> dict[str, float]:
    """Eq. 15-18: linear attention, computed in parallel, is gradient descent on -<M k, v>, token by token."""
    mixer = LinearMixer(6, rule="linear", conv=0, activation="none", seed=seed).double()
    with torch.no_grad():
        mixer.gate.bias.fill_(50.0)  # rates of 1
    x = _draw(seed + 1000, 1, 40, 6)
    z, _ = mixer.qkv(x, mixer.qkv.tail(1))
    q, k, v = z[0, 0]
    q, k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    M, ys = torch.zeros(6, 6, dtype=torch.float64), []
    for t in range(40):
        M = M - _slope(lambda W, t=t: -(W @ k[t]) @ v[t], M)
        ys.append(M @ q[t])
    far = _far(mixer(x)[0][0].detach(), torch.stack(ys).detach())
    return {"holds": far, "printed": far}


def newton_schulz_descends(*, seed: int) -> dict[str, float]:
    """Eq. 43-44: a Newton-Schulz step is a gradient step on |O^T O - I|^2 (rate 1/8); the printed eq. 44 has a pull to
    the gradient besides, and after many steps its result is not orthogonal.
    """
    g = _draw(seed, 6, 4)
    g = 0.9 * g / torch.linalg.matrix_norm(g, 2)
    cubic = 1.5 * g - 0.5 * g @ g.mT @ g
    free = printed = g
    for _ in range(600):
        free, printed = orthogonality_step(free, None, 0.25), orthogonality_step(printed, g, 0.1)
    eye = torch.eye(4, dtype=torch.float64)
    step = _far(g - 0.125 * _slope(orthogonality_loss, g), cubic)
    return {"holds": max(step, _far(free.mT @ free, eye)), "printed": _far(printed.mT @ printed, eye)}


def adam_is_an_optimum(*, seed: int) -> dict[str, float]:
    """Eq. 101-105: Adam's step minimises a weighted squared error. "holds": with equal decay rates; "printed": with
    Adam's usual two (0.9, 0.999), the slope of the objective at Adam's step, in either weighting.
    """
    g, target = _draw(seed, 12, 6), _draw(seed + 1000, 6).abs() + 0.5
    slow, fast = adam_memory.discount(0.999, 12), adam_memory.discount(0.9, 12)

    def slope(step: Tensor, weights: Tensor) -> float:
        return float(_slope(lambda m: adam_memory.elementwise_loss(m, g, target, weights), step).abs().max())

    equal = fast @ g * target / (fast @ g.square())
    usual = fast @ g * target / (slow @ g.square())
    return {"holds": slope(equal, fast), "printed": min(slope(usual, fast), slope(usual, slow))}


def dgd_closed_form(*, seed: int) -> dict[str, float]:
    """Eq. 56-57: the minimiser of the squared loss in one step; the rate as corrected, and as printed (for inputs of
    length 1).
    """
    W, x, u, lr = _draw(seed, 4, 3), 2 * _draw(seed + 1000, 3), _draw(seed + 2000, 4), 0.4

    def step(rate: Any) -> Tensor:
        return W - rate * torch.outer(W @ x + u, x)

    def slope(Z: Tensor) -> float:
        objective = lambda V: (V @ x + u).square().sum() / 2 + (V - W).square().sum() / (2 * lr)  # noqa: E731
        return float(_slope(objective, Z).abs().max())

    return {"holds": slope(step(dgd_rate(x, lr))), "printed": slope(step(lr / (1 + lr)))}


def parallel_equals_sequential(*, seed: int) -> dict[str, float]:
    """Section 8.2: the chunk-parallel form of a self-modifying memory against its token loop, and (chunked) how far
    chunks of 16 are from the rule with chunks of one.
    """
    x = _draw(seed + 1000, 40, 8)

    def layer(chunk: int) -> SelfModifyingTitans:
        return SelfModifyingTitans(
            8, chunk=chunk, other_chunk=chunk, start=Start(mem_std=0.3, gate_std=0.5), seed=seed
        ).double()

    y = {c: layer(c)(x[None])[0][0].detach() for c in (1, 16)}
    far = max(_far(y[c], self_modifying_reference(layer(c), x)[0].detach()) for c in y)
    return {"holds": far, "printed": far, "chunked": _far(y[1], y[16])}


def horizon() -> dict[str, float]:
    """Section 4.3: how much of a momentum with decay 0.9 the last 6 (7) and 43 (44) gradients make up."""
    return {f"last {n}": float(momentum_weights(0.9, n).sum()) for n in (6, 7, 43, 44)}


def equations() -> dict[str, float]:
    """How the paper's numbered equations fare: of each status, and how many have no test in this checkout."""
    every, tests = paper.equations(), checkout_tests()
    out = {s: float(sum(e.status == s for e in every)) for s in ("ok", "conv", "open", "text", "slip")}
    return {
        "equations": float(len(every)),
        **out,
        "without a corrected form": float(sum(e.status == "slip" and not e.correct_latex for e in every)),
        "without a test": float(sum(not tests.get(e.number) and not e.definition_only for e in every)),
    }
