"""Bad input to every public callable: a right number or one clear sentence of ours, no raw error, no silent NaN.

The draws are seeded. `pytest --fuzz 10000 tests/library/test_fuzz.py` makes more of them.
"""

from __future__ import annotations

import collections
import inspect
import random
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import nlkernels
import torch
from kit import rand
from torch import Tensor, nn

from nlbook import attention, cms, hope, levels, memory, optim, paper, titans, train
from nlbook.door import table
from nlbook.errors import NLBookError

ROOMS = (memory, attention, optim, levels, cms, titans, hope, train, paper, nlkernels)
OWN = (NLBookError, nlkernels.KernelError)
SHAPES = [(), (3,), (4,), (3, 4), (4, 4), (2, 3, 4), (1, 2, 3, 4), (1, 2, 3), (0, 4), (2, 0, 4)]
WORDS = [
    "delta",
    "softmax",
    "l2",
    "dot",
    "before",
    "after",
    "loop",
    "chunked",
    "exact",
    "mean",
    "bounded",
    "",
    "nonsense",
]


def tensors(draw: random.Random) -> Tensor:
    x = rand(*draw.choice(SHAPES), seed=draw.randrange(5), dtype=draw.choice([torch.float32] * 6 + [torch.float64]))
    spoilt = draw.random()
    if spoilt < 0.06 and x.numel():
        x.reshape(-1)[0] = draw.choice([float("nan"), float("inf")])
    return x.long() if 0.06 < spoilt < 0.1 else x


def anything(draw: random.Random) -> Any:
    """A value of any kind, right or wrong."""
    return draw.choice(
        [
            lambda: tensors(draw),
            lambda: draw.choice([-3, -1, 0, 1, 2, 3, 5]),
            lambda: draw.choice([-1.0, 0.0, 0.3, 1.0, 2.0, float("nan"), float("inf")]),
            lambda: draw.choice(WORDS),
            lambda: draw.choice([None, True, [], {}, (1, 2), [tensors(draw)], object()]),
            lambda: lambda x, *more: x,
            lambda: nn.Linear(4, 4),
            lambda: memory.make("delta").init(4, 4),
        ]
    )()


def fitting(draw: random.Random, tests: Any) -> Any:
    """A value that a door lets through, if a few tries find one."""
    for _ in range(60):
        x = anything(draw)
        if tests is None or tests[0](x):
            return x
    return anything(draw)


def instances(room: Any) -> Iterator[Any]:
    """Objects whose methods are called."""
    if room is memory:
        yield from map(memory.make, memory.names())
        yield memory.make("delta").init(4, 4)
        yield from (memory.rules.Retention(), memory.objectives.L2(), memory.objectives.Lp(), memory.objectives.Oja())
    elif room is attention:
        yield from (attention.MemoryAttention(4), attention.AdaTransformerBlock(4))
    elif room is optim:
        for cls in (optim.Momentum, optim.DeltaMomentum, optim.DeepMomentum, optim.Muon, optim.M3, optim.AdamMemory):
            yield cls([nn.Parameter(torch.ones(4, 4))])
    elif room is levels:
        system = levels.NestedSystem([levels.Component("W", 1, needs={"m"}), levels.Component("m", 1)], "step")
        yield from (system, system["W"], levels.Trace(nn.Linear(4, 4)))
    elif room is cms:
        yield from (layer := cms.CMS(4, 4, (2, 3)), layer.initial_state(2))
    elif room is titans:
        yield from (titans.SelfModifyingTitans(4), titans.NeuralMemory(4))
    elif room is hope:
        yield hope.Hope(hope.HopeConfig(vocabulary=5, dim=4, layers=1, hidden=4, periods=(2,)))


def public(room: Any) -> list[tuple[str, Callable[..., Any]]]:
    """Name and callable of each function, constructor and method of a room."""
    found = {}
    inner = [m for n, m in sys.modules.items() if n.startswith(f"{room.__name__}.") and n != "nlbook.hope.plain"]
    inner = [] if room is nlkernels else inner  # plain.py is read, and called with its own values only: it has no door
    for module in (room, *inner):
        for name, f in vars(module).items():
            own = getattr(f, "__module__", None) == module.__name__ or (
                module is room and name in getattr(room, "__all__", ())
            )
            refused = inspect.isclass(f) and (issubclass(f, Exception) or getattr(f, "_is_protocol", False))
            if own and not name.startswith("_") and (inspect.isfunction(f) or inspect.isclass(f)) and not refused:
                found[f"{module.__name__}.{name}"] = f
    for i, thing in enumerate(instances(room)):
        for name in dir(type(thing)):
            f = getattr(type(thing), name)
            ours = str(getattr(f, "__module__", "")).startswith("nlbook")
            if inspect.isfunction(f) and ours and not name.startswith("_"):
                found[f"{type(thing).__name__}.{name} {i}"] = getattr(thing, name)
    return sorted(found.items())


def arguments(draw: random.Random, f: Callable[..., Any]) -> dict[str, Any]:
    """Mostly fitting values for what must be given, and for some of what may be given."""
    target = f.__init__ if inspect.isclass(f) else f
    try:
        parameters = list(inspect.signature(f).parameters.values())
        _, tests = table(inspect.unwrap(getattr(target, "__func__", target)))
    except (ValueError, TypeError):
        return {}
    given = {}
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY) or p.name == "self":
            continue
        if p.default is p.empty or draw.random() < 0.25:
            given[p.name] = anything(draw) if draw.random() < 0.15 else fitting(draw, tests.get(p.name))
    return given


def free_of(spoilt: Callable[[Any], Any], x: Any) -> bool:
    """Whether no number in x is spoilt."""
    if isinstance(x, float) or (isinstance(x, Tensor) and x.is_floating_point()):
        return not bool(spoilt(torch.as_tensor(x)).any())
    if isinstance(x, tuple | list):
        return all(free_of(spoilt, part) for part in x)
    return free_of(spoilt, [*vars(x).values()]) if isinstance(x, memory.core.State) else True


def test_refusals_are_ours_and_finite_input_gives_no_nan(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some calls write files
    calls, draw = request.config.getoption("--fuzz"), random.Random(0)
    every = [(room.__name__, name, f) for room in ROOMS for name, f in public(room)]
    told: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
    strange = []
    for _ in range(calls):
        room, name, f = draw.choice(every)
        given = arguments(draw, f)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                result = f(**given)
                known = free_of(lambda t: ~t.isfinite(), [*given.values()])
                fine = ".held" in name or free_of(torch.isnan, result) or not known
                told[room]["fine" if fine else "NaN"] += 1
                if not fine:
                    strange.append((name, "NaN", given))
            except OWN:
                told[room]["own"] += 1
            except Exception as error:
                ours = not any(map(callable, given.values()))  # else what the caller gave may have raised it
                told[room]["foreign" if ours else "caller"] += 1
                strange.append((name, repr(error)[:120], {k: getattr(v, "shape", v) for k, v in given.items()}))
    own, foreign = (sum(t[word] for t in told.values()) for word in ("own", "foreign"))
    lines = "\n".join(str(s)[:300] for s in strange[:40])
    print({room: dict(t) for room, t in told.items()}, f"own: {own / (own + foreign):.1%}", lines, sep="\n")
    assert not sum(t["NaN"] for t in told.values()), lines
    assert own >= 0.97 * (own + foreign), lines
