"""The operators of nlkernels, measured: `nlbook bench kernels [--json] [--full]`.

Each report compares forms of one operator in one run, and its note gives the work (FLOPs, bytes) and the share of this
machine's roof: the time that the work would take at the matrix-product and copy rates measured beside it. On a CPU the
clock counts this process's CPU seconds; on a GPU it is wall time between synchronisations.
"""

from __future__ import annotations

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


def linear_memory_reports(quick: bool, on: Machine) -> list[Report]:
    from nlkernels import linear_memory
    from nlkernels.linear_memory import chunked

    B, H, L, d, C = (8, 16, 4096, 64, 64) if on.device == "cuda" else (4, 4, 1024, 64, 64)
    leaves = [x.requires_grad_() for x in inputs(B, H, L, d, on)]
    forms: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
        "token loop": lambda *a: linear_memory(*a, impl="reference"),
        "token loop, lean": lean_loop,
        "chunked": lambda *a: linear_memory(*a, impl="chunked", chunk=C),
    }
    if not quick and _compiler_works():
        compiled = torch.compile(
            lambda *a: chunked(*(x.float() for x in a), chunk=C, objective="dot", read="before", self_values=False)
        )
        forms["torch.compile(chunked)"] = compiled
    if on.device == "cuda":
        for impl in ("triton", "triton_fused", "triton_wy"):  # the rule's choice, and both forms by name
            forms[impl] = lambda *a, impl=impl: linear_memory(*a, impl=impl)
        if importlib.util.find_spec("fla"):
            forms = {**fla_forms(), **forms}

    def forward(fn: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return fn(*leaves)

        return run

    def both(fn: Callable[..., tuple[Tensor, Tensor]]) -> Callable[[], object]:
        def run() -> object:
            y, M = fn(*leaves)
            return torch.autograd.grad(y.float().sum() + M.sum(), leaves, allow_unused=True)

        return run

    flops, size = linear_memory_work(B, H, L, d, C, on.dtype.itemsize)
    found = []
    for what, wrap, factor, aims in (
        ("forward", forward, 1.0, {"chunked": 1 / 8, "triton": 1 / 100}),
        ("forward and backward", both, 3.0, {"chunked": 1 / 20}),
    ):
        report = compare(
            {name: wrap(fn) for name, fn in forms.items()},
            "token loop",
            rounds=3 if quick else 7,
            warmup=1,
            title=f"linear_memory, {what}: B {B}, H {H}, L {L}, d {d}, {str(on.dtype)[6:]}, {on.device}",
            aims={name: aim for name, aim in aims.items() if name in forms},
            **on.timing,
        )
        found.append(measured(report, factor * flops, factor * size, on))
    return found


def selfref_report(quick: bool, on: Machine) -> Report:
    from nlkernels import SelfRefState, selfref_memory

    B, H, L, d = (8, 16, 4096, 64) if on.device == "cuda" else (4, 4, 256 if quick else 1024, 64)
    g = generator(0)
    x, q = (torch.randn(B, H, L, d, generator=g).to(on.device, on.dtype) for _ in range(2))
    matrices = [(torch.eye(d) + torch.randn(B, H, d, d, generator=g) / d**0.5).to(on.device) for _ in range(3)]
    state = SelfRefState(*matrices, *(torch.zeros(B, H, d, device=on.device) for _ in range(2)))
    forms = {"token loop": "reference", "chunked": "chunked", **({"triton": "triton"} if on.device == "cuda" else {})}

    def form(impl: str) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return selfref_memory(x, q, state, chunk=64, impl=impl)

        return run

    title = f"selfref_memory, forward: B {B}, H {H}, L {L}, d {d}, {str(on.dtype)[6:]}, {on.device}"
    report = compare(
        {name: form(impl) for name, impl in forms.items()},
        "token loop",
        rounds=3 if quick else 7,
        warmup=1,
        title=title,
        **on.timing,
    )
    C = 64
    flops = B * H * -(-L // C) * (8 * 2 * C * d * d + 2 * 2 * C * C * d + 3 * 2 * d**3)
    return measured(report, float(flops), float(B * H * L * 3 * d * on.dtype.itemsize), on)


def mlp_report(quick: bool, on: Machine) -> Report:
    from nlkernels import mlp_memory

    B, H, L, d = (8, 16, 4096, 64) if on.device == "cuda" else (4, 4, 256 if quick else 1024, 64)
    C = 32
    q, k, v, alpha, eta, *_ = inputs(B, H, L, d, on)
    g = generator(1)
    W1, W2 = (torch.randn(B, H, d, d, generator=g).to(on.device) / d**0.5 for _ in range(2))
    forms = {"token loop": "reference", "chunked": "chunked", **({"triton": "triton"} if on.device == "cuda" else {})}

    def form(impl: str) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return mlp_memory(q, k, v, alpha, 0.5 * eta, W1, W2, chunk=C, impl=impl)

        return run

    title = f"mlp_memory, forward: B {B}, H {H}, L {L}, d {d}, h {d}, chunk {C}, {str(on.dtype)[6:]}, {on.device}"
    report = compare(
        {name: form(impl) for name, impl in forms.items()},
        "token loop",
        rounds=3 if quick else 7,
        warmup=1,
        title=title,
        **on.timing,
    )
    flops = B * H * -(-L // C) * (7 * 2 * C * d * d + 4 * 2 * C * C * d)
    return measured(report, float(flops), float(B * H * L * 4 * d * on.dtype.itemsize), on)


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
    """Forward, and with backward, of linear_memory; the forwards of selfref_memory, mlp_memory and newton_schulz. On
    CUDA also the fused kernels."""
    on = machine()
    if not quick and "TORCHINDUCTOR_CACHE_DIR" not in os.environ:  # two processes sharing one cache break each other
        with tempfile.TemporaryDirectory() as folder:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
            try:
                found = linear_memory_reports(quick, on)
            finally:
                del os.environ["TORCHINDUCTOR_CACHE_DIR"]
    else:
        found = linear_memory_reports(quick, on)
    found += [selfref_report(quick, on), mlp_report(quick, on), newton_schulz_report(quick, on)]
    first = found[0]
    return [replace(first, note=f"{first.note}\n  {versions()}"), *found[1:]]
