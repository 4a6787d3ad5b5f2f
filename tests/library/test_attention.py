"""Attention as a memory without parameters: the fit behind softmax, the family as layers, AdaTransformer, costs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kit import F64, apart, argmin, close, rand, refuses
from torch import nn

from nlbook import attention, memory

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


def test_bad_input_names_the_argument():
    q, k, v = rand(3, 4), rand(5, 4), rand(5, 2)
    x = torch.zeros(2, 3, 8)
    for argument, call in (
        ("q", lambda: attention.nadaraya_watson(q[:, :3], k, v)),
        ("q", lambda: attention.nadaraya_watson(q.expand(2, 3, 4), k, v)),
        ("q", lambda: attention.nadaraya_watson(q.float(), k, v)),
        ("v", lambda: attention.nadaraya_watson(q, k, v[:4])),
        ("temperature", lambda: attention.nadaraya_watson(q, k, v, temperature=-1.0)),
        ("kernel", lambda: attention.nadaraya_watson(q, k, v, kernel="cosine")),
        ("recency", lambda: attention.nadaraya_watson(k, k, v, recency=0.0)),
        ("recency", lambda: attention.nadaraya_watson(q, k, v, recency=0.5)),
        ("mask", lambda: attention.nadaraya_watson(q, k, v, mask=torch.ones(3, 5, dtype=F64))),
        ("window", lambda: attention.causal_mask(4, 0)),
        ("read", lambda: attention.causal_mask(4, read="now")),
        ("heads", lambda: attention.MemoryAttention(8, heads=3)),
        ("name", lambda: attention.MemoryAttention(8, "hopfield")),
        ("options", lambda: attention.MemoryAttention(8, memory.make("delta"), lr=1.0)),
        ("x", lambda: attention.MemoryAttention(8)(x[0])),
        ("x", lambda: attention.AdaTransformerBlock(8)(x[..., :7])),
    ):
        with refuses(argument):
            call()


@pytest.mark.parametrize("normalise", [True, False])
def test_the_layer_is_its_formula(normalise):
    """Two heads by hand: keys and queries to length 1 or as they are, one memory a head, the read after the write."""
    layer, x = attention.MemoryAttention(4, "delta", 2, normalise=normalise, lr=0.3, seed=1).double(), rand(2, 5, 4)
    length = lambda z: z / z.norm(dim=-1, keepdim=True) if normalise else z  # noqa: E731
    out = []
    for half in (slice(0, 2), slice(2, 4)):
        k, v, q = ((x @ w.weight.T)[..., half] for w in (layer.k, layer.v, layer.q))
        k, q, M, answers = length(k), length(q), torch.zeros(2, 2, 2, dtype=F64), []
        for t in range(5):
            error = (M @ k[:, t, :, None])[..., 0] - v[:, t]
            M = M - 0.3 * error[:, :, None] * k[:, t, None, :]
            answers.append((M @ q[:, t, :, None])[..., 0])
        out.append(torch.stack(answers, 1))
    close(layer(x)[0], torch.cat(out, -1) @ layer.o.weight.T)
