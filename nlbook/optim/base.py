"""What every optimizer of this room shares: checks, closures, state, and AdamW for what is no matrix.

An optimizer here is an associative memory of gradients: a *state* that is written once a step (`_update` of each class)
and read into the weights. State tensors have the dtype and the device of their parameter and counters are plain ints,
so `state_dict()` holds nothing but tensors, numbers and strings: `torch.load(..., weights_only=True)` reads it back,
and a resumed run continues bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from nlbook.errors import NLBookError, need_number

Group = dict[str, Any]


def as_matrix(p: Tensor) -> Tensor:
    """View a gradient as (rows, columns): a vector is one row (1, n), a convolution (out, in * height * width)."""
    return p.reshape(1, -1) if p.ndim < 2 else p.flatten(1)


class GradientMemory(Optimizer):
    """Base class. A subclass gives its defaults, `_check_group` and `_update(group, params, grads)`.

    Args:
        params: parameters, (name, parameter) pairs, or dicts of them (param groups), as for any torch optimizer.
        defaults: option -> default of a param group; plain numbers, strings, bools and None only.

    Raises:
        NLBookError: an option out of its range, a complex or integer parameter; at `step`, a sparse or complex
            gradient.
    """

    def __init__(self, params: Any, defaults: Group) -> None:
        super().__init__(params, defaults)

    _extras: tuple[str, ...] = ()  # attributes beside state and groups (maps given by the user) that a copy must carry

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self._extras}}

    def add_param_group(self, param_group: Group) -> None:
        if isinstance(param_group, dict) and not isinstance(param_group["params"], set):
            params = param_group["params"]
            param_group = {**param_group, "params": [params] if isinstance(params, Tensor) else list(params)}
            self._check_group({**self.defaults, **param_group})
        super().add_param_group(param_group)
        for p in self.param_groups[-1]["params"]:
            if not p.is_floating_point():
                self.param_groups.pop()
                raise NLBookError(
                    f"params: got a parameter of dtype {p.dtype}, expected a real floating-point dtype "
                    "(train the real and the imaginary part of a complex one separately)"
                )

    def _check_group(self, group: Group) -> None:
        need_number("lr", group["lr"])

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        raise NotImplementedError

    def _live(self, group: Group) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters of a group that have a gradient, and their gradients."""
        params = [p for p in group["params"] if p.grad is not None]
        for p in params:
            if p.grad.layout != torch.strided:
                raise NLBookError(
                    f"gradient: got a {p.grad.layout} one of shape {tuple(p.shape)}, expected "
                    "a dense one (sparse=False in nn.Embedding, or torch.optim.SparseAdam for it)"
                )
            if p.grad.is_complex():
                raise NLBookError(f"gradient: got dtype {p.grad.dtype}, expected a real floating-point dtype")
        return params, [p.grad for p in params]

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """Write the gradients into the memory and read it into the weights, once.

        Args:
            closure: optional; clears gradients, computes the loss, calls `backward` and returns the loss.

        Returns:
            What `closure` returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params, grads = self._live(group)
            if params:
                self._update(group, params, grads)
        return loss

    def _states(self, params: list[Tensor], *names: str) -> list[list[Tensor]]:
        """State tensors of the shape of their parameters, zero at first: one list a name."""
        for p in params:
            state = self.state[p]
            for name in names:
                if name not in state:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return [[self.state[p][name] for p in params] for name in names]

    def _ticks(self, params: list[Tensor]) -> list[int]:
        """Count this step for each parameter (a frozen one has its own, slower clock) and return the counts."""
        for p in params:
            self.state[p]["step"] = self.state[p].get("step", 0) + 1
        return [self.state[p]["step"] for p in params]


def decay_(params: list[Tensor], rate: float) -> None:
    """Decoupled weight decay: p <- (1 - rate) p, with rate = lr * weight_decay as in AdamW."""
    if rate:
        torch._foreach_mul_(params, 1 - rate)


def bias_corrected(tensors: list[Tensor], beta: float, steps: list[int]) -> list[Tensor]:
    """Divide moving averages that began at zero by the total weight that they have received so far, 1 - beta^t."""
    return list(torch._foreach_div(tensors, [1 - beta**t for t in steps]))


def adamw_(
    params: list[Tensor],
    grads: list[Tensor],
    first: list[Tensor],
    second: list[Tensor],
    steps: list[int],
    *,
    lr: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> None:
    """One AdamW step in place (Loshchilov and Hutter 2019): for vectors, embeddings and heads beside Muon and M3.

    Args:
        first, second: the moving averages of g and g*g, updated in place.
        steps: for each parameter how many gradients it has seen, this one included.
    """
    decay_(params, lr * weight_decay)
    torch._foreach_lerp_(first, grads, 1 - betas[0])
    torch._foreach_mul_(second, betas[1])
    torch._foreach_addcmul_(second, grads, grads, 1 - betas[1])
    down = torch._foreach_sqrt(second)
    torch._foreach_div_(down, [math.sqrt(1 - betas[1] ** t) for t in steps])
    torch._foreach_add_(down, eps)
    torch._foreach_addcdiv_(params, first, down, [-lr / (1 - betas[0] ** t) for t in steps])
