"""Attention as a memory without parameters: the fit behind softmax, the family as layers, AdaTransformer, costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import F64, apart, argmin, close, rand
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from nlbook import attention, memory
from nlbook.errors import NLBookError

EVERY = memory.names()
few = settings(max_examples=15, deadline=None)


# ---- softmax attention as a fit ----


@pytest.mark.eq(62)
@few
@given(
    st.integers(1, 9),
    st.integers(1, 5),
    st.sampled_from([None, 0.3, 1.0, 5.0]),
    st.sampled_from(["dot", "gaussian"]),
    st.integers(0, 1000),
)
def test_softmax_attention_is_the_weighted_least_squares_fit(n, d, temperature, kernel, seed):
    q, k, v = rand(d, seed=seed), rand(n, d, seed=seed + 1), rand(n, 3, seed=seed + 2)
    o = {"temperature": temperature, "kernel": kernel}
    zero = torch.zeros(3, dtype=F64)
    size = attention.fit_objective(zero, q, k, torch.ones(n, 3, dtype=F64), **o)  # scales the problem, moves no minimum
    best = argmin(lambda m: attention.fit_objective(m, q, k, v, **o) / size, zero)
    close(attention.nadaraya_watson(q[None], k, v, **o)[0], best, 1e-9)


@pytest.mark.eq(62)
def test_with_the_default_temperature_it_is_torchs_attention():
    q, k, v = rand(2, 3, 7, 4), rand(2, 3, 7, 4, seed=1), rand(2, 3, 7, 5, seed=2)
    for mask in (None, attention.causal_mask(7), attention.causal_mask(7, 3)):
        theirs = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        close(attention.nadaraya_watson(q, k, v, mask=mask), theirs)


@pytest.mark.eq(63)
def test_the_window_weighs_with_the_query_of_now():
    """Printed eq. 63 has s(k_i, q_i) in the objective: another vector. s(k_i, q_t) is sliding-window attention."""
    k, v, q = rand(7, 4), rand(7, 3, seed=1), rand(7, 4, seed=2)
    t, c = 5, 3
    span, zero = slice(t - c + 1, t + 1), torch.zeros(3, dtype=F64)
    windowed = attention.nadaraya_watson(q, k, v, mask=attention.causal_mask(7, c))[t]
    close(argmin(lambda m: attention.fit_objective(m, q[t], k[span], v[span]), zero), windowed)
    own = (k[span] * q[span]).sum(-1).div(2).exp()
    printed = argmin(lambda m: (own * (v[span] - m).square().sum(-1)).sum(), zero)
    apart(printed, windowed, 0.05)
    close(memory.make("sliding_window", window=c).scan(k, v, q, read="after")[0][t], windowed)


@pytest.mark.parametrize("read", ["before", "after"])
@pytest.mark.parametrize("recency", [1.0, 0.7])
@pytest.mark.parametrize("window", [None, 3])
def test_the_function_is_the_memory(read, recency, window):
    k, v, q = rand(2, 7, 4), rand(2, 7, 3, seed=1), rand(2, 7, 4, seed=2)
    y = attention.nadaraya_watson(q, k, v, recency=recency, mask=attention.causal_mask(7, window, read))
    mem = memory.make("softmax", keep=recency, window=window)
    close(mem.scan(k, v, q, read=read)[0], y)


def test_temperature_and_recency_at_their_ends():
    k, v, q = rand(6, 1), rand(6, 2, seed=1), rand(4, 1, seed=2)
    nearest = v[(q - k.T).abs().argmin(-1)]  # one dimension: the dial of the picture
    close(attention.nadaraya_watson(q, k, v, temperature=0.0, kernel="gaussian"), nearest)
    close(attention.nadaraya_watson(q, k, v, temperature=1e-9, kernel="gaussian"), nearest, 1e-6)
    close(attention.nadaraya_watson(q, k, v, temperature=float("inf")), v.mean(0).expand(4, 2))
    q6 = rand(6, 1, seed=3)
    newest = attention.nadaraya_watson(q6, k, v, recency=1e-12, mask=attention.causal_mask(6))
    close(newest, v, 1e-6)
    weights = attention.attention_weights(q6, k, mask=attention.causal_mask(6, read="before"))
    close(weights.sum(-1), torch.tensor([0.0, 1, 1, 1, 1, 1], dtype=F64))


# ---- the family as layers ----


@pytest.mark.eq(14, 16, 26, 61)
def test_layer_is_slow_projection_then_fast_read():
    """y_t = M_t (W_q x_t): printed eq. 26 feeds a row to a map of columns."""
    layer = attention.MemoryAttention(6, "hebbian", normalise=False).double()
    x = rand(2, 5, 6)
    y, state = layer(x)
    M = torch.zeros(2, 6, 6, dtype=F64)
    for t in range(5):
        k, v, q = (x[:, t] @ w.weight.T for w in (layer.k, layer.v, layer.q))
        M = M + v[:, :, None] * k[:, None, :]
        close(y[:, t], (M @ q[:, :, None])[..., 0] @ layer.o.weight.T)
    close(state.M[:, 0], M)


@pytest.mark.eq(24, 25)
def test_the_fast_state_conditions_the_slow_block():
    layer, x = attention.MemoryAttention(6, "delta").double(), rand(2, 5, 6)
    _, state = layer(x)
    apart(layer(x, state)[0], layer(x)[0])
    y = layer(x, state.detach())[0].sum()
    y.backward()
    assert layer.q.weight.grad.abs().max() > 0
    assert not state.detach().M.requires_grad


@pytest.mark.eq(61, 62, 63, 64, 65, 66, 67, 68)
@pytest.mark.parametrize("name", EVERY)
def test_every_member_is_a_causal_batched_streaming_layer(name):
    layer = attention.MemoryAttention(8, name, heads=2).double()
    x = rand(3, 6, 8)
    y, end = layer(x)
    assert y.shape == x.shape and y.dtype == F64
    first, state = layer(x[:, :2])
    rest, state = layer(x[:, 2:], state)
    close(torch.cat([first, rest], 1), y)
    close(state.M, end.M)
    close(layer(x[1:2])[0][0], y[1])
    later = x.clone()
    later[:, 4] += 1
    close(layer(later)[0][:, :4], y[:, :4], 0)
    y.square().sum().backward()
    for weight in (layer.k, layer.v, layer.q, layer.o):
        assert weight.weight.grad.isfinite().all() and weight.weight.grad.abs().max() > 0
    small = attention.MemoryAttention(8, name, heads=2)
    assert small(x.float())[0].dtype == torch.float32
    close(small(x.float())[0].double(), y.detach(), 1e-4)


@pytest.mark.parametrize("name", ["linear_attention", "gated_delta", "dgd", "softmax", "sliding_window"])
def test_layers_have_a_chunked_form(name):
    slow, fast = (attention.MemoryAttention(8, name, heads=2, impl=impl).double() for impl in ("loop", "chunked"))
    x = rand(3, 9, 8)
    close(fast(x)[0], slow(x)[0])


# ---- AdaTransformer ----


@pytest.mark.eq(21, 69)
@pytest.mark.parametrize("window", [None, 2])
def test_adatransformer_parallel_is_token_by_token(window):
    block, x = attention.AdaTransformerBlock(5, lr=0.7, window=window).double(), rand(3, 6, 5)
    y = block(x)
    close(y, block.by_token(x))
    k, v, q = (x @ w.weight.T for w in (block.k, block.v, block.q))  # and both are eq. 69 written out
    W = block.start.weight.expand(3, 5, 5)
    for t in range(6):
        first = 0 if window is None else max(0, t - window + 1)
        seen = slice(first, t + 1)
        weights = torch.softmax((q[:, t, None] * k[:, seen]).sum(-1) / 5**0.5, -1)
        attended = (weights[..., None] * v[:, seen]).sum(1)
        W = W + 0.7 * v[:, t, :, None] * k[:, t, None, :]
        close(y[:, t], (W @ attended[..., None])[..., 0])


@pytest.mark.eq(21, 69)
def test_printed_write_of_the_adatransformer_fails():
    """With the paper's rows v_t k_t^T is one number; k_t^T v_t is the write, and its matrix is the transposed state."""
    k, v, y = rand(1, 5), rand(1, 5, seed=1), rand(1, 5, seed=2)
    assert (v @ k.T).shape == (1, 1)
    W = rand(5, 5, seed=3)
    close(y @ (W + k.T @ v), ((W.T + v.T @ k) @ y.T).T)
    apart(y @ (W + v @ k.T), y @ (W + k.T @ v))


@pytest.mark.eq(21, 28)
def test_adatransformer_starts_as_attention_and_an_mlp_layer_and_learns_its_start():
    x = rand(2, 6, 5)
    plain = attention.AdaTransformerBlock(5, lr=0.0).double()
    close(plain(x), plain.attend(x)[0] @ plain.start.weight.T)  # nothing written: a linear layer behind attention
    block = attention.AdaTransformerBlock(5).double()
    block(x).square().sum().backward()
    assert block.start.weight.grad.abs().max() > 0
    later = x.clone()
    later[:, 4] += 1
    close(block(later)[:, :4], block(x)[:, :4], 0)


# ---- costs ----


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
    want = attention.cost(name, T, d)
    assert state.floats() == want.floats
    with Count() as count:
        mem.read(mem.write(state, k[T], v[T]), k[T])
    assert 0.99 * want.flops <= count.flops <= 4 / 3 * want.flops


def test_costs_grow_with_the_length_for_softmax_alone():
    for name in EVERY:
        short, long = attention.cost(name, 64, 32), attention.cost(name, 6400, 32)
        grows = (long.floats, long.flops) != (short.floats, short.flops)
        assert grows == (name == "softmax")
    assert attention.cost("softmax", 6400, 32).floats == 100 * attention.cost("softmax", 64, 32).floats
    d = 64  # attention holds less than a matrix memory up to about d / 2 tokens
    assert attention.cost("softmax", d // 2 - 1, d).floats < attention.cost("delta", 0, d).floats
    assert attention.cost("softmax", d // 2 + 1, d).floats > attention.cost("delta", 0, d).floats
    assert attention.cost("omega", 100, d, window=16).floats == d * d + 16 * (2 * d + 1)
    assert attention.cost("mlp", 100, d, hidden=8, steps=3).flops > 2 * attention.cost("mlp", 100, d, hidden=8).flops


def test_family_table_has_every_member():
    rows = attention.family(128, 16)
    assert [row["memory"] for row in rows] == EVERY
    assert {row["memory"]: row["floats of state"] for row in rows}["delta"] == "256"
    assert len(rows._repr_markdown_().splitlines()) == len(EVERY) + 2


def test_bad_input_names_the_argument():
    q, k, v = rand(3, 4), rand(5, 4), rand(5, 2)
    x = torch.zeros(2, 3, 8)
    for message, call in {
        "q: got shape": lambda: attention.nadaraya_watson(q[:, :3], k, v),
        r"q: got shape \(2, 3, 4\)": lambda: attention.nadaraya_watson(q.expand(2, 3, 4), k, v),
        "q: got torch.float32": lambda: attention.nadaraya_watson(q.float(), k, v),
        "v: got shape": lambda: attention.nadaraya_watson(q, k, v[:4]),
        "temperature: got -1": lambda: attention.nadaraya_watson(q, k, v, temperature=-1.0),
        "kernel: got 'cosine'": lambda: attention.nadaraya_watson(q, k, v, kernel="cosine"),
        "recency: got 0": lambda: attention.nadaraya_watson(k, k, v, recency=0.0),
        r"recency: got 0\.5, expected 1 unless": lambda: attention.nadaraya_watson(q, k, v, recency=0.5),
        "mask: got torch.float64": lambda: attention.nadaraya_watson(q, k, v, mask=torch.ones(3, 5, dtype=F64)),
        "window: got 0": lambda: attention.causal_mask(4, 0),
        "read: got 'now'": lambda: attention.causal_mask(4, read="now"),
        "heads: got 3": lambda: attention.MemoryAttention(8, heads=3),
        "name: got 'hopfield'": lambda: attention.MemoryAttention(8, "hopfield"),
        r"options: got \['lr'\]": lambda: attention.MemoryAttention(8, memory.make("delta"), lr=1.0),
        r"x: got shape \(3, 8\)": lambda: attention.MemoryAttention(8)(x[0]),
        r"x: got shape \(2, 3, 7\)": lambda: attention.AdaTransformerBlock(8)(x[..., :7]),
        "name: got 'rwkv'": lambda: attention.cost("rwkv", 8, 8),
        "length: got -1": lambda: attention.cost("delta", -1, 8),
        "d: got 0": lambda: attention.cost("delta", 1, 0),
    }.items():
        with pytest.raises(NLBookError, match=message):
            call()
