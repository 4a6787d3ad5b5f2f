"""A fair small race of optimizers on real data (Fig. 11 and 12 in miniature): handwritten digits, one MLP, equal
budgets.

Every optimizer gets the same number of learning rates, tuned on a validation split with a seed of its own, the same
warm-up and linear decay, the same batches and the same initial weights a seed. Reported is the test loss at the rate
that won the validation, over several seeds, and the CPU time of a step (forward and backward included) beside it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nlbook.book.data.digits import load_digits
from nlbook.errors import generator, need
from nlbook.optim import M3, Muon, matrix_groups

Build = Callable[[nn.Module, float], torch.optim.Optimizer]


def _groups(model: nn.Module) -> list[dict]:
    return matrix_groups(model, adamw=getattr(model, "beside", ("head",)))


# Everything but the rate is at each optimizer's usual value. M3's AdamW part has the tuned rate too, except with
# second="grad", whose rate means something else: there it has AdamW's usual 3e-3 (a schedule scales both).
# "M3 fast only" is the control: the same optimizer without the slow memory.
OPTIMIZERS: dict[str, Build] = {
    "SGD momentum": lambda m, lr: torch.optim.SGD(m.parameters(), lr=lr, momentum=0.9, nesterov=True),
    "AdamW": lambda m, lr: torch.optim.AdamW(m.parameters(), lr=lr, betas=(0.9, 0.99), weight_decay=0.01),
    "Muon": lambda m, lr: Muon(_groups(m), lr, weight_decay=0.01, adamw_betas=(0.9, 0.99)),
    "M3 update": lambda m, lr: M3(_groups(m), lr, weight_decay=0.01, adamw_betas=(0.9, 0.99)),
    "M3 grad": lambda m, lr: M3(
        _groups(m), lr, second="grad", weight_decay=0.01, adamw_betas=(0.9, 0.99), adamw_lr_ratio=3e-3 / lr
    ),
    "M3 none": lambda m, lr: M3(_groups(m), lr, second="none", weight_decay=0.01, adamw_betas=(0.9, 0.99)),
    "M3 fast only": lambda m, lr: M3(_groups(m), lr, alpha=0, weight_decay=0.01, adamw_betas=(0.9, 0.99)),
}
RATES: dict[str, tuple[float, ...]] = {  # five each, a factor of 3 apart; of 10 where nothing tells the size
    "SGD momentum": (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    "AdamW": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "Muon": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "M3 update": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
    "M3 grad": (1e-7, 1e-6, 1e-5, 1e-4, 1e-3),
    "M3 none": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "M3 fast only": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2),
}


class DigitMLP(nn.Module):
    """64 pixels -> width -> width -> 10 classes. The head is a layer of its own name, for `matrix_groups`."""

    def __init__(self, width: int = 64, seed: int = 0) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, width), nn.Linear(width, width), nn.Linear(width, 10)
        g = generator(seed)
        with torch.no_grad():
            for p in self.parameters():
                bound = 1 / math.sqrt(p.shape[1]) if p.ndim == 2 else 0.0
                p.copy_((2 * torch.rand(p.shape, generator=g) - 1) * bound * math.sqrt(3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))))


class DigitViT(nn.Module):
    """A vision Transformer in miniature: 16 patches of 2 x 2 pixels, `layers` pre-norm blocks, a mean, 10 classes."""

    beside = ("patch", "place", "head")  # what AdamW takes beside Muon and M3: input, positions, output

    def __init__(self, width: int = 32, seed: int = 0, layers: int = 2, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.patch, self.head = nn.Linear(4, width), nn.Linear(width, 10)
        self.place = nn.Parameter(torch.zeros(16, width))
        self.last = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(width),
                    "qkv": nn.Linear(width, 3 * width),
                    "out": nn.Linear(width, width),
                    "norm2": nn.LayerNorm(width),
                    "up": nn.Linear(width, 2 * width),
                    "down": nn.Linear(2 * width, width),
                }
            )
            for _ in range(layers)
        )
        g = generator(seed)
        with torch.no_grad():
            for name, p in self.named_parameters():
                if p.ndim == 2:
                    bound = 0.02 if name == "place" else 1 / math.sqrt(p.shape[1])
                    p.copy_((2 * torch.rand(p.shape, generator=g) - 1) * bound * math.sqrt(3))
                elif name.endswith("bias"):
                    p.zero_()

    def forward(self, x: Tensor) -> Tensor:
        patches = x.view(-1, 4, 2, 4, 2).transpose(2, 3).reshape(-1, 16, 4)
        h = self.patch(patches) + self.place
        for layer in cast("list[dict[str, nn.Module]]", self.layers):
            q, k, v = layer["qkv"](layer["norm1"](h)).view(*h.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
            h = h + layer["out"](F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
            h = h + layer["down"](F.gelu(layer["up"](layer["norm2"](h))))
        return self.head(self.last(h).mean(1))


MODELS: dict[str, Callable[[int, int], nn.Module]] = {"mlp": DigitMLP, "vit": DigitViT}


def recorded_pushes(seed: int = 0, steps: int = 100) -> Tensor:
    """The pushes (steps, 10, 64), minus the gradients, that SGD meets on a linear classifier of digits, 8 a batch."""
    digits, W, pushes = load_digits(seed=seed), torch.zeros(10, 64, dtype=torch.float64), []
    for x, y, _ in zip(digits.x_train.double().split(8), digits.y_train.split(8), range(steps)):
        W.requires_grad_()
        pushes.append(-torch.autograd.grad(F.cross_entropy(x @ W.mT, y), W)[0])
        W = W.detach() + 0.1 * pushes[-1]
    return torch.stack(pushes)


@dataclass(frozen=True)
class Entry:
    """One optimizer's result."""

    name: str
    lr: float  # the rate that won the validation
    on_edge: bool  # it is the smallest or the largest that was tried: the true best may lie outside
    validation: dict[float, float]  # rate -> validation loss, of the tuning seed (inf: diverged)
    train: Tensor  # (seeds, steps) loss of each batch
    test_loss: Tensor  # (seeds,)
    test_accuracy: Tensor  # (seeds,)
    seconds: float  # median CPU time of a step


@dataclass(frozen=True)
class Race:
    entries: dict[str, Entry]


def run(
    name: str,
    lr: float,
    *,
    seed: int = 0,
    steps: int = 200,
    batch: int = 64,
    width: int = 64,
    validation: bool = False,
    model: str = "mlp",
) -> tuple[Tensor, float, float, float]:
    """Train once. Returns (train losses (steps,), held-out loss, held-out accuracy, median CPU seconds a step).

    Args:
        seed: of weights and batches. The split of the data is always the same.
        validation: evaluate on 300 images kept from the training part instead of on the test part (to tune with).
        model: "mlp", or "vit": a Transformer on patches of 2 x 2 pixels (`width` 32 is plenty for it).
    """
    need(name in OPTIMIZERS, "name", repr(name), f"one of {', '.join(map(repr, OPTIMIZERS))}")
    need(model in MODELS, "model", repr(model), f"one of {', '.join(map(repr, MODELS))}")
    need(steps >= 1 and batch >= 1, "steps, batch", (steps, batch), "at least 1 each")
    digits = load_digits(seed=0)
    train_x, train_y = 2 * digits.x_train[300:] - 1, digits.y_train[300:]
    held_x, held_y = (digits.x_train[:300], digits.y_train[:300]) if validation else (digits.x_test, digits.y_test)
    net, g = MODELS[model](width, seed), generator(seed + 1000)
    optimizer = OPTIMIZERS[name](net, lr)
    warm = max(1, steps // 20)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: min((t + 1) / warm, 1.0) * (1 - t / steps))
    losses, times = torch.full((steps,), math.inf), []
    for t in range(steps):
        i = torch.randint(len(train_x), (batch,), generator=g)
        start = time.process_time()
        loss = F.cross_entropy(net(train_x[i]), train_y[i])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.process_time() - start)
        schedule.step()
        losses[t] = loss.detach()
        if not torch.isfinite(losses[t]):
            losses[t] = math.inf
            break
    with torch.no_grad():
        out = net(2 * held_x - 1)
        held = float(F.cross_entropy(out, held_y))
        right = float((out.argmax(-1) == held_y).float().mean())
    return losses, held if math.isfinite(held) else math.inf, right, sorted(times)[len(times) // 2]


def race(
    names: Iterable[str] = ("SGD momentum", "AdamW", "Muon", "M3 update", "M3 grad"),
    *,
    steps: int = 200,
    seeds: Iterable[int] = (0, 1, 2),
    tuning_seed: int = 100,
    width: int = 64,
) -> Race:
    """Tune every optimizer on the same number of rates, then run the winner on each seed.

    About 20 CPU seconds at the defaults. More steps and seeds say more; five seeds are what the claims are tested with.
    """
    entries, seeds = {}, tuple(seeds)
    for name in names:
        need(name in OPTIMIZERS, "names", repr(name), f"some of {', '.join(map(repr, OPTIMIZERS))}")
        tried = {
            lr: run(name, lr, seed=tuning_seed, steps=steps, width=width, validation=True)[1] for lr in RATES[name]
        }
        lr = min(tried, key=lambda rate: tried[rate])
        runs = [run(name, lr, seed=s, steps=steps, width=width) for s in seeds]
        entries[name] = Entry(
            name,
            lr,
            lr in (min(tried), max(tried)),
            tried,
            torch.stack([r[0] for r in runs]),
            torch.tensor([r[1] for r in runs]),
            torch.tensor([r[2] for r in runs]),
            sorted(r[3] for r in runs)[len(runs) // 2],
        )
    return Race(entries)
