"""Training is writing: a weight trained by gradient descent is an associative memory of its own errors.

One SGD step on a linear layer y = W x writes one pair, key x_t and value -surprise_t (eq. 8, 54):

    W_T = W_0 - sum_t lr_t surprise_t x_t^T,    so    W_T q = W_0 q - sum_t lr_t <x_t, q> surprise_t    (dual form)

The surprise is the gradient at the output, taken at the weights of that moment: the memory generates its own values
(eq. 58). Freeze the surprises at the start and the sum is linear attention over given values, and another answer.
`layer_surprises` shows the same for every linear layer of any torch model (eq. 29-31).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nlbook.errors import NLBookError, need, need_float, need_same, need_shape
from nlbook.memory.objectives import outer, recall

Surprise = Callable[[Tensor, int], Tensor]


def squared_loss(targets: Tensor) -> Surprise:
    """The surprise of 1/2 |y - target_t|^2: targets (T, d_out) -> a function (y (d_out), t) -> y - target_t."""
    need_shape("targets", targets, "T", "d_out")
    return lambda y, t: y - targets[t]


def cross_entropy(labels: Tensor) -> Surprise:
    """The surprise of the cross-entropy: labels (T) of int -> a function (y (d_out), t) -> softmax(y) - onehot."""
    came = f"{labels.dtype} {tuple(labels.shape)}"
    need(labels.ndim == 1 and not labels.is_floating_point(), "labels", came, "ints (T,)")
    return lambda y, t: torch.softmax(y, -1) - nn.functional.one_hot(labels[t], y.shape[-1]).to(y.dtype)


@dataclass(frozen=True)
class TrainingTrace:
    """What T steps of SGD wrote into a linear layer.

    start (d_out, d_in): W_0. keys (T, d_in): the inputs x_t. surprises (T, d_out): the gradients at the output.
    lr (T): the rates. `weight`, `predict` and `contributions` at step t count the first t writes (None: all of them).
    """

    start: Tensor
    keys: Tensor
    surprises: Tensor
    lr: Tensor

    def __len__(self) -> int:
        return self.keys.shape[0]

    def _steps(self, t: int | None) -> int:
        need(t is None or 0 <= t <= len(self), "t", t, f"None or an int from 0 to {len(self)}")
        return len(self) if t is None else t

    def weight(self, t: int | None = None) -> Tensor:
        """W_t (d_out, d_in): the start minus the sum of all writes (eq. 3: all past gradients at once)."""
        n = self._steps(t)
        return self.start - (self.lr[:n, None] * self.surprises[:n]).mT @ self.keys[:n]

    def contributions(self, q: Tensor, t: int | None = None) -> Tensor:
        """What each write adds to the answer at q (d_in): -lr_t <x_t, q> surprise_t, shape (t, d_out)."""
        need_shape("q", q, self.keys.shape[1])
        n = self._steps(t)
        return -(self.lr[:n] * (self.keys[:n] @ q)).unsqueeze(-1) * self.surprises[:n]

    def predict(self, q: Tensor, t: int | None = None) -> Tensor:
        """W_t q (d_out) in the dual form: the start's answer plus all contributions. No weight is ever built."""
        written = self.contributions(q, t).sum(0)
        return recall(self.start, q) + written


def train_linear(
    W0: Tensor, xs: Tensor, surprise: Surprise, lr: float | Tensor, *, frozen_surprises: bool = False
) -> TrainingTrace:
    """SGD on a linear layer (eq. 7), one sample a step (eq. 1, 8, 54, 58), with every write recorded.

    W0 (d_out, d_in), xs (T, d_in), surprise(y, t) -> gradient at the output (d_out), lr a number or (T).
    frozen_surprises=True is the negative control: every surprise is taken at W_0, as if the values were given
    from outside. That is linear attention over the data set; training is not.
    """
    need_float("W0", W0)
    need_shape("W0", W0, "d_out", "d_in")
    need_shape("xs", xs, "T", W0.shape[1])
    need_same("W0", W0, "xs", xs)
    rates = torch.as_tensor(lr, dtype=W0.dtype, device=W0.device)
    came = tuple(rates.shape)
    need(came in ((), (len(xs),)), "lr", f"shape {came}", f"a number or ({len(xs)},)")
    rates = rates.expand(len(xs))
    W, written = W0, []
    for t, x in enumerate(xs):
        s = surprise(recall(W0 if frozen_surprises else W, x), t)
        need_shape("surprise(y, t)", s, W0.shape[0])
        W = W - rates[t] * outer(s, x)  # eq. 8
        written.append(s)
    return TrainingTrace(W0, xs, torch.stack(written) if written else W0.new_zeros(0, W0.shape[0]), rates)


@dataclass(frozen=True)
class LayerSurprise:
    """One linear layer in one backward pass: n samples (tokens) went through it.

    keys (n, d_in): its inputs. surprise (n, d_out): the loss' gradient at its output, the local error signal delta.
    """

    name: str
    keys: Tensor
    surprise: Tensor

    @property
    def weight_grad(self) -> Tensor:
        """dL/dW (d_out, d_in): a sum of rank-one writes, surprise times key (eq. 29)."""
        return self.surprise.mT @ self.keys

    @property
    def bias_grad(self) -> Tensor:
        """dL/db (d_out): the surprise itself, summed (not printed in the paper)."""
        return self.surprise.sum(0)

    def step(self, W: Tensor, lr: float) -> Tensor:
        """The weight after one SGD step: W minus lr times every write (eq. 30)."""
        return W - lr * self.weight_grad


def layer_surprises(model: nn.Module, loss: Callable[[], Tensor]) -> dict[str, LayerSurprise]:
    """Keys and local error signals of every nn.Linear of `model`: name -> LayerSurprise (eq. 22-23, 29-31).

    loss: a function without arguments that runs the model and gives the scalar loss. Nothing is changed: no .grad is
    written, hooks are taken off again. A layer that is called twice shows the pairs of both calls.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> found = layer_surprises(net, lambda: net(torch.ones(1, 2)).sum())[""]
    >>> found.keys, found.surprise
    (tensor([[1., 1.]]), tensor([[1.]]))
    """
    calls: list[tuple[str, Tensor, Tensor]] = []
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    need(bool(layers), "model", type(model).__name__, "a module with at least one nn.Linear")

    def hook(name: str) -> Callable[..., None]:
        return lambda _, inputs, output: calls.append((name, inputs[0].detach(), output))

    handles = [layer.register_forward_hook(hook(name)) for name, layer in layers.items()]
    try:
        with torch.enable_grad():
            value = loss()
    finally:
        for handle in handles:
            handle.remove()
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.requires_grad:
        came = getattr(value, "shape", type(value).__name__)
        raise NLBookError(f"loss: got {came}, expected a scalar that depends on the model")
    need(bool(calls), "loss", "a loss that never ran a linear layer", "one that calls the model")
    grads = torch.autograd.grad(value, [y for _, _, y in calls], allow_unused=True)
    found: dict[str, LayerSurprise] = {}
    for (name, x, y), g in zip(calls, grads):
        keys, delta = x.reshape(-1, x.shape[-1]), torch.zeros_like(y) if g is None else g
        pair = LayerSurprise(name, keys, delta.detach().reshape(-1, y.shape[-1]))
        old = found.get(name)
        found[name] = (
            pair
            if old is None
            else LayerSurprise(name, torch.cat([old.keys, pair.keys]), torch.cat([old.surprise, pair.surprise]))
        )
    return found


def local_errors(weights: Sequence[Tensor], slopes: Sequence[Tensor], top: Tensor) -> list[Tensor]:
    """Eq. 29 by hand: delta_l = J_l^T (W_{l+1}^T delta_{l+1}), from the top down.

    weights W_1..W_L; slopes J_1..J_L, the Jacobians (d_l, d_l) of the activations at their pre-activations;
    top: the loss' gradient at the last activation. Returns delta_1..delta_L, gradients at the pre-activations.
    """
    need(len(weights) == len(slopes) >= 1, "slopes", len(slopes), f"{len(weights)}, one for each weight")
    deltas = [slopes[-1].mT @ top]
    for W, J in zip(reversed(weights[1:]), reversed(slopes[:-1])):
        deltas.append(J.mT @ (W.mT @ deltas[-1]))
    return deltas[::-1]
