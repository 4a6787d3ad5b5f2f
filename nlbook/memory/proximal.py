"""A gradient step as the answer to a small problem: fit a little, stay close (eq. 2-3, 9, 31, 54-60, 112-121).

Each function comes as a pair: the objective that is minimised, and its minimiser in closed form.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from nlbook.errors import need, need_shape
from nlbook.memory.objectives import outer, recall
from nlbook.memory.rules import dgd_rate


def distance(W: Tensor, centre: Tensor, lr: float) -> Tensor:
    """1/(2 lr) |W - centre|_F^2: the price of leaving `centre`. The norm that eq. 2 leaves open must be Frobenius."""
    need(lr > 0, "lr", lr, "a rate above 0")
    return (W - centre).square().sum() / (2 * lr)


# ---- gradient descent ----


def gd_step(W: Tensor, grad: Tensor, lr: float) -> Tensor:
    """W - lr grad (eq. 1, 32; the two differ in the index of the rate only)."""
    return W - lr * grad


def gd_objective(W: Tensor, W_t: Tensor, grad: Tensor, lr: float) -> Tensor:
    """<grad, W> + 1/(2 lr) |W - W_t|^2 with grad a constant; its minimiser is `gd_step` (eq. 2)."""
    return (grad * W).sum() + distance(W, W_t, lr)


def spectral_step(W: Tensor, grad: Tensor, lr: float) -> Tensor:
    """The minimiser of eq. 2 with its norm read as the spectral norm: W - lr |grad|_* U V^T, Muon's direction."""
    U, S, Vh = torch.linalg.svd(grad, full_matrices=False)
    return W - lr * S.sum() * U @ Vh


def ftrl_objective(W: Tensor, W_1: Tensor, grads: Tensor, lr: float) -> Tensor:
    """<sum of grads (T, ...), W> + 1/(2 lr) |W - W_1|^2: follow the regularised leader (eq. 3).

    Its minimiser is T steps of GD at once, for a constant rate and no constraints; not otherwise.
    """
    return (grads.sum(0) * W).sum() + distance(W, W_1, lr)


def layer_objective(W: Tensor, W_t: Tensor, x: Tensor, surprise: Tensor, lr: float) -> Tensor:
    """<W x, surprise> + 1/(2 lr) |W - W_t|^2: the SGD step of a linear layer as a memory problem (eq. 9, 31, 55, 112).

    surprise (d_out) is a constant, taken at W_t. The second form printed in eq. 9 has x_t where x_{t+1} belongs.
    """
    return recall(W, x) @ surprise + distance(W, W_t, lr)


def layer_step(W: Tensor, x: Tensor, surprise: Tensor, lr: float) -> Tensor:
    """W - lr surprise x^T (eq. 8, 30, 54): the minimiser of `layer_objective`."""
    return W - lr * outer(surprise, x)


# ---- delta gradient descent ----


def dgd_objective(W: Tensor, W_t: Tensor, x: Tensor, surprise: Tensor, lr: float) -> Tensor:
    """1/2 |W x + surprise|^2 + 1/(2 lr) |W - W_t|^2: regress on u = -surprise, a constant (eq. 56, 113)."""
    return 0.5 * (recall(W, x) + surprise).square().sum() + distance(W, W_t, lr)


def dgd_step(W: Tensor, x: Tensor, surprise: Tensor, lr: float, form: str = "exact") -> Tensor:
    """W (I - eta' x x^T) - eta' surprise x^T, the minimiser of `dgd_objective` (eq. 57); `form` as in `dgd_rate`."""
    return W - dgd_rate(x, lr, form) * outer(recall(W, x) + surprise, x)


def dgd_stationarity(W: Tensor, W_t: Tensor, x: Tensor, surprise: Tensor, lr: float, form: str = "corrected") -> Tensor:
    """Eq. 114, zero at the minimiser: (W x + surprise) x^T + 1/lr (W - W_t).

    form="printed": (W x - surprise) x^T + lr (W - W_t), a sign lost and lr upside down.
    """
    need(form in ("corrected", "printed"), "form", repr(form), "'corrected' or 'printed'")
    if form == "printed":
        return outer(recall(W, x) - surprise, x) + lr * (W - W_t)
    return outer(recall(W, x) + surprise, x) + (W - W_t) / lr


def dgd_derivation(W_t: Tensor, x: Tensor, surprise: Tensor, lr: float) -> dict[int, Tensor]:
    """The appendix' derivation of DGD line by line, corrected: equation number -> the new weight W as that line has it.

    eq. 115-116: (-surprise x^T + W_t/lr) (x x^T + I/lr)^-1; eq. 118: with the inverse of eq. 117; eq. 119: multiplied
    out; eq. 120: collected, with lambda^2 where lambda is printed; eq. 121: W_t (I - a x x^T) - a surprise x^T with
    a = lr / (1 + lr lambda^2). lambda = |x|. All are one matrix.
    """
    need_shape("x", x, W_t.shape[1])
    need_shape("surprise", surprise, W_t.shape[0])
    eye, xx, write = torch.eye(len(x), dtype=x.dtype, device=x.device), outer(x, x), outer(surprise, x)
    h, lam2 = 1 / lr, x @ x  # the appendix writes eta_t for this h from eq. 114 on
    right = -write + h * W_t
    erase = W_t @ (eye - xx / (lam2 + h))
    a = dgd_rate(x, lr)
    return {
        116: right @ torch.linalg.inv(xx + h * eye),
        118: right @ sherman_morrison(x, h),
        119: erase - write / h + write @ xx / (lam2 * h + h**2),
        120: erase + (lam2 / (lam2 * h + h**2) - 1 / h) * write,
        121: W_t @ (eye - a * xx) - a * write,
    }


def sherman_morrison(x: Tensor, h: float) -> Tensor:
    """(x x^T + h I)^-1 = 1/h (I - x x^T / (|x|^2 + h)) (eq. 117, correct as printed)."""
    return (torch.eye(len(x), dtype=x.dtype, device=x.device) - outer(x, x) / (x @ x + h)) / h


# ---- generalised gradient descent (Definition 5) ----


def ggd_objective(W: Tensor, states: Sequence[Tensor], x: Tensor, value: Tensor, lr: float, fit: str = "dot") -> Tensor:
    """fit(W; x, value) + sum over the past states of 1/(2 lr) |W - W_i|^2 (eq. 59, with the W that its fit term lacks).

    value: u_t = f_{W_t}(x_t), generated by the memory itself and then held fixed (eq. 60); for training u = -surprise.
    fit: "dot" -<W x, u>, or "l2" 1/2 |W x - u|^2.
    """
    need(fit in ("dot", "l2"), "fit", repr(fit), "'dot' or 'l2'")
    need(len(states) >= 1, "states", len(states), "at least one past state")
    y = recall(W, x)
    misfit = -(y @ value) if fit == "dot" else 0.5 * (y - value).square().sum()
    return misfit + sum(distance(W, S, lr) for S in states)


def ggd_step(states: Sequence[Tensor], x: Tensor, value: Tensor, lr: float, fit: str = "dot") -> Tensor:
    """The minimiser of `ggd_objective`: a step from the mean of the c past states at rate lr/c (eq. 59-60).

    One state: GD for "dot", DGD for "l2".
    """
    need(fit in ("dot", "l2"), "fit", repr(fit), "'dot' or 'l2'")
    need(len(states) >= 1, "states", len(states), "at least one past state")
    mean, rate = torch.stack(list(states)).mean(0), lr / len(states)
    if fit == "dot":
        return mean + rate * outer(value, x)
    return dgd_step(mean, x, -value, rate)
