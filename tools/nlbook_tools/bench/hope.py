"""Hope: the chunk-parallel form against the token loop, and against public memory modules where they are installed."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.door import door
from nlbook.hope import Hope, HopeConfig, HopeState
from nlbook.titans import NeuralMemory, Rule, SelfModifyingTitans
from nlbook.titans.layer import FastLayer
from nlbook.train import adamw
from nlbook_tools.bench.core import Report, compare

PEERS = ("gated_delta", "attention", "titans")
STEP_AIMS = {256: 4.0, 1024: 5.0}  # Hope's step against gated delta's
LOOP_AIM = 0.1  # the parallel form is to need at most a tenth of the token loop's time


def both_ways(layer: nn.Module, x: Tensor, **options: Any) -> Callable[[], object]:
    """One forward and backward pass."""

    def run() -> object:
        layer.zero_grad(set_to_none=True)
        y = layer(x, **options)
        (y[0] if isinstance(y, tuple) else y).square().mean().backward()
        return None

    return run


def forms(length: int, dim: int = 64, batch: int = 2, rounds: int = 3) -> list[Report]:
    """Token loop and chunk-parallel form of both layers, the same numbers out, forward and backward."""
    x = torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(0))
    out = []
    layers = {"self-modifying Titans": SelfModifyingTitans(dim), "Titans' memory": NeuralMemory(dim, chunk=64)}
    for name, layer in layers.items():
        out.append(
            compare(
                {"token loop": both_ways(layer, x, impl="tokens"), "chunk-parallel": both_ways(layer, x)},
                "token loop",
                title=f"{name}, forward + backward, batch {batch}, length {length}, dim {dim}",
                rounds=rounds,
                warmup=1,
                aims={"chunk-parallel": LOOP_AIM},
            )
        )
    return out


def operators(length: int, dim: int = 64, batch: int = 2, rounds: int = 3) -> list[Report]:
    """Layers whose rule is an operator of nlkernels: one call for whole chunks against this room's own pieces."""
    x = torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(0))
    layers: list[FastLayer] = [
        NeuralMemory(dim, chunk=64, memory="linear"),
        NeuralMemory(dim, chunk=64, memory="linear", rule=Rule(factor=None, read="after")),
        NeuralMemory(dim, chunk=64, rule=Rule(factor=None, read="after")),
        SelfModifyingTitans(dim, memory="linear", conv=0, activation="none", chunk=64, other_chunk=64),
    ]
    return [
        compare(
            {"pieces": both_ways(layer, x, impl="chunked"), str(layer.operator): both_ways(layer, x, impl="operator")},
            "pieces",
            rounds=rounds,
            warmup=1,
            title=f"{type(layer).__name__}, forward + backward, batch {batch}, length {length}, dim {dim}",
        )
        for layer in layers
    ]


def peers(
    length: int, dim: int = 64, batch: int = 2, rounds: int = 3, widths: tuple[int, ...] = (1, 4)
) -> list[Report]:
    """Two-layer memories with momentum and decay, of equal width, hidden width (1 and 4 times dim), chunk, batch and
    length, against public modules; those that are not installed are named.

    titans-pytorch's default takes all gradients of a call at the call's first weights, so nothing in it is sequential;
    with batch_size=64 they are taken at the weights of the last chunk, as here. Both are shown, and beside the default
    this layer with one chunk for the whole call. One difference stays: there a chunk has one decay and one momentum,
    and is read at its end; here every token has its own and reads what the tokens before it wrote.
    """
    x = torch.randn(batch, length, dim, generator=torch.Generator().manual_seed(0))
    out = []
    for wide in widths:
        ours = {"nlbook": 64, "nlbook, the call is one chunk": length}
        contestants = {n: both_ways(NeuralMemory(dim, hidden=wide * dim, chunk=c), x) for n, c in ours.items()}
        note = "titans-pytorch is not installed: not measured"
        if find_spec("titans_pytorch"):
            from titans_pytorch import NeuralMemory as Peer

            size = {"depth": 2, "expansion_factor": float(wide)}
            for name, options in (("same rule", {"batch_size": 64}), ("default", {})):
                peer = Peer(dim=dim, chunk_size=64, default_model_kwargs=size, **options)
                contestants[f"titans-pytorch, {name}"] = both_ways(peer, x)
            note = f"titans-pytorch {version('titans-pytorch')}; default: gradients at the call's first weights"
        title = (
            f"Titans' memory, forward + backward, batch {batch}, length {length}, dim {dim}, hidden {wide * dim}, "
            "chunk 64"
        )
        out.append(compare(contestants, "nlbook", title=title, rounds=rounds, warmup=1, note=note))
    return out


def models(length: int, batch: int, dim: int = 64, rounds: int = 3) -> Report:
    """One training step of Hope and of its baselines, equal in parameters; Hope also with long chunks."""
    tokens = torch.randint(64, (batch, length), generator=torch.Generator().manual_seed(0))

    def step(config: HopeConfig) -> Callable[[], object]:
        model = Hope(config)

        def run() -> object:
            model.zero_grad(set_to_none=True)
            return model.loss(tokens).backward()

        return run

    base = HopeConfig(vocabulary=64, dim=dim, hidden=dim)
    long = replace(base, options={"chunk": 64, "other_chunk": 64})
    runs = {"Hope": base, "Hope, chunks of 64": long, **{m: base.baseline(m) for m in PEERS}}
    return compare(
        {name: step(config) for name, config in runs.items()},
        "gated_delta",
        title=f"one training step, batch {batch}, length {length}, dim {dim}, 2 blocks, equal parameter counts",
        rounds=rounds,
        warmup=1,
        aims={"Hope": STEP_AIMS[length]} if length in STEP_AIMS else {},
    )


def generation(batch: int, dim: int = 64, tokens: int = 64, after: int = 4096, rounds: int = 3) -> Report:
    """The next tokens behind a prompt, and behind `after` tokens: a token of Hope costs the same wherever it stands."""
    base = HopeConfig(vocabulary=64, dim=dim, hidden=dim)
    text = torch.randint(64, (batch, after), generator=torch.Generator().manual_seed(0))
    runs: dict[str, Callable[[], object]] = {}
    for name in ("Hope", "attention"):
        model = Hope(base if name == "Hope" else base.baseline(name))
        for told, said in ((64, name), (after, f"{name}, behind {after} tokens")):
            with torch.no_grad():
                _, state = model(text[:, :told])
            runs[said] = partial(model.generate, text[:, :1], tokens, state=state, temperature=0)
    title = f"generate {tokens} tokens, batch {batch}, dim {dim}, 2 blocks"
    return compare(runs, "attention", title=title, rounds=rounds, warmup=1, aims={"Hope": 3.0})


def reading(after: int, dim: int = 64, part: int = 1024, rounds: int = 3) -> Report:
    """The first tokens of a stream, and those behind `after`: time and memory of a token do not grow."""
    g, runs = torch.Generator().manual_seed(0), dict[str, Callable[[], object]]()
    model = Hope(HopeConfig(vocabulary=64, dim=dim, hidden=dim))
    text = torch.randint(64, (1, part), generator=g)

    def read(state: HopeState | None) -> HopeState:
        with torch.no_grad():
            return model(text, state)[1]

    state = read(None)
    size, runs["first"] = state.numel(), partial(read, None)
    for _ in range(1, after // part):
        with torch.no_grad():
            _, state = model(torch.randint(64, (1, part), generator=g), state)
    runs["last"] = partial(read, state)
    note = f"the state holds {state.numel():,} numbers behind {state.position:,} tokens, {size:,} behind {part:,}"
    title = f"Hope reads {part} tokens at the start of a stream, and behind {after:,}, dim {dim}, 2 blocks"
    return compare(runs, "first", title=title, rounds=rounds, warmup=1, aims={"last": 1.2}, note=note)


def doors(length: int = 128, rounds: int = 25) -> Report:
    """One training step with the checks of public calls and without them. Both ways put doors in before the step, so
    that this costs the same; a CPU's clock is not steady, so many rounds.
    """
    plain = {
        (owner, name): f
        for module in [m for n, m in sys.modules.items() if n.startswith("nlbook.")]
        for owner in (module, *(c for c in vars(module).values() if inspect.isclass(c)))
        for name, f in vars(owner).items()
        if getattr(f, "__code__", None) is door(doors).__code__
    }
    model = Hope(HopeConfig(vocabulary=64, dim=32, layers=2, hidden=32))
    optimizer = adamw(model, 1e-3)
    tokens = torch.randint(64, (8, length), generator=torch.Generator().manual_seed(0))

    def step(checked: bool) -> None:
        for (owner, name), f in plain.items():
            setattr(owner, name, f if checked else f.__wrapped__)
        optimizer.zero_grad(set_to_none=True)
        model.loss(tokens).backward()
        optimizer.step()

    try:
        runs: dict[str, Callable[[], object]] = {f"{n} doors": partial(step, n == "with") for n in ("without", "with")}
        title = f"one training step of Hope, batch 8, length {length}, dim 32: {len(plain)} public calls have doors"
        return compare(runs, "without doors", title=title, rounds=rounds, aims={"with doors": 1.02})
    finally:
        for (owner, name), f in plain.items():
            setattr(owner, name, f)


def suite(quick: bool = True) -> list[Report]:
    """quick: one measured round, length 1024 at most; else five, the four shapes of the peers, a million tokens."""
    rounds = 1 if quick else 5
    shapes = [(2, 64, 1024)] if quick else [(1, 64, 256), (1, 128, 512), (4, 128, 512), (2, 64, 4096)]
    return [
        *forms(1024, rounds=rounds),
        *operators(1024, rounds=rounds),
        *(r for b, d, n in shapes for r in peers(n, d, b, rounds=rounds)),
        *(models(n, b, rounds=rounds) for n, b in ([(256, 8)] if quick else [(256, 8), (1024, 4)])),
        *(generation(b, after=512 if quick else 4096, rounds=rounds) for b in (1, 16)),
        reading(8192 if quick else 1_000_000, dim=16, rounds=rounds),
        doors(),
    ]
