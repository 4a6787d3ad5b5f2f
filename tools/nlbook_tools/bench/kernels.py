"""The operators of nlkernels, measured: `nlbook bench kernels [--json] [--full]`.

Each report compares forms of one operator in one run, and its note gives the work (FLOPs, bytes) and the share of this
machine's roof: the time that the work would take at the matrix-product and copy rates measured beside it. On a CPU the
clock counts this process's CPU seconds; on a GPU it is wall time between synchronisations.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from nlbook.errors import generator
from nlbook_tools.bench.core import Report, compare


@dataclass(frozen=True)
class Machine:
    """Where the suite runs, and its roof."""

    device: str
    dtype: torch.dtype
    flops: float  # per second, a large matrix product
    bandwidth: float  # bytes per second, a large copy (read + write)

    @property
    def timing(self) -> dict[str, Any]:
        return {"clock": time.perf_counter, "sync": torch.cuda.synchronize} if self.device == "cuda" else {}


def machine() -> Machine:
    """Measure the roof of the device that the suite uses: CUDA where there is one, else one CPU thread pool."""
    gpu = torch.cuda.is_available()
    device, dtype = ("cuda", torch.bfloat16) if gpu else ("cpu", torch.float32)
    n, m = (8192, 1 << 28) if gpu else (1024, 1 << 24)
    a, big = torch.ones(n, n, device=device, dtype=dtype), torch.ones(m, device=device, dtype=dtype)
    out = torch.empty_like(big)
    clock = time.perf_counter if gpu else time.process_time

    def best(fn: Callable[[], object]) -> float:
        times = []
        for _ in range(6):
            if gpu:
                torch.cuda.synchronize()
            start = clock()
            fn()
            if gpu:
                torch.cuda.synchronize()
            times.append(clock() - start)
        return min(times[1:])

    return Machine(device, dtype, 2 * n**3 / best(lambda: a @ a), 2 * m * dtype.itemsize / best(lambda: out.copy_(big)))


def measured(report: Report, flops: float, size: float, on: Machine) -> Report:
    """The report with its work: FLOPs, bytes, every form's share of the roof and its speed against every other form.

    Args:
        flops, size: FLOPs and bytes that the operator needs at least.
    """
    roof = max(flops / on.flops, size / on.bandwidth)
    share = {r.name: roof / r.median for r in report.rows}
    facts = {
        "flops": flops,
        "bytes": size,
        "roof_flops_per_second": on.flops,
        "roof_bytes_per_second": on.bandwidth,
        "share_of_roof": share,
        "times_faster_than": {
            r.name: {o.name: o.median / r.median for o in report.rows if o is not r} for r in report.rows
        },
        "device": on.device,
        "versions": versions(),
    }
    fast = report.rows[-1].name if on.device == "cuda" else "chunked"
    note = (
        f"{flops / 1e9:.1f} GFLOP and {size / 1e6:.0f} MB at least; {fast} runs at "
        f"{share[fast]:.0%} of this machine's roof ({on.flops / 1e9:.0f} GFLOP/s, "
        f"{on.bandwidth / 1e9:.0f} GB/s, measured)"
    )
    return replace(report, note=note, facts=facts)


def linear_memory_work(batch: int, head: int, length: int, d: int, chunk: int, itemsize: int) -> tuple[float, float]:
    """(FLOPs, bytes) of one forward: per chunk two C x C x d scores, a solve, one C x C x d and three C x d x d
    products."""
    chunks = batch * head * -(-length // chunk)
    flops = chunks * (2 * 2 * chunk * chunk * d + 2 * chunk * chunk * d + 2 * chunk * chunk * d + 3 * 2 * chunk * d * d)
    return float(flops), float(batch * head * length * (4 * d * itemsize + 3 * 4))


def inputs(batch: int, head: int, length: int, d: int, on: Machine, seed: int = 0) -> list[Tensor]:
    """q, k, v, alpha, erase, write, M0 as a model makes them."""
    g = generator(seed)
    q, k, v = (torch.randn(batch, head, length, d, generator=g) for _ in range(3))
    alpha, eta = (torch.sigmoid(torch.randn(batch, head, length, generator=g) + shift) for shift in (3, 0))
    tokens = [x.to(on.device, on.dtype) for x in (normalize(q, dim=-1), normalize(k, dim=-1), v)]
    return [
        *tokens,
        alpha.to(on.device),
        eta.to(on.device),
        eta.to(on.device),
        torch.zeros(batch, head, d, d, device=on.device),
    ]


def lean_loop(
    q: Tensor, k: Tensor, v: Tensor, alpha: Tensor, erase: Tensor, write: Tensor, M0: Tensor
) -> tuple[Tensor, Tensor]:
    """The token loop as a careful programmer writes it (unbound inputs, baddbmm): a fairer baseline than the
    definition."""
    B, H, L, d = k.shape
    S = M0.mT.reshape(B * H, d, -1)
    ys = []
    for qt, kt, vt, a, e, w in zip(
        *(x.float().flatten(0, 1).unbind(1) for x in (q, k, v, alpha, erase, write)), strict=True
    ):
        ys.append(torch.bmm(qt[:, None], S))
        row = w[:, None, None] * vt[:, None] - e[:, None, None] * torch.bmm(kt[:, None], S)
        S = torch.baddbmm(a[:, None, None] * S, kt[:, :, None], row)
    return torch.cat(ys, 1).view(B, H, L, -1), S.view(B, H, d, -1).mT


def _compiler_works() -> bool:
    """Whether torch.compile can build C++ here (on a GPU it needs triton only)."""
    try:
        return bool(torch.compile(lambda x: torch.sin(x) + 1)(torch.ones(8)).sum() > 0)
    except Exception:
        return False


def fla_forms() -> dict[str, Callable[..., tuple[Tensor, Tensor]]]:
    """flash-linear-attention's delta and gated delta rule on our inputs (its layout is batch, length, head)."""
    from fla.ops.delta_rule import chunk_delta_rule
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule

    def theirs(x: Tensor) -> Tensor:
        return x.transpose(1, 2).contiguous()

    def delta(q, k, v, a, e, w, M0):
        return chunk_delta_rule(
            theirs(q), theirs(k), theirs(v), theirs(w.to(q.dtype)), scale=1.0, output_final_state=True
        )

    def gated(q, k, v, a, e, w, M0):
        return chunk_gated_delta_rule(
            theirs(q), theirs(k), theirs(v), theirs(a.log()), theirs(w.to(q.dtype)), scale=1.0, output_final_state=True
        )

    return {"fla delta_rule": delta, "fla gated_delta_rule": gated}


Forms = dict[str, Callable[..., Any]]  # a form's name -> what it makes of the inputs


def both_ways(
    title: str, forms: Forms, inputs: list[Tensor], work: tuple[float, float], on: Machine, rounds: int
) -> list[Report]:
    """Forward, and forward with backward, of several forms. On a GPU the token loop goes without a backward, for which
    it would keep every state of every token. `work`: FLOPs and bytes of one forward; a backward takes twice as much."""
    leaves = [x.requires_grad_() for x in inputs]

    def forward(fn: Callable[..., Any]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return fn(*leaves)

        return run

    def both(fn: Callable[..., Any]) -> Callable[[], object]:
        def run() -> object:
            out = fn(*leaves)
            return torch.autograd.grad(sum(o.float().sum() for o in out), leaves, allow_unused=True)

        return run

    found = []
    few = {n: fn for n, fn in forms.items() if on.device == "cpu" or "loop" not in n}
    for what, wrap, factor, which in (("forward", forward, 1.0, forms), ("forward and backward", both, 3.0, few)):
        contestants = {name: wrap(fn) for name, fn in which.items()}
        baseline = "token loop" if "token loop" in contestants else "chunked"
        aims = {n: aim for n, aim in AIMS.get((title.split()[0], what), {}).items() if n in contestants}
        title_ = f"{title.split(':')[0]}, {what}:{title.split(':')[1]}, {str(on.dtype)[6:]}, {on.device}"
        report = compare(contestants, baseline, rounds=rounds, warmup=1, title=title_, aims=aims, **on.timing)
        found.append(measured(report, factor * work[0], factor * work[1], on))
    return found


AIMS = {  # ratios to the token loop that RESULTS.md asks for
    ("linear_memory", "forward"): {"chunked": 1 / 8, "triton": 1 / 100},
    ("linear_memory", "forward and backward"): {"chunked": 1 / 20},
}


def memory_reports(
    on: Machine, rounds: int, size: tuple[int, int, int, int], compiled: bool, fused: bool
) -> list[Report]:
    """linear_memory, selfref_memory, titans_memory and mlp_memory at (batch, head, length, d)."""
    from nlkernels import SelfRefState, linear_memory, mlp_memory, selfref_memory, titans_memory
    from nlkernels.linear_memory import chunked

    B, H, L, d = size
    C = min(64, L)
    names = {"token loop": "reference", "chunked": "chunked", **({"triton": "triton"} if fused else {})}
    at = f"B {B}, H {H}, L {L}, d {d}, chunk {C}"
    g = generator(1)
    tokens = inputs(B, H, L, d, on)
    q, k, v, alpha, eta, *_ = tokens
    M, W1, W2, *more = (
        (torch.eye(d) / 2 + torch.randn(B, H, d, d, generator=g) / (2 * d**0.5)).to(on.device) for _ in range(6)
    )
    gates = [torch.zeros(B, H, d, device=on.device) for _ in range(2)]

    def selfref(x: Tensor, q: Tensor, *memories: Tensor, impl: str) -> tuple[Tensor, ...]:
        y, last = selfref_memory(x, q, SelfRefState(*memories), chunk=C, impl=impl)
        return y, *last

    linear: Forms = {n: functools.partial(linear_memory, impl=i, chunk=C) for n, i in names.items()}
    linear = {"token loop": linear.pop("token loop"), "token loop, lean": lean_loop, **linear}
    if compiled and _compiler_works():
        options = {"chunk": C, "objective": "dot", "read": "before", "self_values": False}
        linear["torch.compile(chunked)"] = torch.compile(lambda *a: chunked(*(x.float() for x in a), **options))
    if on.device == "cuda" and importlib.util.find_spec("fla"):
        linear |= fla_forms()
    item, chunks, states = on.dtype.itemsize, B * H * -(-L // C), B * H * L * d
    work = chunks * (8 * 2 * C * d * d + 2 * 2 * C * C * d + 3 * 2 * d**3)
    found = both_ways(f"linear_memory: {at}", linear, tokens, linear_memory_work(B, H, L, d, C, item), on, rounds)
    found += both_ways(
        f"selfref_memory: {at}",
        {n: functools.partial(selfref, impl=i) for n, i in names.items()},
        [q, k, M, W1, W2, *gates],
        (float(work), 3.0 * states * item),
        on,
        rounds,
    )
    found += both_ways(
        f"titans_memory: {at}",
        {n: functools.partial(titans_memory, impl=i, chunk=C) for n, i in names.items()},
        [q, k, v, alpha, alpha.detach() / 2, eta.detach() / 4, M, *more[:1]],
        (float(chunks * (3 * 2 * C * C * d + 5 * 2 * C * d * d + 2 * C**3)), 4.0 * states * item),
        on,
        rounds,
    )
    found += both_ways(
        f"mlp_memory: {at}",
        {n: functools.partial(mlp_memory, impl=i, chunk=C) for n, i in names.items()},
        [q, k, v, alpha, eta.detach() / 4, W1, W2],
        (float(chunks * (7 * 2 * C * d * d + 4 * 2 * C * C * d)), 4.0 * states * item),
        on,
        rounds,
    )
    return found


def newton_schulz_report(quick: bool, on: Machine) -> Report:
    from nlkernels import newton_schulz

    count, m, n = (96, 128, 128) if on.device == "cuda" else (96, 64, 64)
    G = torch.randn(count, m, n, generator=generator(0)).to(on.device, on.dtype)
    forms: dict[str, Callable[[], object]] = {
        "one matrix at a time": lambda: newton_schulz(G, impl="reference"),
        "chunked": lambda: newton_schulz(G, impl="chunked"),
    }
    if on.device == "cuda":
        forms["triton"] = lambda: newton_schulz(G, impl="triton")
    flops = 5 * count * (2 * 2 * m * m * n + 2 * m**3)
    report = compare(
        forms,
        "one matrix at a time",
        rounds=5 if quick else 15,
        title=f"newton_schulz, 5 steps of {count} matrices {m} x {n}, {str(on.dtype)[6:]}, {on.device}",
        **on.timing,
    )
    return measured(report, float(flops), float(2 * G.numel() * on.dtype.itemsize), on)


def versions() -> str:
    """What a figure has to be read with."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU at hand"
    triton = importlib.util.find_spec("triton")
    version = importlib.import_module("triton").__version__ if triton else "absent"
    return f"torch {torch.__version__}, triton {version}, {torch.get_num_threads()} thread(s), {gpu}"


def suite(quick: bool = True) -> list[Report]:
    """Forward, and with backward, of the memories; Newton-Schulz. On CUDA also the fused kernels."""
    on = machine()
    gpu = on.device == "cuda"
    size = (8, 16, 4096, 64) if gpu else (4, 4, 256 if quick else 1024, 64)
    with contextlib.ExitStack() as stack:
        if "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # two processes sharing one cache break each other
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            stack.callback(os.environ.pop, "TORCHINDUCTOR_CACHE_DIR")
        found = memory_reports(on, 3 if quick else 7, size, compiled=not quick, fused=gpu)
    found.append(newton_schulz_report(quick, on))
    first = found[0]
    return [replace(first, note=f"{first.note}\n  {versions()}"), *found[1:]]
