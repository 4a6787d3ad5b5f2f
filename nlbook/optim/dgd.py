"""Delta gradient descent (eq. 56-57) and its general form (eq. 59-60): the weights as a memory with a delta rule.

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

from nlbook.errors import NLBookError, need, need_shape
from nlbook.optim.base import GradientMemory, Group, choice, count, decay_, number

BATCH = ("joint", "mean")


def dgd_rate(lr: float | Tensor, x: Tensor) -> Tensor:
    """eta' = eta / (1 + eta |x|^2) for each row of x (..., d_in) (eq. 57, corrected; eq. 121). Always below 1/|x|^2."""
    return lr / (1 + lr * x.square().sum(-1))


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
    choice("batch", batch, BATCH)
    need_shape("x", x, "n", W.shape[1])
    need_shape("grad_y", grad_y, x.shape[0], W.shape[0])
    w = 1 / x.shape[0] if mean else 1.0
    if batch == "joint":
        return ridge_solve(W - lr * grad_y.mT @ x, x, lr * w)
    return W - ((w * (x @ W.mT) + grad_y) * dgd_rate(lr, x)[:, None]).mT @ x


class LinearRecorder:
    """Remembers what went through nn.Linear layers: the (x, grad_y) pairs of every backward pass since the last
    clear."""

    def __init__(self) -> None:
        self.pairs: dict[Tensor, list[tuple[Tensor, Tensor]]] = {}
        self._hooks: list[Any] = []

    def attach(self, model: nn.Module, wanted: set[Tensor]) -> int:
        """Watch every nn.Linear in `model` whose weight is wanted; returns how many there are. Attaching again
        replaces."""
        self.detach()
        for module in model.modules():
            if isinstance(module, nn.Linear) and module.weight in wanted:
                self.pairs[module.weight] = []
                self._hooks.append(module.register_forward_hook(partial(self._watch, module.weight)))
        return len(self._hooks)

    def detach(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self._hooks, self.pairs = [], {}

    def clear(self) -> None:
        for pairs in self.pairs.values():
            pairs.clear()

    def rows(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """x (n, d_in) and grad_y (n, d_out) of a watched weight; every leading dimension (batch, length) is a
        sample."""
        pairs = self.pairs[weight]
        if not pairs:
            raise NLBookError(
                "step: got a gradient but no recorded input for an attached Linear weight of shape "
                f"{tuple(weight.shape)}, expected a forward and a backward pass through its layer "
                "since the last step()"
            )
        return tuple(torch.cat(side) for side in zip(*pairs, strict=True))  # type: ignore[return-value]

    def _watch(self, weight: Tensor, module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if torch.is_grad_enabled() and output.requires_grad:  # the gradient decides: an evaluation leaves no trace
            output.register_hook(partial(self._keep, weight, inputs[0].detach()))

    def _keep(self, weight: Tensor, x: Tensor, grad_y: Tensor) -> None:
        if weight in self.pairs:
            self.pairs[weight].append(
                (
                    x.flatten(0, -2) if x.ndim > 1 else x[None],
                    (grad_y.flatten(0, -2) if grad_y.ndim > 1 else grad_y[None]).detach(),
                )
            )


class LayerMemory(GradientMemory):
    """Base of the two optimizers below: `attach`, `detach`, and a recorder that `step` and `zero_grad` clear."""

    def __init__(self, params: Any, defaults: Group) -> None:
        self._recorder = LinearRecorder()
        super().__init__(params, defaults)

    def attach(self, model: nn.Module) -> Any:
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

    def _need_attached(self) -> None:
        need(bool(self._recorder.pairs), "step", "no attached layer", "attach(model) before the forward pass")

    def zero_grad(self, set_to_none: bool = True) -> None:
        self._recorder.clear()
        super().zero_grad(set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = super().step(closure)
        self._recorder.clear()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "_recorder": LinearRecorder()}  # a copy has other layers: attach it to them


class DGD(LayerMemory):
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
    count as they stand; "mean" needs sample-wise gradients and recomputes them from the recorded pairs.
    """

    def __init__(
        self, params: Any, lr: float = 0.1, batch: str = "joint", reduction: str = "mean", weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "batch": batch, "reduction": reduction, "weight_decay": weight_decay})

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        choice("batch", group["batch"], BATCH)
        choice("reduction", group["reduction"], ("mean", "sum"))
        number("weight_decay", group["weight_decay"])

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        self._need_attached()
        lr, mean = group["lr"], group["reduction"] == "mean"
        plain = [(p, g) for p, g in zip(params, grads, strict=True) if p not in self._recorder.pairs]
        new = []
        for p, g in zip(params, grads, strict=True):  # all of them before the first write
            if p in self._recorder.pairs:
                x, grad_y = self._recorder.rows(p)
                if group["batch"] == "joint":
                    new.append((p, ridge_solve(p - lr * g, x, lr / len(x) if mean else lr)))
                else:
                    new.append((p, dgd_step(p, x, grad_y, lr, "mean", mean)))
        decay = lr * group["weight_decay"]
        for p, W in new:
            p.copy_(W - decay * p)
        if plain:
            decay_([p for p, _ in plain], decay)
            torch._foreach_add_([p for p, _ in plain], [g for _, g in plain], alpha=-lr)


Fit = Callable[[Tensor, Tensor, Tensor], Tensor]
Retention = Callable[[Tensor, Tensor], Tensor]


class GeneralizedGD(LayerMemory):
    """Generalised gradient descent (Definition 5, eq. 59-60): a fit, plus a retention over the last states of the
    weights.

        u_t = f_{W_t}(x_t) = -grad_y                                          (eq. 60; the value is self-generated, eq.
        58) W_{t+1} = argmin_W  fit(W; x_t, u_t) + Ret(W, {W_{t-c+1} ... W_t})    (eq. 59)

    Errata: W is missing from the printed fit term, and the text says "self-generated keys" where values are meant.
    By default Ret = sum_i |W - W_i|_F^2 / (2 lr) over `window` states, which makes the argmin a step from their *mean*
    with rate lr / c (c = states so far, at most `window`):

        fit="dot"      -<W x, u>            gradient descent for window = 1 (any parameter)
        fit="squared"  |W x - u|^2 / 2      DGD for window = 1 (attached Linear weights; other parameters use "dot")
        fit=callable   f(W, x, u) -> scalar, x (n, d_in), u (n, d_out), solved by L-BFGS (attached Linear weights)

    Args:
        lr: >= 0 (default 0.1); > 0 if a fit or retention is a callable.
        window: c >= 1 (default 1). A window above 1 slows the weights down and, with old states, may oscillate.
        fit: as above; a callable gets samples whose u is scaled back to one sample's (times n for mean losses).
        retention: None (default), or a callable Ret(W, past) -> scalar with past (c, d_out, d_in), the newest last.
        reduction: "mean" (default) | "sum", as in `DGD`: the fit of a built-in is the mean or the sum over samples.
        inner_steps: L-BFGS iterations for callables (default 50, stops at a gradient of 1e-12).

    Callables are not part of `state_dict`; the window of past weights is.
    """

    _extras = ("fit", "retention")

    def __init__(
        self,
        params: Any,
        lr: float = 0.1,
        window: int = 1,
        fit: str | Fit = "dot",
        retention: Retention | None = None,
        reduction: str = "mean",
        inner_steps: int = 50,
    ) -> None:
        if not callable(fit):
            choice("fit", fit, ("dot", "squared"))
        need(retention is None or callable(retention), "retention", type(retention).__name__, "a callable or None")
        self.fit, self.retention = fit, retention
        super().__init__(params, {"lr": lr, "window": window, "reduction": reduction, "inner_steps": inner_steps})

    def _check_group(self, group: Group) -> None:
        super()._check_group(group)
        if callable(self.fit) or callable(self.retention):
            number("lr", group["lr"], open_low=True)
        count("window", group["window"])
        choice("reduction", group["reduction"], ("mean", "sum"))
        count("inner_steps", group["inner_steps"])

    def _update(self, group: Group, params: list[Tensor], grads: list[Tensor]) -> None:
        if self.fit != "dot":
            self._need_attached()
        new = [self._minimise(group, p, g, self._past(p, group["window"])) for p, g in zip(params, grads, strict=True)]
        for p, W in zip(params, new, strict=True):
            p.copy_(W)

    def _past(self, p: Tensor, window: int) -> Tensor:
        """The last states (at most `window`, ...), the present one last."""
        if window == 1:
            return p[None]
        state = self.state[p]
        known = state.get("past")
        past = p.clone()[None] if known is None else torch.cat([known, p[None]])[-window:]
        state["past"] = past
        return past

    def _minimise(self, group: Group, p: Tensor, g: Tensor, past: Tensor) -> Tensor:
        fit = self.fit if p in self._recorder.pairs else "dot"
        if callable(fit) or self.retention is not None:
            return self._search(group, fit, p, g, past)
        rate = group["lr"] / len(past)
        W = past.mean(0) - rate * g
        if fit == "squared":
            x, _ = self._recorder.rows(p)
            W = ridge_solve(W, x, rate / len(x) if group["reduction"] == "mean" else rate)
        return W

    @torch.enable_grad()
    def _search(self, group: Group, fit: str | Fit, p: Tensor, g: Tensor, past: Tensor) -> Tensor:
        lr, mean = group["lr"], group["reduction"] == "mean"
        x = u = p.new_zeros(0)
        if fit != "dot":
            x, grad_y = self._recorder.rows(p)
            u = -grad_y * (len(x) if mean else 1)

        def objective(W: Tensor) -> Tensor:
            if callable(fit):
                loss = fit(W, x, u)
            elif fit == "squared":
                loss = (x @ W.mT - u).square().sum() / (2 * len(x) if mean else 2)
            else:
                loss = (W * g).sum()
            return loss + ((W - past).square().sum() / (2 * lr) if self.retention is None else self.retention(W, past))

        W = p.detach().clone().requires_grad_()
        inner = torch.optim.LBFGS(
            [W], max_iter=group["inner_steps"], tolerance_grad=1e-12, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            inner.zero_grad()
            loss = objective(W)
            loss.backward(inputs=[W])
            return loss

        inner.step(closure)  # type: ignore[arg-type]
        return W.detach()
