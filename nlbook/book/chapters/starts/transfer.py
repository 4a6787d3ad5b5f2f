"""The five ways in which knowledge passes between two levels (section 3.3, eq. 24-28), each small enough to run by
hand.

    way                      who learns what from whom                        a gradient between the two?
    direct, parametric       the slow read uses the fast state (24-26)        no: each treats the other as a constant
    direct, non-parametric   the slow read uses the raw context (27)          no: nothing is trained in between
    backpropagation          one gradient flow, two update rates              yes
    initialisation           the slow level learns the fast one's start (28)  yes, through the start (MAML)
    generation               one level makes the other's weights or context   weights: yes; context: none needed

Columns in the formulas; here x, k, q, y are vectors and a weight acts as `W @ x`. Level 0 is slow, level 1 fast.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from nlbook.errors import need_shape


def direct(slow: Tensor, fast: Tensor, x: Tensor) -> Tensor:
    """y = M1 (W0 x): the slow projection asks, the fast memory answers. Eq. 24-26 (26 read with columns).

    The gradient of y reaches `slow` only: for the slow level the fast state is a constant. Shapes: slow (d_k, d), fast (d_v, d_k), x (d,) -> (d_v,).
    """
    need_shape("slow", slow, "d_k", "d")
    need_shape("fast", fast, "d_v", slow.shape[-2])
    need_shape("x", x, slow.shape[-1])
    return fast.detach() @ (slow @ x)


def direct_nonparametric(slow: Tensor, keys: Tensor, values: Tensor, x: Tensor) -> Tensor:
    """y = softmax(K W0 x) V: the slow block is conditioned on the raw context, a set; no state is trained. Eq. 27.

    Shapes: slow (d_k, d), keys (n, d_k), values (n, d_v), x (d,) -> (d_v,). Nothing passes back to the context's maker.
    """
    need_shape("slow", slow, "d_k", "d")
    need_shape("keys", keys, "n", slow.shape[-2])
    need_shape("values", values, keys.shape[-2], None)
    return torch.softmax(keys.detach() @ (slow @ x), 0) @ values.detach()


def backpropagate(
    theta0: Tensor, theta1: Tensor, x: Tensor, target: Tensor, lr0: float, lr1: float, *, move0: bool = True
) -> tuple[Tensor, Tensor]:
    """One gradient flow through both blocks, each with its own rate: y = Theta1 tanh(Theta0 x), loss 1/2 |y - target|^2.

        delta1 = y - target,  delta0 = (1 - tanh^2(Theta0 x)) * Theta1_t^T delta1      (Theta1 before its own update)

    The printed formulas of section 3.3 take the Jacobian at x and Theta1 at t+1 without transpose; those are not the
    gradient. `move0=False`: the slow block's period has not come yet; only the fast block moves.
    """
    need_shape("theta0", theta0, "h", "d")
    need_shape("theta1", theta1, "o", theta0.shape[-2])
    hidden = torch.tanh(theta0 @ x)
    delta1 = theta1 @ hidden - target
    delta0 = (1 - hidden**2) * (theta1.mT @ delta1)
    return theta0 - lr0 * torch.outer(delta0, x) if move0 else theta0, theta1 - lr1 * torch.outer(delta1, hidden)


def generate_weights(generator: Tensor, code: Tensor, shape: tuple[int, int]) -> Tensor:
    """Theta1 = g(M0): a hypernetwork. The weights of one level are the output of the other; the gradient reaches the
    generator.

    Shapes: generator (out * in, c), code (c,) -> (out, in).
    """
    need_shape("generator", generator, shape[0] * shape[1], "c")
    need_shape("code", code, generator.shape[-1])
    return (generator @ code).reshape(shape)


def generate_context(theta: Tensor, loss: Callable[[Tensor, object], Tensor], data: object) -> Tensor:
    """C1 = g(M0): what the architecture hands to its optimizer, its gradients, as plain data. No graph is attached."""
    with torch.enable_grad():
        leaf = theta.detach().requires_grad_()
        return torch.autograd.grad(loss(leaf, data), leaf)[0].detach()
