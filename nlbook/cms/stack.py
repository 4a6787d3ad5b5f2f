"""`stack_levels`: update periods for the MLPs of an existing decoder (section 7.3, ad-hoc level stacking).

The network is left as it is, so the function is preserved: nothing changes until a level moves. What is added is the
clock. Contiguous groups of blocks share a period, the first blocks the fastest by default; everything else (attention,
embeddings, norms) is frozen or has a period too. Weights are the model's own, shared by a batch; a `CMS` has weights of
its own for each sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.errors import NLBookError, need
from nlbook.levels import Component

PAIRS = (("linear1", "linear2"), ("fc1", "fc2"), ("intermediate", "output"))  # torch; OPT, BART; BERT, ViT


@dataclass
class Level:
    """One level of a stack: parameters that move together, once per `period` tokens (of one sequence)."""

    name: str
    period: int
    params: list[nn.Parameter]
    blocks: list[str]
    optimizer: torch.optim.Optimizer
    tokens: int = 0  # gathered since the last update
    updates: int = 0
    gathered: list[Tensor] = field(default_factory=list)  # sum over tokens of the gradient, float32 or wider


def find_mlps(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Path -> MLP parameters, in the model's order.

    Modules named mlp, feed_forward or ffn (Llama, GPT-2, Qwen, most hand-written decoders), the two layers of a block
    that PAIRS names (torch's own Transformer layers, OPT, BERT), or `DenseReluDense` (T5).
    """
    found: dict[str, list[nn.Parameter]] = {}
    for path, m in model.named_modules():
        if path and path.rsplit(".", 1)[-1] in ("mlp", "feed_forward", "ffn", "DenseReluDense"):
            found[path] = list(m.parameters())
        for pair in PAIRS:
            inner = [part for name in pair if isinstance(part := getattr(m, name, None), nn.Module)]
            if len(inner) == len(pair):
                found[path] = [p for part in inner for p in part.parameters()]
    inside = [p for p in found if any(p != q and p.startswith(q + ".") for q in found)]
    return {p: params for p, params in found.items() if p not in inside and params}


class LevelStack(torch.optim.Optimizer):
    """An optimizer with a clock per level. Use it where an optimizer stands:

        stack = stack_levels(model, (64, 256, 1024), lr=1e-3)
        model(...).loss.backward();  stack.step(tokens=length)      # gradients are taken over, then set to None

    A level moves at the first step at whose end it has gathered `period` tokens; the mean over those tokens is what its
    optimizer sees, at the rate that its group has then. A schedule of torch's sets that rate, `scaler.step(stack,
    tokens=length)` works, and so does `nlbook.train` where `tokens` was given once to `stack_levels`.
    """

    def __init__(
        self,
        levels: Sequence[Level],
        asked: Mapping[nn.Parameter, bool],
        reduce: str,
        tokens: int | None = None,
    ) -> None:
        self.levels, self.asked, self.reduce, self.tokens = list(levels), dict(asked), reduce, tokens
        groups = [
            {
                "params": v.params,
                "lr": v.optimizer.param_groups[0]["lr"],
                "name": v.name,
                "period": v.period,
                "level": i,
            }
            for i, v in enumerate(self.levels)
        ]
        super().__init__(groups, {})

    def unstack(self) -> None:
        """Give every parameter the `requires_grad` back that it had before; what the levels learned stays."""
        self.zero_grad()
        for p, wanted in self.asked.items():
            p.requires_grad_(wanted)

    @torch.no_grad()
    def step(self, tokens: int | None = None, weight: float = 1.0) -> list[str]:  # type: ignore[override]
        """Take over the gradients of one backward pass over `tokens` tokens a sequence (None: as `stack_levels` was
        told); returns the names that moved.

        The loss must be a mean over the tokens of the call (times 1 / weight): the usual cross-entropy.
        """
        tokens = self.tokens if tokens is None else tokens
        if not isinstance(tokens, int) or tokens < 1:
            raise NLBookError(f"tokens: got {tokens}, expected tokens per sequence in this call, an int >= 1")
        fastest = min(self.levels, key=lambda v: v.period)
        need(
            tokens <= fastest.period,
            "tokens",
            tokens,
            f"at most {fastest.period}, the period of {fastest.name}: one "
            "backward pass cannot hold two of its updates; cut the call, or use CMS for updates inside a context",
        )
        heard = any(p.grad is not None for level in self.levels for p in level.params)
        need(heard, "gradients", "none since the last step", "some: call backward() before step()")
        moved = []
        for group, level in zip(self.param_groups, self.levels):
            for p, total in zip(level.params, level.gathered):
                if p.grad is not None:
                    total.add_(p.grad.to(total.dtype), alpha=tokens * weight)
                    p.grad = None
            level.tokens += tokens
            if level.tokens >= level.period:
                self._move(level, group["lr"])
                moved.append(level.name)
        return moved

    def _move(self, level: Level, lr: float) -> None:
        level.optimizer.param_groups[0]["lr"] = lr
        for p, total in zip(level.params, level.gathered):
            p.grad = (total / level.tokens if self.reduce == "mean" else total).to(p.dtype, copy=True)
            total.zero_()
        level.optimizer.step()
        for p in level.params:
            p.grad = None
        level.tokens, level.updates = 0, level.updates + 1

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear `.grad`; what the levels have gathered stays."""
        for p in self.asked:
            p.grad = None

    def moved_per_token(self) -> float:
        """Sum over levels of P_l / C_l."""
        return sum(sum(p.numel() for p in v.params) / v.period for v in self.levels)

    def nested_components(self, group: dict[str, Any]) -> list[Component]:
        """For `levels_of`: this group's weights, and what its optimizer keeps; periods in steps of one token."""
        from nlbook.levels.inspect import _state_components

        level = self.levels[group["level"]]
        found = _state_components(level.optimizer, level.optimizer.param_groups[0])
        return [Component(c.name, period=level.period, needs=c.needs, kind=c.kind) for c in found]

    def state_dict(self) -> dict[str, Any]:
        """In torch's form: what a level's optimizer keeps of a parameter, and what was gathered for it."""
        state: dict[int, dict[str, Any]] = {}
        groups = []
        for group, v in zip(self.param_groups, self.levels):
            held, own = v.optimizer.state_dict(), range(len(state), len(state) + len(v.params))
            state |= {n: {**held["state"].get(i, {}), "gathered": v.gathered[i].clone()} for i, n in enumerate(own)}
            counts = {"tokens": v.tokens, "updates": v.updates, "params": [*own]}
            groups.append({**held["param_groups"][0], **group, **counts})
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        periods, mine = [g["period"] for g in state["param_groups"]], [v.period for v in self.levels]
        need(periods == mine, "state", f"periods {periods}", f"{mine}")
        for group, v, saved in zip(self.param_groups, self.levels, state["param_groups"]):
            kept = [dict(state["state"][n]) for n in saved["params"]]
            v.tokens, v.updates = saved["tokens"], saved["updates"]
            for own, held in zip(v.gathered, kept):
                own.copy_(held.pop("gathered"))
            inner = v.optimizer.state_dict()["param_groups"][0]
            inner |= {k: saved[k] for k in inner if k != "params"}
            v.optimizer.load_state_dict(
                {"state": {i: held for i, held in enumerate(kept) if held}, "param_groups": [inner]}
            )
            group |= {k: saved[k] for k in saved if k in ("lr", "initial_lr")}


def stack_levels(
    model: nn.Module,
    periods: Sequence[int],
    *,
    lr: float | Sequence[float] = 1e-3,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    assign: Sequence[int] | None = None,
    rest: int | None = None,
    reduce: str = "mean",
    mlps: Sequence[str] | None = None,
    tokens: int | None = None,
) -> LevelStack:
    """Give the MLPs of a pre-trained decoder (torch or Hugging Face) their own periods. Function preserving.

    Args:
        model: anything `find_mlps` finds MLPs in. Its forward pass is not touched.
        periods: tokens (of one sequence) per update of each level.
        lr: one step size, or one per level.
        optimizer: `optimizer(params, lr=...)`, one instance per level, so each level has its own momentum or moments.
        assign: level of each MLP, in the model's order. Default: contiguous groups of near-equal size, in the order of
            `periods`, so that (64, 256, 1024) makes early blocks fast and late ones slow, as in figure 5.
        rest: period of everything that is no MLP; None freezes it (requires_grad=False).
        reduce: "mean" over the tokens of a chunk, or "sum".
        mlps: paths of the modules to use, as `model.named_modules()` spells them; None: what `find_mlps` finds.
        tokens: of one sequence in each step, for a loop that calls `step()` without them, such as `nlbook.train`.

    Gradients are gathered in float32 for half-precision weights. `LevelStack.unstack` gives the model back. With lr = 0
    the model stays the pre-trained one for ever; the deviation is linear in lr (section 7.3, eq. 70-71).
    """
    need(isinstance(periods, list | tuple) and len(periods) > 0, "periods", periods, "tokens per update, one per level")
    for c in periods:
        need(isinstance(c, int) and c >= 1, "periods", c, "ints >= 1")
    need(reduce in ("mean", "sum"), "reduce", repr(reduce), "'mean' or 'sum'")
    if mlps is None:
        found = find_mlps(model)
        need(bool(found), "model", "one without MLPs that find_mlps knows", "MLPs, or their paths in `mlps`")
    else:
        known = dict(model.named_modules())
        strange = [path for path in mlps if path not in known]
        some = f"paths of the model, such as {', '.join(list(known)[1:3])}"
        need(bool(mlps) and not strange, "mlps", strange or "no path", some)
        found = {path: list(known[path].parameters()) for path in mlps}
    k, n = len(periods), len(found)
    need(n >= k, "periods", f"{k} levels", f"at most {n}, the number of MLPs in the model")
    assign = [i * k // n for i in range(n)] if assign is None else list(assign)
    need(
        len(assign) == n and set(assign) == set(range(k)),
        "assign",
        assign,
        f"{n} levels from 0 to {k - 1}, one per MLP, each used",
    )
    rates: list[Any] = list(lr) if isinstance(lr, list | tuple) else [lr] * k
    need(len(rates) == k, "lr", f"{len(rates)} values", f"one, or {k}")
    owned: set[int] = set()
    groups: list[tuple[str, int, float, list[nn.Parameter], list[str]]] = []
    for i, c in enumerate(periods):
        blocks = [path for path, level in zip(found, assign) if level == i]
        params = list({id(p): p for b in blocks for p in found[b] if id(p) not in owned}.values())
        owned.update(id(p) for p in params)
        groups.append((f"C{c}" if list(periods).count(c) == 1 else f"C{c}.{i}", c, rates[i], params, blocks))
    others = [p for p in model.parameters() if id(p) not in owned]
    if rest is not None:
        need(isinstance(rest, int) and rest >= 1, "rest", rest, "tokens per update, an int >= 1, or None")
        groups.append(("rest", rest, rates[-1], others, []))
    levels = [
        Level(name, c, ps, blocks, optimizer(ps, lr=rate), gathered=[_wide(p) for p in ps])
        for name, c, rate, ps, blocks in groups
    ]
    asked = {p: p.requires_grad for p in model.parameters()}
    for p in others:
        p.requires_grad_(rest is not None)
    for v in levels:
        for p in v.params:
            p.requires_grad_(True)
    return LevelStack(levels, asked, reduce, tokens)


def _wide(p: Tensor) -> Tensor:
    """Zeros like p in float32 or wider: a sum of many bfloat16 numbers in bfloat16 stands still."""
    return torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
