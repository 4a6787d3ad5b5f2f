"""Momentum is a memory of gradients: what it stores, how it is read, and how soon it forgets.

A step with momentum runs two coupled memories (eq. 10-11): the weights W, and inside them the momentum m, which is one
gradient step a step on a dot-product loss of its own (eq. 13, 34). Seen that way three questions open that plain
momentum answers by silence: which *key* it files a gradient under (eq. 51: a feature of it), which *value* it stores
(eq. 46-47: P G instead of G), and through which *non-linearity* it is read (eq. 52: Newton-Schulz makes it Muon).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import NLBookError, need, need_choice, need_int, need_number, need_shape
from nlbook.optim.base import GradientMemory, Group, as_matrix, decay_

Map = Callable[[Tensor], Tensor]


# --- how long momentum remembers (section 4.3) ---


def momentum_horizon(beta: float, share: float, period: int = 1) -> int:
    """How many of the latest gradients make up at least `share` of a moving average (section 4.3, with eq. 45).

    The gradient of i steps ago has the weight (1 - beta) beta^i, so the last n weigh 1 - beta^n. A slow momentum that
    is written every `period` steps (eq. 75) forgets once a period: its horizon is `period` times as long.

    Errata: the paper says 6 and 43 gradients for 50 % and 99 % at beta = 0.9. Those are the largest *index* i counted
    from 0; the *number* of gradients is 7 and 44.

    >>> momentum_horizon(0.9, 0.5), momentum_horizon(0.9, 0.99), momentum_horizon(0.9, 0.99, period=10)
    (7, 44, 440)
    """
    need_number("beta", beta, 0, 1, open_high=True)
    need_number("share", share, 0, 1, open_low=True, open_high=True)
    need_int("period", period)
    n = 1 if beta == 0 else max(1, math.ceil(math.log1p(-share) / math.log(beta)))
    while n > 1 and 1 - beta ** (n - 1) >= share:  # the quotient of two logarithms may lie a hair off an integer
        n -= 1
    while 1 - beta**n < share:
        n += 1
    return n * period


def momentum_weights(beta: float, n: int) -> Tensor:
    """Weights (n,) in float64 of the last n gradients in a moving average, the newest first: (1 - beta) beta^i."""
    need_number("beta", beta, 0, 1, open_high=True)
    need_int("n", n)
    return (1 - beta) * beta ** torch.arange(n, dtype=torch.float64)


# --- momentum as the solution of an inner problem (eq. 12-13, 34, 37) ---


def momentum_objective(m: Tensor, m_prev: Tensor, grad: Tensor, lr: float, keep: float = 1.0) -> Tensor:
    """The inner problem whose minimiser over `m` is the momentum after one write (eq. 12-13, 34).

    -<m, grad> + |m - m_prev|^2 / (2 lr) is minimal at m_prev + lr * grad (eq. 13, the sign of eq. 10-11: W <- W - m).
    Forgetting needs a weight that the text leaves out: with the linearised ridge (1 - keep)/lr * <m_prev, m> the
    minimiser is keep * m_prev + lr * grad (eq. 33 with m -> -m); the paper only says "plus an l2 regularisation".

    Args:
        m, m_prev, grad: tensors of the weights' shape; `grad` is a constant here.
        lr: write rate, > 0.
        keep: retention in (0, 1].

    Returns:
        A scalar; differentiable in `m`.
    """
    need_number("lr", lr, open_low=True)
    need_number("keep", keep, 0, 1)
    if m.shape != m_prev.shape or m.shape != grad.shape:
        raise NLBookError(
            f"m, m_prev, grad: got shapes {tuple(m.shape)}, {tuple(m_prev.shape)}, {tuple(grad.shape)}, "
            "expected the same three times"
        )
    drift = (m - m_prev).square().sum() / (2 * lr)
    return drift - (m * grad).sum() + (1 - keep) / lr * (m_prev * m).sum()


def momentum_write(m: Tensor, grad: Tensor, lr: float, keep: float = 1.0) -> Tensor:
    """Its minimiser in closed form, keep * m + lr * grad (eq. 11, 33, 100 in the sign of eq. 11)."""
    return keep * m + lr * grad


def key_value_momentum_loss(
    m: Tensor, key: Tensor, value: Tensor, objective: str = "dot", ridge: float = 0.0
) -> Tensor:
    """Generalised momentum (eq. 35-37): the loss of a memory m (d_out, d_in) with key = layer input, value = -error.

    "dot": -<m k, v>, one gradient step of rate eta adds eta v k^T, the heavy ball (eq. 34); with
    ridge = (1 - keep)/eta it also decays m by `keep`. "l2": |m k - v|^2 / 2, the delta rule. (Eq. 36 is an empty line.)

    Args:
        key: (d_in,). value: (d_out,).
        ridge: weight of |m|^2 / 2.
    """
    need_choice("objective", objective, ("dot", "l2"))
    need_shape("m", m, "d_out", "d_in")
    out = m @ key
    fit = -(out @ value) if objective == "dot" else (out - value).square().sum() / 2
    return fit + ridge / 2 * m.square().sum()


# --- preconditioners are memories too (eq. 38-41) ---


def preconditioner_write(P: Tensor, target: Tensor, grad: Tensor, lr: float) -> Tensor:
    """One gradient step on |P target - grad|^2 / 2 (eq. 40-41): key = the target system, value = the gradient.

    Errata: the printed eq. 41 starts from P_{t+1} on the right; it must be P_t.

    Args:
        P: (n, n). target, grad: (n,). lr: write rate zeta; stable for lr < 2 / |target|^2.
    """
    need_shape("P", P, "n", "n")
    need_shape("target", target, P.shape[-1])
    need_shape("grad", grad, P.shape[-1])
    return P - lr * torch.outer(P @ target - grad, target)


def preconditioned_step(w: Tensor, grad: Tensor, P: Tensor, lr: float) -> Tensor:
    """w - lr P^-1 grad (eq. 38-39). For P = C C^T this is plain gradient descent in the coordinates C^T w.

    Nothing in eq. 40 keeps a learned P invertible; a singular one raises torch.linalg.LinAlgError here.
    """
    return w - lr * torch.linalg.solve(P, grad)


# --- the optimizer ---


def odd_powers(grad: Tensor, powers: tuple[int, ...] = (1, 3)) -> Tensor:
    """Stack the element-wise powers of a gradient (p, q) to (len(powers) * p, q): a key feature for eq. 51.

    Odd powers keep the sign; an even power alone would forget which way is downhill.
    """
    for k in powers:
        need_int("powers", k)
    return torch.cat([grad**k for k in powers], 0)


def mix(coefficients: tuple[float, ...]) -> Map:
    """The value map P = [c_1 I, c_2 I, ...] (p, len * p) that brings stacked features back to the weights' shape."""

    def read(features: Tensor) -> Tensor:
        parts = features.chunk(len(coefficients), 0)
        return sum((c * f for c, f in zip(coefficients, parts, strict=True)), torch.zeros_like(parts[0]))

    return read


class Momentum(GradientMemory):
    """Momentum with a free key, value and read-out (eq. 33, 35-37, 46-47, 51-52). Plain heavy ball by default.

        m <- keep * m - P phi(G)          (write)
        W <- W + lr * sigma(m)            (read)

    Args:
        lr: step size, >= 0 (default 1e-2: SGD's usual size).
        keep: retention of the momentum in [0, 1) (default 0.9: 7 gradients make half of it, see `momentum_horizon`).
            Errata: the text after eq. 33 swaps the names of the two rates. keep = 1 (eq. 10-11) is refused: without
            decay the iteration has determinant 1 and never converges, not even on a quadratic.
        weight_decay: decoupled, as in AdamW (default 0).
        lr_at: "read" as above (default, torch's SGD), or "write": m <- keep m - lr P phi(G), W <- W + sigma(m), as eq.
            33 and 47 print it. The two agree for a constant rate and a linear sigma; a schedule scales the whole
            velocity with "read", only the new gradient with "write". With a scale-free sigma such as Newton-Schulz
            "write" cancels a constant lr altogether, the slip of eq. 42.
        feature: phi, a map (p, q) -> (p', q) of the gradient (eq. 51), for example `odd_powers`; default identity.
        value: P, a map (p', q) -> (p, q) (eq. 46-47), for example `mix((1., .5))` or `lambda G: P @ G`; default
            identity.
        output: sigma, a map (p, q) -> (p, q) (eq. 52); default identity. With `nlkernels.newton_schulz` this is Muon.

    Maps see every parameter as a matrix (a vector is one row) and are not part of `state_dict`: a resumed run must
    be built with the same ones. Eq. 52 writes m(u), but contains Muon only if the read-out is the state m itself.
    """

    _extras = ("feature", "value", "output")

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        keep: float = 0.9,
        weight_decay: float = 0.0,
        lr_at: str = "read",
        *,
        feature: Map | None = None,
        value: Map | None = None,
        output: Map | None = None,
    ) -> None:
        for name, f in (("feature", feature), ("value", value), ("output", output)):
            need(f is None or callable(f), name, type(f).__name__, "a callable or None")
        self.feature, self.value, self.output = feature, value, output
        super().__init__(params, {"lr": lr, "keep": keep, "weight_decay": weight_decay, "lr_at": lr_at})

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_number("keep", group["keep"], 0, 1, open_high=True)
        need_number("weight_decay", group["weight_decay"])
        need_choice("lr_at", group["lr_at"], ("read", "write"))

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        (m,) = self._states(params, "momentum")
        lr, write = group["lr"], group["lr"] if group["lr_at"] == "write" else 1.0
        stored = [apply_map("value", self.value, apply_map("feature", self.feature, g)) for g in grads]
        torch._foreach_mul_(m, group["keep"])
        torch._foreach_sub_(
            m, [back(s, g, "value(feature(gradient))") for s, g in zip(stored, grads, strict=True)], alpha=write
        )
        decay_(params, lr * group["weight_decay"])
        read = m if self.output is None else [back(apply_map("output", self.output, x), x, "output") for x in m]
        torch._foreach_add_(params, read, alpha=1.0 if group["lr_at"] == "write" else lr)


def apply_map(name: str, f: Map | None, x: Tensor) -> Tensor:
    """f(x as a matrix), or x itself when there is no map."""
    if f is None:
        return x
    out = f(as_matrix(x))
    need(isinstance(out, Tensor), name, f"a map that returned {type(out).__name__}", "a torch.Tensor")
    return out


def back(x: Tensor, like: Tensor, name: str) -> Tensor:
    """Reshape a matrix to the parameter's shape; raise if the map changed the number of elements."""
    need(
        x.numel() == like.numel(),
        name,
        f"shape {tuple(x.shape)}",
        f"{like.numel()} elements, to be added to a parameter of shape {tuple(like.shape)}",
    )
    return x.reshape(like.shape)
