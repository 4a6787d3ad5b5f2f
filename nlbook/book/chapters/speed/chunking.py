"""Chunks: how far a rule moves when its gradients are frozen at the chunk's start, how well a triangular system is
solved in float32, what a form costs in calls, FLOPs and bytes, and whether an output looks into the future.

But for `seconds`, every number is the same everywhere, up to rounding. More times stand in `nlbook bench kernels`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from nlbook.errors import need

CHUNKS = (1, 2, 4, 8, 16, 32, 64)
RULES = ("exact", "frozen", "eq. 93")
LENGTH, DIM = 256, 16


def stream(seeds: int, length: int = LENGTH, dim: int = DIM, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Unit keys and normal values (seeds, 1, length, dim) in float64, one sequence a seed: seed, seed + 1, ..."""
    drawn = []
    for s in range(seed, seed + seeds):
        g = torch.Generator().manual_seed(s)
        drawn.append(torch.randn(2, 1, length, dim, generator=g, dtype=torch.float64))
    k, v = torch.stack(drawn, 1)
    return normalize(k, dim=-1), v


def last_state(rule: str, eta: float, chunk: int, k: Tensor, v: Tensor) -> Tensor:
    """The memory (seeds, 1, dim, dim) after all tokens, from zero, alpha = 1, in chunks of `chunk` tokens.

    exact   the delta rule (eq. 65): every error is taken at M_{t-1}; the chunk changes nothing
    frozen  the same step with every error of a chunk taken at the chunk's start M_c
    eq. 93  frozen, with the erasing factor of delta gradient descent beside it
    """
    from nlkernels import linear_memory

    need(rule in RULES, "rule", repr(rule), f"one of {RULES}")
    rate = torch.full(k.shape[:-1], eta, dtype=k.dtype)
    erase = None if rule == "frozen" else rate
    objective = "dot" if rule == "exact" else "l2"
    return linear_memory(k, k, v, None, erase, rate, chunk=chunk, objective=objective, impl="chunked")[1]


@lru_cache(maxsize=256)
def chunk_error(rule: str, eta: float, chunk: int, seeds: int = 8, length: int = LENGTH, seed: int = 0) -> Tensor:
    """Relative distance (seeds,) of the last state from that of the same rule with chunks of one token.

    For the exact rule the baseline is the token loop itself.
    """
    k, v = stream(seeds, length, seed=seed)
    token_by_token = token_loop(k, k, v, eta)[1] if rule == "exact" else last_state(rule, eta, 1, k, v)
    apart = last_state(rule, eta, chunk, k, v) - token_by_token
    return apart.flatten(1).norm(dim=1) / token_by_token.flatten(1).norm(dim=1)


def token_loop(q: Tensor, k: Tensor, v: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """The delta rule by definition (eq. 65), one token after another; y_t = M_{t-1} q_t.

    q, k, v (..., length, dim) -> y (..., length, dim), M (..., dim, dim).
    """
    M = torch.zeros(*k.shape[:-2], v.shape[-1], k.shape[-1], dtype=k.dtype)
    y = []
    for t in range(k.shape[-2]):
        qt, kt, vt = (x[..., t, :, None] for x in (q, k, v))
        y.append(M @ qt)
        M = M + eta * (vt - M @ kt) @ kt.mT
    return torch.cat(y, -1).mT, M


def written_rows(S: Tensor, K: Tensor, V: Tensor, eta: float) -> Tensor:
    """What each token of a chunk really writes: E (C, d_v) with (I + eta tril(K K^T, -1)) E = eta (V - K S)."""
    L = eta * torch.tril(K @ K.mT, -1)
    eye = torch.eye(K.shape[-2], dtype=K.dtype)
    return torch.linalg.solve_triangular(eye + L, eta * (V - K @ S), upper=False, unitriangular=True)


def delta_chunk(S: Tensor, Q: Tensor, K: Tensor, V: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """One chunk of the delta rule at once: Y (C, d_v) and the next S = M^T (d_k, d_v); Q, K, V are its C rows."""
    E = written_rows(S, K, V, eta)
    return Q @ S + torch.tril(Q @ K.mT, -1) @ E, S + K.mT @ E


def in_chunks(
    q: Tensor, k: Tensor, v: Tensor, eta: float, chunk: int, step: Callable[..., tuple[Tensor, Tensor]] = delta_chunk
) -> tuple[Tensor, Tensor]:
    """`token_loop` with one `step` a chunk: what is left of the loop. The last chunk may be short."""
    S, y = torch.zeros(*k.shape[:-2], k.shape[-1], v.shape[-1], dtype=k.dtype), []
    for Q, K, V in zip(*(x.split(chunk, -2) for x in (q, k, v))):
        Y, S = step(S, Q, K, V, eta)
        y.append(Y)
    return torch.cat(y, -2), S.mT


# ---- three ways to solve (I + L) E = R ------------------------------------------------------------------------------


def by_rows(L: Tensor, R: Tensor) -> Tensor:
    """Forward substitution: row t needs the rows before it. C dependent steps."""
    E = R.clone()
    for t in range(1, len(L)):
        E[t] = R[t] - L[t, :t] @ E[:t]
    return E


def doubled_inverse(L: Tensor, size: int) -> Tensor:
    """(I + L)^-1 as (I - L)(I + L^2)(I + L^4)...: log2(size) dependent steps, exact on paper as L^size = 0."""
    X, power, n = torch.eye(len(L), dtype=L.dtype) - L, L @ L, 2
    while n < size:
        X, power, n = X + X @ power, power @ power, 2 * n
    return X


def by_doubling(L: Tensor, R: Tensor) -> Tensor:
    """The doubled inverse of the whole chunk, times R."""
    return doubled_inverse(L, len(L)) @ R


def by_blocks(L: Tensor, R: Tensor, block: int = 16) -> Tensor:
    """Rows inside blocks of 16, all blocks side by side; doubling only merges the blocks."""
    i = torch.arange(len(L)) // block
    inside = L * (i[:, None] == i)
    X = by_rows(inside, torch.eye(len(L), dtype=L.dtype))
    return doubled_inverse(X @ (L - inside), max(1, len(L) // block)) @ (X @ R)


SOLVERS = {"row by row": by_rows, "16-blocks": by_blocks, "doubling": by_doubling}
KEYS = ("random keys", "correlated keys", "one key, repeated")


def keys_of(kind: str, count: int, dim: int, g: torch.Generator) -> Tensor:
    """Unit keys (count, dim), float64: at random, with a mean cosine of one half, or all the same."""
    need(kind in KEYS, "kind", repr(kind), f"one of {KEYS}")
    k = normalize(torch.randn(count, dim, generator=g, dtype=torch.float64), dim=-1)
    common = normalize(torch.randn(dim, generator=g, dtype=torch.float64), dim=-1)
    return {
        "random keys": k,
        "correlated keys": normalize(k + common, dim=-1),
        "one key, repeated": k[:1].expand(count, -1),
    }[kind]


@lru_cache
def solve_errors(
    kind: str,
    sizes: tuple[int, ...] = (16, 32, 64, 128),
    seeds: int = 3,
    dim: int = 64,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """Relative error (seeds, sizes) of each solver in `dtype` against float64, at eta = 1 and no decay."""
    errors = {name: torch.zeros(seeds, len(sizes), dtype=torch.float64) for name in SOLVERS}
    for s in range(seeds):
        for c, size in enumerate(sizes):
            g = torch.Generator().manual_seed(seed + s)
            k = keys_of(kind, size, dim, g)
            L, R = torch.tril(k @ k.T, -1), torch.randn(size, dim, generator=g, dtype=torch.float64)
            truth = torch.linalg.solve_triangular(torch.eye(size, dtype=L.dtype) + L, R, upper=False)
            for name, solve in SOLVERS.items():
                got = solve(L.to(dtype), R.to(dtype)).double()
                errors[name][s, c] = (got - truth).norm() / truth.norm()
    return errors


# ---- what a form costs ----------------------------------------------------------------------------------------------


class _Calls(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.count += not getattr(func, "is_view", False)
        return out


def calls_and_flops(fn: Callable[[], Any]) -> tuple[int, int]:
    """How many operators torch runs inside `fn()` (views are free), and the FLOPs of its matrix products."""
    with _Calls() as calls, FlopCounterMode(display=False) as flops:
        fn()
    return calls.count, flops.get_total_flops()


def seconds(fn: Callable[[], Any], repeats: int = 7) -> float:
    """The shortest of several runs of `fn()`, on one thread: what other programs take from the machine is left out."""
    threads, took = torch.get_num_threads(), []
    torch.set_num_threads(1)
    for _ in range(repeats):
        start = time.perf_counter()
        fn()
        took.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return min(took)


@dataclass(frozen=True)
class Cost:
    """Arithmetic of one chunk of the frozen rule for one head: counted, not measured.

    Five products: K S, Q S and K^T E of 2 C d^2 FLOPs each, Q K^T and its product with E of 2 C^2 d each.
    on_chip: the memory stays in registers from chunk to chunk; else it is read and written once a chunk (float32).
    """

    chunk: int
    dim: int
    on_chip: bool = False
    width: int = 2  # bytes of one number of q, k, v, y: bf16

    @property
    def flops(self) -> int:
        return 6 * self.chunk * self.dim**2 + 4 * self.chunk**2 * self.dim

    @property
    def bytes(self) -> int:
        tokens = 4 * self.chunk * self.dim * self.width
        return tokens + (0 if self.on_chip else 2 * self.dim**2 * 4)

    @property
    def intensity(self) -> float:
        """FLOPs for each byte that travels."""
        return self.flops / self.bytes


@dataclass(frozen=True)
class Machine:
    """Two numbers: FLOP/s at best, bytes/s at best. Below the ridge, a kernel waits for memory."""

    name: str
    flops: float
    bytes: float

    @property
    def ridge(self) -> float:
        return self.flops / self.bytes

    def attainable(self, intensity: float) -> float:
        """FLOP/s under the roof."""
        return min(self.flops, intensity * self.bytes)


SHEET = (Machine("a data-centre GPU, bf16", 800e12, 3.0e12), Machine("one laptop core, float32", 100e9, 20e9))
"""Round numbers for two kinds of machine, to calculate with; `nlbook_tools.bench.kernels.machine` measures your own."""


# ---- does an output look into the future? ---------------------------------------------------------------------------

MASKS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "i < t (right)": lambda t, i: i < t,
    "i <= t": lambda t, i: i <= t,
    "i > t": lambda t, i: i > t,
    "no mask": lambda t, i: i >= 0,
}


def with_mask(mask: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """`delta_chunk` with another mask on Q K^T; the state is written as ever, so only the reads can be wrong."""

    def step(S: Tensor, Q: Tensor, K: Tensor, V: Tensor, eta: float) -> tuple[Tensor, Tensor]:
        i, E = torch.arange(K.shape[-2]), written_rows(S, K, V, eta)
        return Q @ S + (mask(i[:, None], i) * (Q @ K.mT)) @ E, S + K.mT @ E

    return step


def leaks(form: Callable[[Tensor, Tensor, Tensor], Tensor], k: Tensor, v: Tensor, at: int) -> tuple[int, int]:
    """Change the value of token `at`; how many outputs before it change, and how many after it.

    form(q, k, v) -> y (..., length, dim). A read before the write must not change at `at` either: it counts as before.
    """
    moved = v.clone()
    moved[..., at, :] += 1
    apart = (form(k, k, moved) - form(k, k, v)).abs().amax(-1)  # (..., length)
    changed = apart.reshape(-1, apart.shape[-1]).amax(0) > 1e-12
    return int(changed[: at + 1].sum()), int(changed[at + 1 :].sum())
