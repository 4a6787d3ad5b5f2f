"""What every optimizer of this room shares: checks, closures, state, and AdamW for what is no matrix.

An optimizer here is an associative memory of gradients: a *state* that is written once a step (`_update` of each class)
and read into the weights. State tensors lie where their parameter lies and have its dtype, or float32 for a parameter
in half precision: there the whole step is computed in float32 and rounded once, when the weights are written. Counters
are plain ints, so `state_dict()` holds nothing but tensors, numbers and strings: `torch.load(..., weights_only=True)`
reads it back, and a resumed run continues bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

from nlbook.errors import NLBookError, need, need_number

Group = dict[str, Any]


def plain(options: Group) -> Group:
    """Options with NumPy's numbers as Python's, which `state_dict` can be read back with."""
    return {k: v.item() if isinstance(v, np.generic) else v for k, v in options.items()}


def options(given: dict[str, Any], *apart: str) -> Group:
    """The arguments of a constructor, its `locals()`, as the defaults of a param group; without those kept `apart`."""
    return {k: v for k, v in given.items() if k not in ("self", "params", "__class__", *apart)}


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
            gradient; at `load_state_dict`, the state of another kind of optimizer.
    """

    _extras: tuple[str, ...] = ()  # attributes beside state and groups (maps given by the user) that a copy must carry
    # During a step: float32 copy -> the parameter in half precision that it stands for.
    _of: Mapping[Tensor, Tensor] = {}

    def __init__(self, params: Any, defaults: Group) -> None:
        many = isinstance(params, Iterable) and not isinstance(params, Tensor | str | Mapping)
        need(many, "params", type(params).__name__, "parameters or groups of them, such as model.parameters()")
        params = list(params)
        kinds = bool(params) and all(isinstance(p, Tensor | tuple | Mapping) for p in params)
        need(kinds, "params", [type(p).__name__ for p in params[:3]], "parameters, (name, parameter) pairs or groups")
        super().__init__(params, plain(defaults))

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in self._extras}}

    def add_param_group(self, param_group: Group) -> None:
        if isinstance(param_group, dict) and not isinstance(param_group["params"], set):
            params = param_group["params"]
            param_group = {**plain(param_group), "params": [params] if isinstance(params, Tensor) else list(params)}
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
            need_number("lr", group["lr"])
            params, grads = self._live(group)
            if any(p.element_size() < 4 for p in params):
                self._update_wide(group, params, grads)
            elif params:
                self._update(group, params, grads)
        return loss

    def _update_wide(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        """The update in float32 for parameters in half precision, rounded when it is written back."""
        wide = [p.float() if p.element_size() < 4 else p for p in params]
        self._of = dict(zip(wide, params))
        try:
            self._update(group, wide, [g.to(w.dtype) for g, w in zip(grads, wide)])
        finally:
            self._of = {}
        for p, w in zip(params, wide):
            if p is not w:
                p.copy_(w)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As torch's, but the state keeps its float32 beside weights in half precision. Options that an older version
        did not have take this optimizer's defaults.
        """
        saved = [i for group in state_dict["param_groups"] for i in group["params"]]
        for i in saved:
            ours = isinstance(state_dict["state"].get(i, {}).get("step", 0), int)
            need(ours, "state_dict", "the state of a torch.optim optimizer", f"one of {type(self).__name__}")
        super().load_state_dict(state_dict)
        for i, p in zip(saved, (p for group in self.param_groups for p in group["params"])):
            dtype = torch.float32 if p.element_size() < 4 else p.dtype
            for name, x in state_dict["state"].get(i, {}).items():
                self.state[p][name] = x.to(p.device, dtype, copy=True) if isinstance(x, Tensor) else x
        for group in self.param_groups:
            for name, default in self.defaults.items():
                group.setdefault(name, default)
            self._check_group(group)

    def _kept(self, p: Tensor) -> dict[str, Any]:
        """The state of a parameter, asked for by itself or by its float32 copy."""
        return self.state[self._of.get(p, p)]

    def _states(self, params: list[Tensor], *names: str) -> list[list[Tensor]]:
        """State tensors of the shape of their parameters, zero at first: one list a name."""
        for p in params:
            state = self._kept(p)
            for name in names:
                if name not in state:
                    state[name] = torch.zeros_like(p, memory_format=torch.preserve_format)
        return [[self._kept(p)[name] for p in params] for name in names]

    def _ticks(self, params: list[Tensor]) -> list[int]:
        """Count this step for each parameter (a frozen one has its own, slower clock) and return the counts."""
        for state in map(self._kept, params):
            state["step"] = state.get("step", 0) + 1
        return [self._kept(p)["step"] for p in params]


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
