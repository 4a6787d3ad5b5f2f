"""Building blocks of the kernels: small @triton.jit functions, each usable compiled and interpreted.

Two constexprs run through all kernels. ACC is the dtype of states and sums (float32; float64 in the interpreter). PREC
says how `dot` multiplies: "ieee" (exact; only for the interpreter: at C = 64 it spills 42 KB a thread on a GPU),
"tf32" (float32 on tensor cores), "bf16", "fp16", and "bf16_emu", which rounds to bf16 and multiplies in float32,
since the interpreter cannot multiply bf16.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl


@triton.jit
def dot(a, b, PREC: tl.constexpr):
    """a @ b, accumulated in float32 (float64 for float64)."""
    if PREC == "bf16":
        r = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    elif PREC == "fp16":
        r = tl.dot(a.to(tl.float16), b.to(tl.float16))
    elif PREC == "bf16_emu":
        r = tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32), input_precision="ieee")
    else:
        r = tl.dot(a, b, input_precision=PREC)
    return r


@triton.jit
def dot_add(a, b, to, PREC: tl.constexpr):
    """to + a @ b, summed in place: one accumulator fewer than `to + dot(a, b)`."""
    if PREC == "bf16":
        r = tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16), to)
    elif PREC == "fp16":
        r = tl.dot(a.to(tl.float16), b.to(tl.float16), to)
    elif PREC == "bf16_emu":
        r = tl.dot(a.to(tl.bfloat16).to(tl.float32), b.to(tl.bfloat16).to(tl.float32), to, input_precision="ieee")
    elif PREC == "ieee":
        r = to + tl.dot(a, b, input_precision=PREC)  # tl.dot takes no float64 accumulator
    else:
        r = tl.dot(a, b, to, input_precision=PREC)
    return r


@triton.jit
def operand(x, PREC: tl.constexpr):
    """x in the dtype that `dot` multiplies. Cast BEFORE a transpose: a float32 tile in a right operand's layout holds
    the whole matrix in every warp, 128 registers a thread at 64 x 64."""
    if PREC == "bf16":
        r = x.to(tl.bfloat16)
    elif PREC == "fp16":
        r = x.to(tl.float16)
    elif PREC == "bf16_emu":
        r = x.to(tl.bfloat16).to(tl.float32)
    else:
        r = x
    return r


@triton.jit
def dot_t(a, b, PREC: tl.constexpr):
    """a @ b^T, b a register tile."""
    return dot(a, tl.trans(operand(b, PREC)), PREC)


@triton.jit
def product(
    acc,
    a,
    AR: tl.constexpr,
    AK: tl.constexpr,
    rows,
    row_ok,
    b,
    BK: tl.constexpr,
    BJ: tl.constexpr,
    cols,
    col_ok,
    K,
    STEP: tl.constexpr,
    PREC: tl.constexpr,
    ACC: tl.constexpr,
    scale=None,
):
    """acc + A diag(scale) B, both read from memory, STEP of the K summed indices at a time: so few registers hold a
    product of any size. A[r, m] lies at a + r AR + m AK, B[m, j] at b + m BK + j BJ; rows and columns that are not ok
    count as 0. A transposed operand is a matter of strides, never of registers."""
    for at in tl.range(0, K, STEP, disable_licm=True):
        m = at + tl.arange(0, STEP)
        A = tl.load(a + rows[:, None] * AR + m[None, :] * AK, mask=row_ok[:, None] & (m[None, :] < K), other=0.0)
        A = A.to(ACC)
        if scale is not None:
            A = A * tl.load(scale + m, mask=m < K, other=0.0).to(ACC)[None, :]
        B = tl.load(b + m[:, None] * BK + cols[None, :] * BJ, mask=(m[:, None] < K) & col_ok[None, :], other=0.0)
        acc = dot_add(A, B.to(ACC), acc, PREC)
    return acc


@triton.jit
def gram(a, b, i, live, D: tl.constexpr, C: tl.constexpr, R: tl.constexpr, PREC: tl.constexpr, ACC: tl.constexpr):
    """a b^T of the rows of a chunk, (C, C), from memory; rows have D numbers."""
    return product(tl.zeros([C, C], ACC), a, D, 1, i, live, b, 1, D, i, live, D, R, PREC, ACC)


@triton.jit
def put(p, x, ok):
    """Store x in p's dtype where ok."""
    tl.store(p, x.to(p.dtype.element_ty), mask=ok)


@triton.jit
def tile(p, rows, cols, stride, row_ok, col_ok, ACC: tl.constexpr):
    """Load p[rows, cols] as ACC, 0 outside. Pass rows along the last axis to get the tile transposed."""
    return tl.load(p + rows * stride + cols, mask=row_ok & col_ok, other=0.0).to(ACC)


@triton.jit
def decay(to, frm, keep):
    """exp(to_t - from_i) where `keep`, else 0; masked BEFORE exp, so that it can neither overflow nor make inf * 0."""
    return tl.exp(tl.where(keep, to - frm, float("-inf")))


@triton.jit
def gates(log_alpha, r, ok, C: tl.constexpr, DECAY: tl.constexpr, ACC: tl.constexpr):
    """Cumulated log retention of a chunk: g_t = sum_{j<=t} a_j, g'_t = g_t - a_t, and the sum over the chunk."""
    if DECAY:
        a = tl.load(log_alpha + r, mask=ok, other=0.0).to(ACC)
    else:
        a = tl.zeros([C], ACC)
    g = tl.cumsum(a, 0)
    return g, g - a, tl.sum(a, 0)


@triton.jit
def solve_rows(Lm, R, C: tl.constexpr):
    """(I + L)^-1 R by forward substitution, L strictly lower triangular (C, C): C dependent steps, always stable."""
    i = tl.arange(0, C)
    for t in range(1, C):
        row = tl.sum(tl.where(i[:, None] == t, Lm, 0.0), 0)
        done = tl.sum(row[:, None] * R, 0)
        R = tl.where(i[:, None] == t, R - done[None, :], R)
    return R


@triton.jit
def solve_rows_t(Lm, R, C: tl.constexpr):
    """(I + L)^-T R by backward substitution: the gradient of `solve_rows` with respect to R."""
    i = tl.arange(0, C)
    for j in range(1, C):
        t = C - 1 - j
        col = tl.sum(tl.where(i[None, :] == t, Lm, 0.0), 1)
        done = tl.sum(col[:, None] * R, 0)
        R = tl.where(i[:, None] == t, R - done[None, :], R)
    return R


@triton.jit
def mask_dot(a, b, PREC: tl.constexpr):
    """a @ b for decays and 0/1 masks, never in half precision: TF32 on a GPU, exactly in the interpreter."""
    if PREC == "ieee" or PREC == "bf16_emu":
        r = tl.dot(a, b, input_precision="ieee")
    else:
        r = tl.dot(a, b, input_precision="tf32")
    return r


@triton.jit
def suffix_sum(x, C: tl.constexpr):
    """y_j = sum_{i>=j} x_i: the gradient of a cumulated sum."""
    i = tl.arange(0, C)
    return tl.sum(tl.where(i[:, None] >= i[None, :], x[:, None], 0.0), 0)


@triton.jit
def later(x, C: tl.constexpr):
    """y_j = sum_{i>j} x_i."""
    i = tl.arange(0, C)
    return tl.sum(tl.where(i[:, None] > i[None, :], x[:, None], 0.0), 0)


@triton.jit
def earlier(x, C: tl.constexpr):
    """y_j = sum_{i<j} x_i."""
    i = tl.arange(0, C)
    return tl.sum(tl.where(i[:, None] < i[None, :], x[:, None], 0.0), 0)


@triton.jit
def crossing(X, i, BEFORE: tl.constexpr, C: tl.constexpr):
    """y_s = the sum of X_ti over t >= s > i (BEFORE: t > s > i), X (C, C) of rows t and columns i: the gradient of log
    alpha_s through decays from token i to token t (to t - 1). Pairs that do not cross s are in no sum (gates.py)."""
    t = tl.arange(0, C)
    below = tl.cumsum(X, 0, reverse=True)  # of rows from t on
    if BEFORE:  # y_s is made in row s + 1
        y = tl.sum(tl.where(i[None, :] + 1 < t[:, None], below, 0.0), 1)
        y = tl.sum(tl.where(t[:, None] == t[None, :] + 1, y[:, None], 0.0), 0)
    else:
        y = tl.sum(tl.where(i[None, :] < t[:, None], below, 0.0), 1)
    return y


def block(d: int) -> int:
    """The tile side for a dimension: the next power of two, at least 16 (the smallest tensor-core product)."""
    return max(16, triton.next_power_of_2(d))


def settings(like: torch.Tensor) -> dict[str, Any]:
    """ACC and PREC for tensors like this one."""
    gpu = like.device.type == "cuda"
    precise = "tf32" if gpu else "ieee"
    prec = {
        torch.float64: "ieee",
        torch.float32: precise,
        torch.float16: "fp16",
        torch.bfloat16: "bf16" if gpu else "bf16_emu",
    }
    return {"PREC": prec[like.dtype], "ACC": tl.float64 if like.dtype == torch.float64 else tl.float32}
