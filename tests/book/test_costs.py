"""The table of what each memory costs, counted on what really runs."""

from __future__ import annotations

import pytest
from kit import rand, refuses
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from nlbook import memory
from nlbook.book.chapters.attention import costs
from nlbook.door import door

EVERY = memory.names()


class Count(TorchDispatchMode):
    """Counts the FLOPs of what really runs: products of matrices, one for each entry of everything else."""

    free = (
        "_unsafe_view",
        "alias",
        "as_strided",
        "cat",
        "clone",
        "copy",
        "detach",
        "empty",
        "expand",
        "lift",
        "narrow",
        "new_",
        "ones",
        "permute",
        "reshape",
        "scalar",
        "select",
        "slice",
        "split",
        "squeeze",
        "t.",
        "transpose",
        "unsqueeze",
        "view",
        "zeros",
    )

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::") + "."
        if name.startswith(("mm.", "bmm.", "mv.", "dot.")):
            self.flops += 2 * args[0].numel() * (args[1].shape[-1] if args[1].ndim > 1 and name[0] != "d" else 1)
        elif not name.startswith(self.free) and isinstance(out, Tensor):
            self.flops += max(out.numel(), args[0].numel() if isinstance(args[0], Tensor) else 0)
        return out


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("d", [32, 64])
def test_cost_is_what_the_memory_holds_and_does(name, d):
    """Floats exactly; FLOPs as counted on paper, up to 4/3 more (the readable code multiplies by rates too)."""
    T = 40
    mem, k, v = memory.make(name), rand(T + 1, d) / d**0.5, rand(T + 1, d, seed=1)
    state = mem.write_all(k[:T], v[:T], lr=0.1)
    want = costs.cost(name, T, d)
    assert state.floats() == want.floats
    with Count() as count:
        door(lambda: mem.read(mem.write(state, k[T], v[T]), k[T]))()  # inside a call nothing is checked again
    assert 0.99 * want.flops <= count.flops <= 4 / 3 * want.flops


def test_costs_grow_with_the_length_for_softmax_alone():
    for name in EVERY:
        short, long = costs.cost(name, 64, 32), costs.cost(name, 6400, 32)
        grows = (long.floats, long.flops) != (short.floats, short.flops)
        assert grows == (name == "softmax")
    assert costs.cost("softmax", 6400, 32).floats == 100 * costs.cost("softmax", 64, 32).floats
    d = 64  # attention holds less than a matrix memory up to about d / 2 tokens
    assert costs.cost("softmax", d // 2 - 1, d).floats < costs.cost("delta", 0, d).floats
    assert costs.cost("softmax", d // 2 + 1, d).floats > costs.cost("delta", 0, d).floats
    assert costs.cost("omega", 100, d, window=16).floats == d * d + 16 * (2 * d + 1)
    assert costs.cost("mlp", 100, d, hidden=8, steps=3).flops > 2 * costs.cost("mlp", 100, d, hidden=8).flops


def test_family_table_has_every_member():
    rows = costs.family(EVERY, 128, 16)
    assert [row["memory"] for row in rows] == EVERY
    assert {row["memory"]: row["floats of state"] for row in rows}["delta"] == "256"
    assert len(rows._repr_markdown_().splitlines()) == len(EVERY) + 2


@pytest.mark.parametrize(
    ("argument", "asked"), [("name", ("rwkv", 8, 8)), ("length", ("delta", -1, 8)), ("d", ("delta", 1, 0))]
)
def test_what_has_no_cost_is_refused(argument, asked):
    with refuses(argument):
        costs.cost(*asked)
