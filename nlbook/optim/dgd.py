"""Delta gradient descent (eq. 56-57): the weights as a memory with a delta rule.

Gradient descent on a linear layer writes -grad_y x^T and never looks at what W answers for x (eq. 54-55). Delta
gradient descent replaces the dot product <W x, grad_y> by a regression on the same value u = -grad_y:

    W' = argmin_W  |W x - u|^2 / 2 + |W - W_t|_F^2 / (2 eta)
       = W (I - eta' x x^T) - eta' grad_y x^T,      eta' = eta / (1 + eta |x|^2).                        (eq. 56-57)

Errata: the paper has eta' = eta / (1 + eta), right only for |x| = 1 (the appendix carries |x| along, but drops a square
and flips a sign on the way: eq. 114-121). And a warning that the paper does not give: this is exactly SGD with rate
eta' on loss + |W x|^2 / 2. It shrinks outputs; on noiseless linear regression it converges to *half* the target map.

What the closed form needs and autograd does not keep is x, layer by layer: `attach(model)` records it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.errors import need, need_choice, need_number, need_shape
from nlbook.memory.rules import dgd_rate
from nlbook.optim.base import GradientMemory, Group, decay_

BATCH = ("joint", "mean")


def ridge_solve(W: Tensor, x: Tensor, c: float) -> Tensor:
    """W (I + c x^T x)^-1 for x (n, d_in), through the smaller of the two systems, (d_in, d_in) or (n, n).

    The small one is Sherman-Morrison-Woodbury, eq. 117 for more than one row.
    """
    n, d = x.shape
    if n < d:
        system = torch.eye(n, dtype=W.dtype, device=W.device) + c * x @ x.mT
        return W - c * torch.cholesky_solve(x @ W.mT, torch.linalg.cholesky(system)).mT @ x
    system = torch.eye(d, dtype=W.dtype, device=W.device) + c * x.mT @ x
    return torch.cholesky_solve(W.mT, torch.linalg.cholesky(system)).mT


def dgd_step(W: Tensor, x: Tensor, grad_y: Tensor, lr: float, batch: str = "joint", mean: bool = True) -> Tensor:
    """One DGD step as a function (eq. 56-57).

    Args:
        W: (d_out, d_in). x: (n, d_in) inputs, one sample a row.
        grad_y: (n, d_out), the gradient of the *whole* loss at the layer's outputs, as autograd gives it: for a loss
            that is a mean over samples it already contains the 1/n.
        lr: eta >= 0.
        batch: the paper treats one sample; for n of them both choices below are eq. 57 at n = 1.
            "joint": one problem for all, argmin_W sum_i w |W x_i - u_i|^2 / 2 + |W - W_t|^2 / (2 eta), solved exactly:
                W' = (W - eta sum_i grad_y_i x_i^T) (I + eta w X^T X)^-1. Inputs that resemble each other are erased
                once.
            "mean": the mean (sum, if not `mean`) of the n one-sample *steps*. Cheaper to think about; as a mean it
                writes less where inputs repeat than "joint" does, as a sum it may overshoot.
        mean: weight w = 1/n of a sample in the loss (True), or 1 (False, losses that are sums).
    """
    need_choice("batch", batch, BATCH)
    need_shape("x", x, "n", W.shape[1])
    need_shape("grad_y", grad_y, x.shape[0], W.shape[0])
    w = 1 / x.shape[0] if mean else 1.0
    if batch == "joint":
        return ridge_solve(W - lr * grad_y.mT @ x, x, lr * w)
    return W - ((w * (x @ W.mT) + grad_y) * dgd_rate(x, lr)[:, None]).mT @ x


class LinearRecorder:
    """Remembers what went through nn.Linear layers: an (x, grad_y) pair for each call whose gradient reached `.grad`
    since the last clear. What torch.autograd.grad computes in between is forgotten at the layer's next call.
    """

    def __init__(self) -> None:
        self.pairs: dict[Tensor, list[tuple[Tensor, Tensor]]] = {}
        self._waiting: dict[Tensor, dict[Tensor, Tensor]] = {}  # weight -> x of a call -> gradient, not in .grad yet
        self._hooks: list[Any] = []

    def attach(self, model: nn.Module, wanted: set[Tensor]) -> int:
        """Watch each nn.Linear in `model` whose weight is wanted; returns their number. Attaching again replaces."""
        self.detach()
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.weight in wanted:
                self._hooks.append(module.register_forward_hook(partial(self._watch, module.weight), with_kwargs=True))
                if module.weight not in self.pairs and module.weight.requires_grad:
                    self._hooks.append(module.weight.register_post_accumulate_grad_hook(self._reached))
                self.pairs[module.weight], self._waiting[module.weight] = [], {}
        return len(self.pairs)

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.pairs, self._waiting = [], {}, {}

    def clear(self) -> None:
        for weight, pairs in self.pairs.items():
            pairs.clear()
            self._waiting[weight].clear()

    def rows(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, d_in) and grad_y (n, d_out) of a watched weight; batch and length are samples alike."""
        pairs, shape = self.pairs[weight], tuple(weight.shape)
        came = f"a gradient but no recorded input for an attached Linear weight of shape {shape}"
        need(bool(pairs), "step", came, "a forward and a backward pass through its layer since the last step()")
        x, grad_y = (torch.cat([part.reshape(-1, part.shape[-1]) for part in side]) for side in zip(*pairs))
        return x, grad_y

    def _watch(self, weight: Tensor, module: nn.Module, args: tuple[Any, ...], kwargs: Any, output: Tensor) -> None:
        if torch.is_grad_enabled() and output.requires_grad:  # the gradient decides: an evaluation leaves no trace
            self._waiting[weight].clear()
            x = (args[0] if args else kwargs["input"]).detach()
            output.register_hook(partial(self._keep, weight, x))

    def _keep(self, weight: Tensor, x: Tensor, grad_y: Tensor) -> None:
        if weight in self._waiting:
            self._waiting[weight][x] = grad_y.detach()

    def _reached(self, weight: Tensor) -> None:
        """A gradient was added to weight.grad: what waited belongs to it."""
        self.pairs[weight] += self._waiting[weight].items()
        self._waiting[weight].clear()


class DGD(GradientMemory):
    """Delta gradient descent (eq. 56-57) for the weights of attached nn.Linear layers, SGD for everything else.

        optimizer = DGD(model.parameters(), lr=0.1).attach(model)

    Args:
        lr: eta, >= 0 (default 0.1); the step never overshoots along x however large it is: 1 - eta' |x|^2 =
            1/(1 + eta |x|^2) lies in (0, 1). Biases, norms and embeddings take W <- W - lr * grad with the same lr.
        batch: "joint" (default) | "mean", see `dgd_step`. A row of the layer's input is a sample: for (batch, length,
            d_in) there are batch * length, each with the weight 1/rows ("mean" reduction). Behind pooling or masking
            a row's true weight in the loss is not that; the erasing is then only as strong as this convention says.
        reduction: how the loss adds up its samples: "mean" (default) | "sum".
        weight_decay: decoupled (default 0); DGD already shrinks W along the inputs that it sees.

    There is no state: a resumed run needs the lr only. "joint" takes `weight.grad`, so clipped or accumulated gradients
    count as they stand; "mean" needs sample-wise gradients: the recorded ones, brought to the size of `weight.grad`, so
    that clipping and a GradScaler count too.
    """

    def __init__(
        self, params: Any, lr: float = 0.1, batch: str = "joint", reduction: str = "mean", weight_decay: float = 0.0
    ) -> None:
        self._recorder = LinearRecorder()
        super().__init__(params, {"lr": lr, "batch": batch, "reduction": reduction, "weight_decay": weight_decay})

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        need_choice("batch", group["batch"], BATCH)
        need_choice("reduction", group["reduction"], ("mean", "sum"))
        need_number("weight_decay", group["weight_decay"])

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        need(bool(self._recorder.pairs), "step", "no attached layer", "attach(model) before the forward pass")
        lr, mean = group["lr"], group["reduction"] == "mean"
        plain, new = [], []
        for p, g in zip(params, grads, strict=True):  # all of them before the first write
            weight = self._of.get(p, p)
            x, grad_y = self._recorder.rows(weight) if weight in self._recorder.pairs else (p[:0], p[:0])
            if not len(x):  # another kind of parameter, or a layer that saw no sample
                plain.append((p, g))
                continue
            x, grad_y = x.to(p.dtype), grad_y.to(p.dtype)
            if group["batch"] == "joint":
                new.append((p, ridge_solve(p - lr * g, x, lr / len(x) if mean else lr)))
            else:
                size = (grad_y.mT @ x).norm()
                grad_y = grad_y * torch.where(size > 0, g.norm() / size, 1)
                new.append((p, dgd_step(p, x, grad_y, lr, "mean", mean)))
        decay = lr * group["weight_decay"]
        for p, W in new:
            p.copy_(W - decay * p)
        if plain:
            decay_([p for p, _ in plain], decay)
            torch._foreach_add_([p for p, _ in plain], [g for _, g in plain], alpha=-lr)

    def attach(self, model: nn.Module) -> DGD:
        """Record the inputs of `model`'s nn.Linear layers from now on. Returns self.

        Not part of `state_dict`, nor of a copy: attach again after loading. Only calls of the layer itself are seen,
        not `F.linear(x, layer.weight)`.

        Raises:
            NLBookError: no nn.Linear of `model` belongs to this optimizer.
        """
        need(isinstance(model, nn.Module), "model", type(model).__name__, "a torch.nn.Module")
        found = self._recorder.attach(model, {p for group in self.param_groups for p in group["params"]})
        need(found > 0, "model", "no nn.Linear whose weight this optimizer holds", "at least one")
        return self

    def detach(self) -> None:
        """Remove the hooks and forget what was recorded."""
        self._recorder.detach()

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._recorder.clear()
        super().zero_grad(set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = super().step(closure)
        self._recorder.clear()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_recorder": LinearRecorder()}  # a copy has other layers: attach it to them
