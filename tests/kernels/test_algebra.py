"""The parallel forms equal the token loops, in float64, values and gradients."""

from __future__ import annotations

import importlib
import itertools
from functools import partial

import nlkernels
import pytest
import torch
from nlkernels import (
    KernelError,
    delta_rule,
    gated_delta_rule,
    hope_memory,
    linear_attention,
    linear_memory,
    newton_schulz,
)

CHUNKED = importlib.import_module("nlkernels.linear_memory.chunked")  # the module; the package shows its function
SIDE_BY_SIDE = pytest.mark.parametrize("cached", [CHUNKED.CACHED, 0], ids=["all chunks at once", "one at a time"])
CASES = list(itertools.product(("dot", "l2"), ("start", "before", "after"), (False, True)))


@pytest.mark.eq(90, 92, 93)
@SIDE_BY_SIDE
@pytest.mark.parametrize(("objective", "read", "self_values"), CASES)
def test_chunked_linear_memory_is_the_token_loop(inputs, rel, monkeypatch, objective, read, self_values, cached):
    monkeypatch.setattr(CHUNKED, "CACHED", cached)
    for erases, decays, chunk, length in itertools.product((True, False), (True, False), (1, 8, 64), (1, 37)):
        x = inputs.linear(2, 2, length, 16, 12, self_values=self_values)
        x[4] = x[4] if erases else None
        x[3] = x[3] if decays else None
        options = {"chunk": chunk, "objective": objective, "read": read, "self_values": self_values}
        want = linear_memory(*x, impl="reference", **options)
        got = linear_memory(*x, impl="chunked", **options)
        assert max(map(rel, got, want)) < 1e-13, (erases, decays, chunk, length)


@SIDE_BY_SIDE
@pytest.mark.parametrize(("objective", "read", "self_values"), CASES)
def test_gradients_of_the_chunked_form_are_those_of_the_loop(
    inputs, rel, monkeypatch, objective, read, self_values, cached
):
    monkeypatch.setattr(CHUNKED, "CACHED", cached)
    x = inputs.linear(1, 2, 21, 6, 5, self_values=self_values)
    grads = []
    for impl in ("reference", "chunked"):
        leaves = [a.clone().requires_grad_() for a in x]
        y, M = linear_memory(*leaves, chunk=8, objective=objective, read=read, self_values=self_values, impl=impl)
        grads.append(torch.autograd.grad((y**2).sum() + (M**3).sum(), leaves))
    assert max(map(rel, grads[1], grads[0])) < 1e-12


def test_the_reference_is_the_printed_recurrence():
    """One token at a time, written out with outer products and no shared code."""
    torch.manual_seed(0)
    L, d = 7, 3
    q, k, v = (torch.randn(1, 1, L, d, dtype=torch.float64) for _ in range(3))
    a, e, h = (torch.rand(1, 1, L, dtype=torch.float64) for _ in range(3))
    M = start = torch.zeros(d, d, dtype=torch.float64)
    y, last = linear_memory(q, k, v, a, e, h, impl="reference", objective="l2", read="start", chunk=3)
    for t in range(L):
        start = M.clone() if t % 3 == 0 else start
        assert torch.allclose(y[0, 0, t], start @ q[0, 0, t], atol=1e-13)
        kt, vt = k[0, 0, t], v[0, 0, t]
        M = a[0, 0, t] * M - e[0, 0, t] * torch.outer(M @ kt, kt) - h[0, 0, t] * torch.outer(start @ kt - vt, kt)
    assert torch.allclose(last[0, 0], M, atol=1e-13)


@pytest.mark.eq(15, 16, 64)
def test_linear_attention_is_masked_attention_without_softmax(inputs, rel):
    q, k, v, alpha, *_ = inputs.linear(2, 2, 19, 8, 8)
    y, M = linear_attention(q, k, v)
    assert rel(y, (q @ k.mT).tril() @ v) < 1e-13
    assert rel(M, v.mT @ k) < 1e-13
    g = alpha.log().cumsum(-1)
    y, _ = linear_attention(q, k, v, alpha)
    assert rel(y, ((g[..., :, None] - g[..., None, :]).tril().exp().tril() * (q @ k.mT)) @ v) < 1e-13


@pytest.mark.eq(65)
def test_delta_rule_recalls_and_overwrites():
    k = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 3, 0]][None, None]
    v = torch.tensor([1.0, 2, 3, 4, 9], dtype=torch.float64)[None, None, :, None]
    _, M = delta_rule(k, k, v, torch.ones(1, 1, 5, dtype=torch.float64))
    assert torch.allclose((k @ M.mT).flatten(), torch.tensor([9.0, 2, 3, 4, 9], dtype=torch.float64))
    _, M = linear_attention(k, k, v)  # no erase: the overwritten key holds the sum
    assert (k @ M.mT)[0, 0, 0, 0] == 10


def test_gated_delta_rule_decays_then_corrects(inputs, rel):
    q, k, v, alpha, _, beta, M0 = inputs.linear(1, 1, 9, 5, 4)
    M = M0[0, 0]
    for t in range(9):
        kt = k[0, 0, t]
        M = alpha[0, 0, t] * (M - beta[0, 0, t] * torch.outer(M @ kt, kt)) + beta[0, 0, t] * torch.outer(v[0, 0, t], kt)
    assert rel(gated_delta_rule(q, k, v, alpha, beta, M0)[1][0, 0], M) < 1e-13


@pytest.mark.eq(92, 93)
def test_hope_recalls_v_with_the_dot_objective_and_half_of_it_with_l2():
    """Eq. 92 with the sign that descends has its fixed point at v; eq. 93 erases the pair twice and stops at v / 2."""
    k = torch.zeros(1, 1, 400, 4, dtype=torch.float64)
    k[..., 0] = 1
    v = torch.randn(4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).expand(1, 1, 400, 4)
    one, eta = torch.ones(1, 1, 400, dtype=torch.float64), torch.full((1, 1, 400), 0.1, dtype=torch.float64)
    for objective, share in (("dot", 1.0), ("l2", 0.5)):
        _, M = hope_memory(k, k, v, one, eta, objective=objective, chunk=4)
        assert torch.allclose(M[0, 0, :, 0], share * v[0, 0, 0], atol=1e-6)


@pytest.mark.eq(87)
def test_a_linear_memory_with_its_own_values_never_grows_in_rank(inputs):
    x = inputs.linear(1, 1, 64, 16, 16, self_values=True)
    x[-1] = x[-1][..., :3] @ torch.randn(3, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def rank(M):
        return torch.linalg.matrix_rank(M, rtol=1e-10).item()

    _, M = linear_memory(*x, objective="l2", read="start", chunk=16, self_values=True)
    _, other = linear_memory(*x, objective="l2", read="start", chunk=16)
    assert (rank(x[-1]), rank(M), rank(other)) == (3, 3, 16)
    x[-1] = torch.zeros_like(x[-1])
    assert not linear_memory(*x, objective="l2", chunk=16, self_values=True)[1].any()


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_state_in_state_out_is_one_call(inputs, rel, impl):
    *x, M0 = inputs.linear(2, 1, 40, 8, 8)
    for read, objective, cut in (("before", "dot", 13), ("after", "dot", 1), ("start", "l2", 16)):
        run = partial(linear_memory, chunk=8, read=read, objective=objective, impl=impl)
        y, M = run(*x, M0)
        y1, M1 = run(*(a[:, :, :cut] for a in x), M0)
        y2, M2 = run(*(a[:, :, cut:] for a in x), M1)
        assert rel(torch.cat([y1, y2], 2), y) < 1e-13 and rel(M2, M) < 1e-13


def test_what_is_worked_on_side_by_side():
    """A small input whole, a large one chunk by chunk; 32 tokens only where the rule does not say how many."""
    cpu = torch.device("cpu")
    assert CHUNKED.cutting(2, 256, 64, 32, True, cpu) == (64, 4, 4)
    assert CHUNKED.cutting(16, 1024, 64, 64, True, cpu) == (32, 32, 1)
    assert CHUNKED.cutting(16, 1000, 64, 64, False, cpu) == (64, 16, 1)
    assert CHUNKED.cutting(16, 1024, 64, 64, True, torch.device("meta")) == (64, 16, 16)
    assert CHUNKED.cutting(16, 3, 64, 64, True, cpu) == (3, 1, 1)


def test_repeated_keys_break_doubling_and_not_forward_substitution(inputs, rel):
    """alpha = 1, eta = 1, one key 64 times, float32: (I-L)(I+L^2)... is off by 1e8, the chunked form by 1e-6."""
    q, k, v, _, _, _, M0 = inputs.linear(1, 1, 64, 16, 16)
    k = k[:, :, :1].expand_as(k)
    one = torch.ones(1, 1, 64, dtype=torch.float64)
    want, _ = linear_memory(q, k, v, one, one, one, M0, impl="reference", read="after")
    got, _ = linear_memory(*(x.float() for x in (q, k, v, one, one, one, M0)), impl="chunked", read="after")
    assert rel(got, want) < 1e-5
    L = (k @ k.mT).tril(-1)[0, 0]
    right = torch.linalg.solve_triangular(torch.eye(64) + L, v[0, 0], upper=False)
    inverse, power = torch.eye(64) - L.float(), L.float() @ L.float()
    while power.any():
        inverse, power = inverse + inverse @ power, power @ power
    assert rel(inverse @ v[0, 0].float(), right) > 1e6


@pytest.mark.parametrize("least", [1e-6, 1e-30])
def test_alpha_near_zero_neither_overflows_nor_drifts(inputs, rel, least):
    x = inputs.linear(1, 2, 64, 8, 8)
    x[3] = torch.full_like(x[3], least)
    want = linear_memory(*x, impl="reference")
    leaves = [a.clone().requires_grad_() for a in x]
    got = linear_memory(*leaves, impl="chunked")
    assert max(map(rel, got, want)) < 1e-11
    (got[0].sum() + got[1].sum()).backward()
    assert all(torch.isfinite(a.grad).all() for a in leaves)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_half_precision_keeps_its_state_in_float32(inputs, rel, dtype):
    x = inputs.linear(1, 2, 40, 16, 16, dtype=dtype)
    y, M = linear_memory(*x, chunk=16)
    want, last = linear_memory(*(a.double() for a in x), impl="reference")
    assert y.dtype == dtype and M.dtype == torch.float32
    assert rel(y, want) < {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}[dtype]
    assert rel(M, last) < 1e-5


# ---------------------------------------------------------------------------------------------------- newton_schulz
@pytest.mark.eq(44)
def test_batched_newton_schulz_is_the_loop_over_matrices(rel):
    g = torch.Generator().manual_seed(0)
    for shape in ((24, 40), (40, 24), (3, 5, 8, 8), (2, 1, 7), (0, 4, 4)):
        G = torch.randn(*shape, generator=g, dtype=torch.float64)
        for coefficients, steps in (("quintic", 5), ("cubic", 12), ("cubic", 0)):
            want = newton_schulz(G, steps, coefficients, impl="reference")
            assert rel(newton_schulz(G, steps, coefficients), want) < 1e-12


@pytest.mark.eq(44)
def test_newton_schulz_finds_the_orthogonal_factor(rel):
    G = torch.randn(4, 12, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    assert rel(newton_schulz(G, 30, "cubic"), U @ Vh) < 1e-10
    X = newton_schulz(G)  # quintic: the same singular vectors, values near 1
    s = U.mT @ X @ Vh.mT
    assert (s - torch.diag_embed(s.diagonal(dim1=-2, dim2=-1))).abs().max() < 1e-10
    values = s.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.6 and values.max() < 1.25
    assert rel(newton_schulz(1000 * G), X) < 1e-6  # blind to the scale of G
    assert not newton_schulz(torch.zeros(3, 3)).any()  # and a zero gradient stays zero


def test_one_step_of_the_cubic_form_is_eq_44(rel):
    O = torch.randn(5, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    O = O / O.norm()
    assert rel(newton_schulz(O, 1, "cubic", eps=0.0), 1.5 * O - 0.5 * O @ O.mT @ O) < 1e-14


def test_a_list_is_grouped_by_shape_and_returned_in_order(rel):
    g = torch.Generator().manual_seed(0)
    G = [torch.randn(*s, generator=g) for s in ((4, 6), (6, 4), (4, 6), (2, 3, 3), (4, 6))]
    out = newton_schulz(G)
    assert isinstance(out, list)
    assert all(rel(o, newton_schulz(x)) < 1e-5 for o, x in zip(out, G))
    assert newton_schulz([]) == []


# ---------------------------------------------------------------------------------------------------- what errors say
def test_errors_name_the_argument_what_came_and_what_is_needed(inputs):
    q, k, v, alpha, _, _, M0 = inputs.linear()
    bad = [
        (lambda: linear_memory(q[..., :8], k, v), r"q has shape \(1, 2, 32, 8\), needed: \(1, 2, 32, 16\)"),
        (
            lambda: linear_memory(q, k, v, alpha[:, 0]),
            r"alpha has shape \(1, 32\), needed: \(1, 2, 32\) = \(batch, head, length\)",
        ),
        (lambda: linear_memory(q, k, v, alpha - 2), r"alpha has the value .*needed: positive.*sigmoid"),
        (lambda: linear_memory(q, k, v, M0=M0.mT[..., :3]), r"M0 has shape"),
        (lambda: linear_memory(q, k.float(), v), r"dtype of q, k, v is torch.float64, torch.float32"),
        (lambda: linear_memory(q, k, v, chunk=0), r"chunk is 0, needed: a positive int"),
        (lambda: linear_memory(q, k, v, read="later"), r"read is 'later', needed: 'start', 'before' or 'after'"),
        (lambda: linear_memory(q, k, v, impl="cuda"), r"impl is 'cuda', needed: one of"),
        (lambda: linear_memory(q, k, v[..., :3], self_values=True), r"with self_values the memory reads v"),
        (lambda: linear_memory(q.long(), k.long(), v.long()), r"dtype torch.int64"),
        (lambda: linear_memory(q, k[0], v), r"k is .*needed: a tensor \(batch, head, length, d_k\)"),
        (lambda: newton_schulz(torch.ones(3)), r"at least two dimensions"),
        (lambda: newton_schulz(torch.ones(3, 3), coefficients="septic"), r"coefficients is 'septic', needed: one of"),
        (lambda: newton_schulz([torch.ones(3, 3), 1]), r"G\[1\] is int"),
    ]
    for call, message in bad:
        with pytest.raises(KernelError, match=message):
            call()


def test_empty_length_returns_the_memory(inputs):
    q, k, v, *_, M0 = inputs.linear(length=1)
    y, M = linear_memory(q[:, :, :0], k[:, :, :0], v[:, :, :0], M0=M0)
    assert y.shape == (1, 2, 0, 16) and torch.equal(M, M0)


def test_available_names_this_machine():
    assert nlkernels.available()["chunked"] is True
