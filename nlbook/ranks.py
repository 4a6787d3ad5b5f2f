"""Training on many processes (torchrun): each reads some rows of the whole batch, and all move as one process would.

Gradients and losses are weighed by the number of graded tokens, because a mean of the processes' means is another
number where these differ. A state in a batch is split with its rows and never leaves its process.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

from nlbook.errors import need
from nlbook.tree import tensors, tree_map

Loss = Callable[[nn.Module, Any], Tensor]


def world() -> int:
    """Processes that train together: those of torch.distributed's group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def leads() -> bool:
    """Whether this process is the one that writes files and shows the bar."""
    return world() == 1 or dist.get_rank() == 0


def whole(x: Any) -> Any:
    """A tensor that is spread over the processes (by `fully_shard`) as an ordinary one; everything else as it is."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def spread(x: Any, like: Any) -> Any:
    """A whole tensor spread over the processes as `like` is; as it is where that is an ordinary tensor."""
    if not hasattr(like, "full_tensor") or x.shape != like.shape:
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x, like.device_mesh, like.placements)


class LossOnly(nn.Module):
    """A model whose forward pass is its loss. DDP waits for the gradient of all that a forward pass returns, and the
    loss asks nothing of the states that Hope's returns: around Hope itself, gradients stay unsynchronised."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, batch: Any) -> Tensor:
        return self.loss(self.model, batch)


def need_not_plain_ddp(model: nn.Module) -> None:
    """Raise inside the forward pass of `DDP(model)` that is to be differentiated."""
    outer = getattr(DDP, "_active_ddp_module", None)
    plain = outer is not None and outer.module is model and torch.is_grad_enabled()
    why = "which leaves gradients unsynchronised: the states that it returns take no part in the loss"
    need(not plain, "model", f"DDP({type(model).__name__}), {why}", "`nlbook.train.train`, or DDP around its LossOnly")


def shared(model: nn.Module, loss: Loss) -> Callable[[Any], tuple[Tensor, float]]:
    """batch -> what this process differentiates, and the loss of the whole batch."""
    need(not isinstance(model, DDP), "model", "DDP(...)", "the model itself: `train` wraps it")
    n = world()

    def alone(batch: Any) -> tuple[Tensor, float]:
        paid = loss(model, batch)
        return paid, float(paid.detach())

    if n == 1:
        return alone
    sharded = any(hasattr(p, "full_tensor") for p in model.parameters())
    own: Any = LossOnly(model, loss) if sharded else DDP(LossOnly(model, loss), find_unused_parameters=True)

    def together(batch: Any) -> tuple[Tensor, float]:
        parts = split(model, batch, n)
        counts = [float(graded(p)) for p in parts]
        need(min(counts) > 0, "batch", f"{counts} graded tokens a process", "at least one for each")
        mine, total = counts[dist.get_rank()], sum(counts)
        paid = own(parts[dist.get_rank()])
        sums = torch.tensor([float(paid.detach()) * mine, mine], dtype=torch.float64, device=paid.device)
        dist.all_reduce(sums)
        need(float(sums[1]) == total, "batches", "another batch on each process", "the whole batch on all of them")
        return paid * (n * mine / total), float(sums[0]) / total  # DDP and FSDP2 divide by n

    return together


def graded(batch: Any) -> Any:
    """What the loss of a batch is a mean over: its graded tokens, else its rows."""
    return batch.graded.sum() if hasattr(batch, "graded") else len(next(iter(tensors(batch).values())))


def split(model: nn.Module, batch: Any, n: int) -> list[Any]:
    """The batch in n parts, row by row in order. Refused where a part would be read otherwise than inside the whole:
    Hope's clocks begin anew where all sequences of a call begin a document."""
    sizes = {len(t) for t in tensors(batch).values() if t.ndim}
    need(len(sizes) == 1, "batch", f"tensors of {sorted(sizes)} rows", "one number of rows in all of them")
    rows = sizes.pop()
    need(rows >= n, "batch", f"{rows} rows for {n} processes", f"at least {n}")
    edges = [i * rows // n for i in range(n + 1)]

    def part(t: Tensor, first: int, last: int) -> Tensor:
        return t[first:last] if t.ndim else t

    parts = [tree_map(partial(part, first=a, last=b), batch) for a, b in pairwise(edges)]
    first = getattr(getattr(model, "config", None), "reset_token", None)
    tokens = [getattr(b, "tokens", b) for b in (batch, *parts)]
    if first is not None and isinstance(tokens[0], Tensor):
        at = [(t == first).all(0) for t in tokens]
        same = all(torch.equal(at[0], p) for p in at)
        need(same, "batch", "rows that begin their documents at different tokens", "the same cut points in all rows")
    return parts


def agree(name: str, value: Any) -> None:
    """Raise on all processes unless `value` is the same on all of them."""
    if world() > 1:
        values: list[Any] = [None] * world()
        dist.all_gather_object(values, value)
        need(len(set(values)) == 1, name, f"{values} on the processes", "one value: do they all see one folder?")
