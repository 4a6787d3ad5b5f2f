"""One training loop for every model of the book: a seed, checkpoints that continue bit for bit, and a clear end.

    history = train(model, batches, 400, lr=5e-3, folder="runs/hope")

`batches(step)` returns the batch of that step (0, 1, ...), the same each time it is asked: that is what makes a run
that was killed and started again the same run. Nothing is pickled; a checkpoint is one safetensors file that is
replaced as a whole.

Where torch.distributed has a group of processes (`torchrun`), all of them call `train` with the same batches: each
reads some of the rows, DDP adds up the gradients, and the run is that of one process to rounding. A model too large for
one machine may be spread by `fully_shard(model)`, as one unit: its checkpoint is the same whole file.
"""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.door import doors
from nlbook.errors import NLBookError, need
from nlbook.levels.inspect import start_ids
from nlbook.ranks import agree, leads, shared, spread, whole
from nlbook.tree import read, write

CHECKPOINT = "checkpoint.safetensors"

__all__ = ["adamw", "constant", "cosine", "train"]


class TrainingStopped(NLBookError):
    """Training cannot go on: the loss or a gradient is no longer finite."""


@dataclass
class History:
    """loss[i], norm[i]: loss and gradient norm (before clipping) of step i. marks: what `check` returned, by step."""

    loss: list[float] = field(default_factory=list)
    norm: list[float] = field(default_factory=list)
    marks: dict[int, float] = field(default_factory=dict)
    stopped: bool = False

    @property
    def steps(self) -> int:
        return len(self.loss)

    def tail(self, n: int = 20) -> float:
        """Mean loss of the last n steps."""
        last = self.loss[-n:]
        return sum(last) / max(1, len(last))


@dataclass(frozen=True)
class Watch:
    """A number to watch while training: `check(model)` every `every` steps, without gradients (a validation loss, an
    accuracy). Training ends when the last `patience` of them were all >= `enough`; None: never.
    """

    check: Callable[[nn.Module], float]
    every: int = 50
    enough: float | None = None
    patience: int = 1

    def __post_init__(self) -> None:
        for name in ("every", "patience"):
            need(getattr(self, name) >= 1, name, getattr(self, name), "an int >= 1")

    @torch.no_grad()
    def look(self, model: nn.Module, history: History) -> None:
        """Add the number to the history if it is time, and mark the history as stopped if that is enough."""
        if history.steps % self.every:
            return
        history.marks[history.steps] = float(self.check(model))
        last = list(history.marks.values())[-self.patience :]
        history.stopped = self.enough is not None and len(last) == self.patience and min(last) >= self.enough


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    """The loss of a task's batch (with `tokens` and `loss(logits)`), or what the model's own `loss` makes of it."""
    if hasattr(batch, "tokens") and hasattr(batch, "loss"):
        return batch.loss(model(batch.tokens)[0])
    own: Any = getattr(model, "loss", None)
    need(callable(own), "model", type(model).__name__, "a model with a method `loss(batch)`, for this kind of batch")
    return own(batch)


def cosine(step: int, steps: int, warmup: int = 30) -> float:
    """Factor on the learning rate: up over `warmup` steps, then down to 0 along half a cosine."""
    return min(1.0, (step + 1) / max(1, warmup)) * (0.5 + 0.5 * math.cos(math.pi * step / max(1, steps)))


def constant(step: int, steps: int, warmup: int = 30) -> float:
    """Factor on the learning rate: up over `warmup` steps, then 1."""
    return min(1.0, (step + 1) / max(1, warmup))


def adamw(model: nn.Module, lr: float, *, weight_decay: float = 0.01, start_lr: float = 1.0) -> torch.optim.AdamW:
    """AdamW for a model of the book. start_lr: a factor on the rate of meta-learned initial states
    (`nested_initial_states`); weight decay applies to matrices only, not to starts, gains, biases or convolution taps.
    """
    starts = start_ids(model)
    groups: dict[str, list[nn.Parameter]] = {"start": [], "matrix": [], "other": []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            matrix = p.ndim == 2 and not name.endswith("embedding")
            groups["start" if id(p) in starts else "matrix" if matrix else "other"].append(p)
    rates = {"start": (start_lr, 0.0), "matrix": (1.0, weight_decay), "other": (1.0, 0.0)}
    return torch.optim.AdamW(
        [{"params": ps, "lr": lr * rates[n][0], "weight_decay": rates[n][1]} for n, ps in groups.items() if ps],
        lr=lr,
        betas=(0.9, 0.95),
    )


def train(
    model: nn.Module,
    batches: Callable[[int], Any],
    steps: int,
    *,
    lr: float = 3e-3,
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Callable[[int, int], float] = cosine,
    clip: float | None = 1.0,
    seed: int = 0,
    watch: Watch | None = None,
    folder: str | Path | None = None,
    save_every: int = 100,
    label: str | None = None,
) -> History:
    """Train `model` in place for `steps` steps, on the loss that the batch or the model has (`loss_of`).

    Args:
        batches: step -> batch; a pure function of the step.
        optimizer: any torch optimizer over (some of) the model's parameters; AdamW (`adamw`) with `lr` when None. Its
            groups' rates are multiplied by `schedule(step, steps)`.
        clip: bound on the norm of the gradient of what the optimizer moves; None: none.
        seed: of torch's global generator inside the loop (dropout and the like); the caller's generator is not touched.
        folder: keep a checkpoint here, every `save_every` steps and at the end. If there is one already, training goes
            on from it, bit for bit as if it had never stopped; another seed, rate, model or optimizer is refused. Many
            processes share the folder and one of them writes; on another number of processes a run goes on to rounding.
        label: show a progress bar of this name (needs tqdm; TQDM_DISABLE=1 hides it).

    Raises:
        NLBookError: what cannot be kept in a checkpoint (before the first step), or a damaged or foreign checkpoint.
        TrainingStopped: the loss or the gradient is not finite. The model is back at its last good checkpoint, if any.
    """
    need(isinstance(steps, int) and steps >= 0, "steps", steps, "an int >= 0")
    need(save_every >= 1, "save_every", save_every, "an int >= 1")
    opt = adamw(model, lr) if optimizer is None else optimizer
    closure = inspect.signature(opt.step).parameters.get("closure")
    need(
        closure is None or closure.default is None, "optimizer", type(opt).__name__, "one that steps without a closure"
    )
    for group in opt.param_groups:
        group.setdefault("initial_lr", group["lr"])
    share = shared(model, loss_of)
    path = None if folder is None else Path(folder) / CHECKPOINT
    if path is not None:
        need(not path.parent.is_file(), "folder", str(folder), "a folder, not a file")
        _facts(model, opt, History(), seed)
    history = History()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if path is not None and path.is_file():
            history = load_checkpoint(path, model, opt, seed)
        agree("folder", history.steps)
        bar = None if label is None or not leads() else _bar(steps, history.steps, label)
        while history.steps < steps and not history.stopped:
            for group in opt.param_groups:
                group["lr"] = group["initial_lr"] * schedule(history.steps, steps)
            batch = batches(history.steps)
            paid, norm = _gradients(share, model, batch, opt, clip)
            if not (math.isfinite(paid) and math.isfinite(norm)):
                raise TrainingStopped(_why(paid, norm, history, path, model, opt, seed))
            opt.step()
            history.loss.append(paid)
            history.norm.append(norm)
            if watch is not None:
                watch.look(model, history)
            if path is not None and (history.steps % save_every == 0 or history.steps == steps or history.stopped):
                save_checkpoint(path, model, opt, history, seed)
            if bar is not None:
                bar.set_postfix_str(_speed(bar, history, batch), refresh=False)
                bar.update()
        if bar is not None:
            bar.close()
    return history


def _gradients(
    share: Callable[[Any], tuple[Tensor, float]],
    model: nn.Module,
    batch: Any,
    opt: torch.optim.Optimizer,
    clip: float | None,
) -> tuple[float, float]:
    """Fill the gradients of one batch; returns the loss and the gradient's norm before clipping."""
    model.zero_grad(set_to_none=True)
    opt.zero_grad(set_to_none=True)
    mine, paid = share(batch)
    mine.backward()
    moved = [p for group in opt.param_groups for p in group["params"]]
    norm = nn.utils.clip_grad_norm_(moved, math.inf if clip is None else clip)
    return paid, float(whole(norm))


def _bar(steps: int, done: int, label: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, desc=label, leave=False, dynamic_ncols=True)


def _speed(bar: Any, history: History, batch: Any) -> str:
    tokens = getattr(batch, "tokens", batch)
    size = tokens.numel() if isinstance(tokens, Tensor) else 0
    return f"loss {history.tail(10):.3f}, {size * (bar.format_dict['rate'] or 0):,.0f} tokens/s"


def _why(
    paid: float,
    norm: float,
    history: History,
    path: Path | None,
    model: nn.Module,
    opt: torch.optim.Optimizer,
    seed: int,
) -> str:
    """What is not finite, and where the model stands now: at its last checkpoint, which is loaded here."""
    what = f"the loss is {paid}"
    if math.isfinite(paid):
        what = f"the loss is {paid:.4g} but its gradient's norm is {norm}"
    before = ", ".join(f"{x:.4g}" for x in history.loss[-3:]) or "none"
    step, kept = history.steps, "no checkpoint was kept (folder=None)"
    if path is not None and path.is_file():
        back = load_checkpoint(path, model, opt, seed).steps
        kept = f"the model is back at the checkpoint of step {back} ({path.name})"
    elif path is not None:
        kept = "no checkpoint had been written yet"
    return (
        f"training stopped at step {step}: {what}; losses before it: {before}; {kept}. "
        "A smaller lr, more warm-up or a smaller inner rate (eta) usually helps."
    )


# ---------------------------------------------------------------------- checkpoints
def _facts(
    model: nn.Module, opt: torch.optim.Optimizer, history: History, seed: int
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a checkpoint keeps: tensors by name, and plain values for JSON; refused if there is anything else."""
    flat: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for k, v in model.state_dict().items():
        need(isinstance(v, Tensor), f"model.state_dict()[{k!r}]", type(v).__name__, "tensors only, for a checkpoint")
        flat[f"model/{k}"] = whole(v).detach().clone(memory_format=torch.contiguous_format)
    held = opt.state_dict()
    for i, kept in held["state"].items():
        for k, v in kept.items():
            if isinstance(v, Tensor):
                flat[f"opt/{i}/{k}"] = whole(v).detach().clone(memory_format=torch.contiguous_format)
            else:
                plain.setdefault(str(i), {})[k] = v
    flat["random"] = torch.get_rng_state()
    facts = {"history": asdict(history), "groups": held["param_groups"], "plain": plain, "seed": seed}
    try:
        json.dumps(facts)
    except TypeError as e:
        raise NLBookError(f"optimizer: got settings that a checkpoint cannot keep ({e}), expected plain numbers") from e
    return flat, facts


def save_checkpoint(
    path: str | Path, model: nn.Module, opt: torch.optim.Optimizer, history: History, seed: int = 0
) -> None:
    """Model, optimizer, history and random state in one safetensors file, replaced as a whole, also by a kill."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    flat, facts = _facts(model, opt, history, seed)
    if leads():
        part = path.with_suffix(".part")
        write(part, "checkpoint", flat, facts)
        os.replace(part, path)
    agree("steps", history.steps)  # nobody reads the file before it is there


def load_checkpoint(path: str | Path, model: nn.Module, opt: torch.optim.Optimizer, seed: int = 0) -> History:
    """Put model, optimizer and torch's generator where `save_checkpoint` found them; returns the history until then."""
    flat, facts = read(path, "checkpoint")
    need(facts["seed"] == seed, "seed", seed, f"{facts['seed']}, with which the run in {path} began")
    rates = [[g["initial_lr"] for g in groups] for groups in (opt.param_groups, facts["groups"])]
    need(rates[0] == rates[1], "lr", rates[0], f"{rates[1]}, with which the run in {path} began")
    own = model.state_dict()
    try:
        model.load_state_dict({k[6:]: spread(v, own.get(k[6:])) for k, v in flat.items() if k.startswith("model/")})
    except RuntimeError as e:
        raise NLBookError(f"folder: got a checkpoint of another model, expected one of this model ({e})") from e
    state: dict[int, dict[str, Any]] = {int(i): dict(kept) for i, kept in facts["plain"].items()}
    moved = [p for group in opt.param_groups for p in group["params"]]
    for name, v in flat.items():
        if name.startswith("opt/"):
            _, i, k = name.split("/", 2)
            state.setdefault(int(i), {})[k] = spread(v, moved[int(i)]) if int(i) < len(moved) else v
    groups = [{**g, **{k: tuple(v) for k, v in g.items() if k == "betas"}} for g in facts["groups"]]
    try:
        opt.load_state_dict({"state": state, "param_groups": groups})
    except ValueError as e:
        raise NLBookError(f"folder: got a checkpoint of another optimizer, expected this one's ({e})") from e
    torch.set_rng_state(flat["random"])
    h: Mapping[str, Any] = facts["history"]
    return History(h["loss"], h["norm"], {int(k): v for k, v in h["marks"].items()}, h["stopped"])


doors(__name__)
