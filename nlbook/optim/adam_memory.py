"""Adam and AdaGrad as memories of gradients (appendix B, eq. 100-111): discounted least squares, solved in closed form.

The memory m answers: which element-wise multiplier turns the past (negative) gradients g_i into a target P?

    m* = argmin_m  sum_i w_i |m * g_i - P|^2 + ridge |m|^2  =  (sum w g) P / (sum w g^2 + ridge)     (eq. 101-102)

With the target P = sqrt(sum w g^2) and no ridge this is sum w g / sqrt(sum w g^2): Adam, *if* numerator and denominator
carry the same weights w, that is beta_1 = beta_2. Adam's usual (0.9, 0.999) minimises no such objective.

What the printed derivation gets wrong, each shown by a test: the step's sign (g is the *negative* gradient, so m* is
added: eq. 103-105, 111); the recursion of M-tilde starts from M (102, 109); moments are sums without decay, which makes
eq. 105 AdaGrad with summed momentum rather than Adam and contradicts the remark that beta_1 = 1 gives AdaGrad; eq.
104's factor is 1/beta_2, not beta_2; the inverse in 107 stands on the wrong side; and for eq. 111's matrix target P the
residual m g - P of eq. 106 subtracts a matrix from a vector.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from nlbook.errors import need, need_choice, need_int, need_number, need_shape
from nlbook.optim.base import GradientMemory, Group, bias_corrected, decay_, options


def discount(beta: float, n: int, normalised: bool = False) -> Tensor:
    """Weights (n,) in float64, the newest last: (1 - beta) beta^(n-1-i), or 1 for beta = 1 (a plain sum, as printed).

    `normalised` divides by their sum, 1 - beta^n: Adam's bias correction.
    """
    need_number("beta", beta, 0, 1)
    need_int("n", n)
    w = beta ** torch.arange(n - 1, -1, -1, dtype=torch.float64) * (1 - beta if beta < 1 else 1.0)
    return w / w.sum() if normalised else w


def elementwise_loss(
    m: Tensor, grads: Tensor, target: Tensor, weights: Tensor | None = None, ridge: float = 0.0
) -> Tensor:
    """sum_i w_i |m * g_i - P|^2 + ridge |m|^2 (eq. 101).

    Args:
        m, target: (n,). grads: (t, n), g_i = -gradient. weights: (t,), or None for ones (as printed).
    """
    need_shape("grads", grads, "t", m.shape[-1])
    w = grads.new_ones(len(grads)) if weights is None else weights
    return (w[:, None] * (m * grads - target).square()).sum() + ridge * m.square().sum()


def elementwise_optimum(grads: Tensor, target: Tensor, weights: Tensor | None = None, ridge: float = 0.0) -> Tensor:
    """The minimiser of `elementwise_loss`: (sum w g) P / (sum w g^2 + ridge) (eq. 102 with one set of weights)."""
    w = grads.new_ones(len(grads)) if weights is None else weights
    size = w @ grads.square() + ridge
    return w @ grads * target / torch.where(size > 0, size, 1)  # no gradient, no ridge: any m is as good, 0 is returned


def outer_loss(m: Tensor, grads: Tensor, target: Tensor, ridge: float = 0.0) -> Tensor:
    """sum_i |m g_i - P|^2 + ridge |m|_F^2 for a full matrix memory (eq. 106).

    Args:
        m: (n, N). grads: (t, N). target: P, (n,): it must be a vector for the formula to type-check.
    """
    need_shape("m", m, "n", "N")
    need_shape("grads", grads, "t", m.shape[1])
    need(target.shape == m.shape[:1], "target", f"shape {tuple(target.shape)}", f"({m.shape[0]},), a vector")
    return (grads @ m.mT - target).square().sum() + ridge * m.square().sum()


def outer_optimum(grads: Tensor, target: Tensor, ridge: float = 0.0) -> Tensor:
    """Its minimiser, P (sum g)^T (H + ridge I)^-1 with H = sum g g^T (eq. 107-110; the inverse stands on the right)."""
    H = grads.mT @ grads + ridge * torch.eye(grads.shape[1], dtype=grads.dtype, device=grads.device)
    return torch.linalg.solve(H, torch.outer(target, grads.sum(0)), left=False)


class AdamMemory(GradientMemory):
    """The discounted least-squares memory as an optimizer (eq. 101-105, corrected): W <- W + lr m*, g = -gradient.

        M <- beta M + (1 - beta) g,   H <- beta H + (1 - beta) g^2,   m* = M P / (H + ridge)

    Args:
        lr: >= 0 (default 1e-3, as Adam's).
        beta: retention of both moments, in [0, 1) (default 0.95).
        target: the property P that m should produce from g. "root" (default): P = sqrt(H), which is Adam with beta_1 =
            beta_2 = beta (eq. 105); "square": P = H, a moving average, momentum (eq. 104); "one": P = 1, which divides
            by the squared gradient and so steps like 1/|g|: the naive regression, unstable near a minimum, to study.
        ridge: >= 0 (default 0). For "root" the exact factor is sqrt(H)/(H + ridge), not 1/(sqrt(H) + eps).
        eps: added to sqrt(H) for target="root" and ridge = 0 only, as Adam's (default 1e-8), so that 0/0 cannot happen.
        bias_correction: divide M and H by 1 - beta^t (default True): the weights then sum to one from the first step.
        weight_decay: decoupled (default 0).
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        beta: float = 0.95,
        target: str = "root",
        ridge: float = 0.0,
        eps: float = 1e-8,
        bias_correction: bool = True,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, options(locals()))

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_number("beta", group["beta"], 0, 1, open_high=True)
        need_choice("target", group["target"], ("root", "square", "one"))
        need_number("ridge", group["ridge"])
        need_number("eps", group["eps"])
        need_choice("bias_correction", group["bias_correction"], (True, False))
        need_number("weight_decay", group["weight_decay"])

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        beta, target, ridge, lr = group["beta"], group["target"], group["ridge"], group["lr"]
        steps = self._ticks(params)
        M, H = self._states(params, "first", "second")
        torch._foreach_mul_(M, beta)
        torch._foreach_sub_(M, grads, alpha=1 - beta)
        torch._foreach_mul_(H, beta)
        torch._foreach_addcmul_(H, grads, grads, 1 - beta)
        decay_(params, lr * group["weight_decay"])
        if target == "root" and ridge == 0:  # Adam's path: the corrections ride along as scalars
            total = [1 - beta**t if group["bias_correction"] else 1.0 for t in steps]
            root = list(torch._foreach_sqrt(H))
            torch._foreach_div_(root, [math.sqrt(w) for w in total])
            torch._foreach_add_(root, group["eps"])
            torch._foreach_addcdiv_(params, M, root, [lr / w for w in total])
            return
        if group["bias_correction"]:
            M, H = bias_corrected(M, beta, steps), bias_corrected(H, beta, steps)
        if target == "square":
            scaled = M if ridge == 0 else [m * h / (h + ridge) for m, h in zip(M, H, strict=True)]
            torch._foreach_add_(params, scaled, alpha=lr)
        else:
            up = [m * h.sqrt() for m, h in zip(M, H, strict=True)] if target == "root" else M
            torch._foreach_addcdiv_(params, up, [h + (ridge or group["eps"]) for h in H], lr)


def inverse_root(H: Tensor, ridge: float, x: Tensor) -> Tensor:
    """(H + ridge lambda_max I)^(-1/2) x for a symmetric H (N, N); zero if H is (eq. 106-111, corrected).

    The step of full-matrix AdaGrad, with H = sum g g^T and x the gradient or a memory of it.
    """
    values, vectors = torch.linalg.eigh(H)
    top = values[-1]
    if top <= 0:
        return torch.zeros_like(x)
    return vectors @ ((vectors.mT @ x) / (values.clamp(min=0) + ridge * top).sqrt())
