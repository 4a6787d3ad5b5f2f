"""Hope: the chunk-parallel form against the token loop, and against public memory modules where they are installed."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from nlbook.hope import MIXERS, Hope, HopeConfig
from nlbook.titans import NeuralMemory, Rule, SelfModifyingTitans
from nlbook.titans.layer import FastLayer
from nlbook_tools.bench.core import Report, compare

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


def models(length: int = 256, dim: int = 32, batch: int = 8, rounds: int = 3) -> Report:
    """One training step of Hope and of its baselines, equal in parameters and code path."""
    base = HopeConfig(vocabulary=64, dim=dim, layers=2, hidden=dim, options={"read": "after", "chunk": 64})
    tokens = torch.randint(64, (batch, length), generator=torch.Generator().manual_seed(0))

    def step(config: HopeConfig) -> Callable[[], object]:
        model = Hope(config)

        def run() -> object:
            model.zero_grad(set_to_none=True)
            return model.loss(tokens).backward()

        return run

    runs = {"Hope": step(base), **{m: step(base.baseline(m)) for m in MIXERS}}
    title = f"one training step, batch {batch}, length {length}, dim {dim}, 2 blocks, equal parameter counts"
    return compare(runs, "attention", title=title, rounds=rounds, warmup=1)


def suite(quick: bool = True) -> list[Report]:
    """quick: one measured round at length 1024; else five, and wider models."""
    rounds = 1 if quick else 5
    return [
        *forms(1024, rounds=rounds),
        *operators(1024, rounds=rounds),
        *peers(1024, rounds=rounds),
        models(128 if quick else 512, rounds=3),
    ]
