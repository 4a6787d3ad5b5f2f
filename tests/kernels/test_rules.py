"""What the operators compute: the printed rules written out by hand, and what follows from them."""

from __future__ import annotations

import pytest
import torch
from nlkernels import (
    SelfRefState,
    delta_rule,
    gated_delta_rule,
    hope_memory,
    linear_attention,
    linear_memory,
    mlp_memory,
    newton_schulz,
    selfref_memory,
    titans_memory,
)
from torch.nn.functional import silu

F64 = torch.float64


def alone(inputs):
    """The inputs of one sequence and head."""
    return [a[0, 0] for a in inputs]


def test_the_linear_memory_is_the_printed_recurrence(draw):
    """One token at a time, written out with outer products and no shared code."""
    x = draw(7, 3).linear()
    y, last = linear_memory(*x, impl="reference", objective="l2", read="start", chunk=3)
    q, k, v, a, e, h, M = alone(x)
    for t in range(7):
        if t % 3 == 0:
            start = M.clone()
        assert torch.allclose(y[0, 0, t], start @ q[t], atol=1e-13)
        M = a[t] * M - e[t] * torch.outer(M @ k[t], k[t]) - h[t] * torch.outer(start @ k[t] - v[t], k[t])
    assert torch.allclose(last[0, 0], M, atol=1e-13)


@pytest.mark.eq(15, 16, 64)
def test_linear_attention_is_masked_attention_without_softmax(draw, rel):
    q, k, v, alpha, *_ = draw(19, 8, batch=2, head=2).linear()
    y, M = linear_attention(q, k, v)
    assert rel(y, (q @ k.mT).tril() @ v) < 1e-13
    assert rel(M, v.mT @ k) < 1e-13
    g = alpha.log().cumsum(-1)
    y, _ = linear_attention(q, k, v, alpha)
    assert rel(y, ((g[..., :, None] - g[..., None, :]).tril().exp().tril() * (q @ k.mT)) @ v) < 1e-13


@pytest.mark.eq(65)
def test_delta_rule_recalls_and_overwrites():
    k = torch.eye(4, dtype=F64)[[0, 1, 2, 3, 0]][None, None]
    v = torch.tensor([1.0, 2, 3, 4, 9], dtype=F64)[None, None, :, None]
    _, M = delta_rule(k, k, v, torch.ones(1, 1, 5, dtype=F64))
    assert torch.allclose((k @ M.mT).flatten(), torch.tensor([9.0, 2, 3, 4, 9], dtype=F64))
    _, M = linear_attention(k, k, v)  # no erase: the overwritten key holds the sum
    assert (k @ M.mT)[0, 0, 0, 0] == 10


def test_gated_delta_rule_decays_then_corrects(draw, rel):
    q, k, v, alpha, _, beta, M0 = draw(9, 5, 4).linear()
    M = M0[0, 0]
    for t in range(9):
        kt, a, b = k[0, 0, t], alpha[0, 0, t], beta[0, 0, t]
        M = a * (M - b * torch.outer(M @ kt, kt)) + b * torch.outer(v[0, 0, t], kt)
    assert rel(gated_delta_rule(q, k, v, alpha, beta, M0)[1][0, 0], M) < 1e-13


@pytest.mark.eq(92, 93)
def test_hope_recalls_v_with_the_dot_objective_and_half_of_it_with_l2(draw):
    """Eq. 92 with the sign that descends has its fixed point at v; eq. 93 erases the pair twice and stops at v / 2."""
    k = torch.eye(4, dtype=F64)[0].expand(1, 1, 400, 4)
    v = draw(1, 4)(4)[:, :, None].expand(1, 1, 400, 4)
    one, eta = torch.ones(1, 1, 400, dtype=F64), torch.full((1, 1, 400), 0.1, dtype=F64)
    for objective, share in (("dot", 1.0), ("l2", 0.5)):
        _, M = hope_memory(k, k, v, one, eta, objective=objective, chunk=4)
        assert torch.allclose(M[0, 0, :, 0], share * v[0, 0, 0], atol=1e-6)


def rank(M):
    return torch.linalg.matrix_rank(M, rtol=1e-10).item()


@pytest.mark.eq(87)
def test_a_linear_memory_with_its_own_values_never_grows_in_rank(draw):
    x = draw(64, 16).linear(self_values=True)
    x[-1] = x[-1][..., :3] @ draw(1, 16)(3, 16)
    _, M = linear_memory(*x, objective="l2", read="start", chunk=16, self_values=True)
    _, other = linear_memory(*x, objective="l2", read="start", chunk=16)
    assert (rank(x[-1]), rank(M), rank(other)) == (3, 3, 16)
    x[-1] = torch.zeros_like(x[-1])
    assert not linear_memory(*x, objective="l2", chunk=16, self_values=True)[1].any()


def test_titans_is_the_printed_rule(draw):
    x = draw(4, 3, 2).titans()
    y, last, momentum = titans_memory(*x, chunk=1, impl="reference")
    q, k, v, alpha, mu, eta, M, S = alone(x)
    for t in range(4):
        S = mu[t] * S - eta[t] * torch.outer(M @ k[t] - v[t], k[t])
        M = alpha[t] * M + S
        assert torch.allclose(y[0, 0, t], M @ q[t], atol=1e-13)
    assert torch.allclose(last[0, 0], M, atol=1e-13) and torch.allclose(momentum[0, 0], S, atol=1e-13)


def test_titans_without_momentum_is_the_linear_memory_with_the_l2_objective(draw, rel):
    q, k, v, alpha, mu, eta, M0, S0 = draw(37, 8, 12, head=2).titans()
    y, M, _ = titans_memory(q, k, v, alpha, torch.zeros_like(mu), eta, M0, torch.zeros_like(S0), chunk=16)
    want = linear_memory(q, k, v, alpha, None, eta, M0, chunk=16, objective="l2", read="after")
    assert max(map(rel, (y, M), want)) < 1e-12


def test_the_mlp_memory_steps_by_dgd_in_each_layer_with_autograd_s_gradient(draw):
    """Each layer: W (alpha I - eta n n^T) - eta dL/dW, n its own input, L = 1/2 |M(k) - v|^2."""
    x = draw(1, 6, 10).mlp()
    _, *got = mlp_memory(*x, impl="reference")
    _, k, v, alpha, eta, *weights = alone(x)
    l1, l2 = leaves = [W.clone().requires_grad_() for W in weights]
    grads = torch.autograd.grad(0.5 * (k[0] + l1 @ silu(l2 @ k[0]) - v[0]).square().sum(), leaves)
    inputs = silu(weights[1] @ k[0]), k[0]
    for W, gradient, n, last in zip(weights, grads, inputs, got):
        want = alpha[0] * W - eta[0] * torch.outer(W @ n, n) - eta[0] * gradient
        assert torch.allclose(last[0, 0], want, atol=1e-13)


@pytest.mark.eq(86, 87, 88)
def test_self_modifying_memories_are_the_printed_rule(draw):
    """Written out for one sequence, chunk 1, with the gradient of 1/2 |M k - v^|^2 taken by autograd."""
    inputs = draw(5, 4).selfref()
    state = SelfRefState(*inputs[2:7])
    y, last = selfref_memory(*inputs[:2], state, b_eta=inputs[7], b_alpha=inputs[8], chunk=1, impl="reference")
    x, q, Mk, Mv, Mm, me, ma, b_eta, b_alpha = alone(inputs)
    memories = [Mk, Mv, Mm, me[None], ma[None]]
    for t in range(5):
        k, v = memories[0] @ x[t], memories[1] @ x[t]
        k, v = k / k.norm(), v / v.norm()
        eta = 0.5 * torch.sigmoid(memories[3] @ x[t] + b_eta)
        alpha = torch.sigmoid(memories[4] @ x[t] + b_alpha)
        assert torch.allclose(y[0, 0, t], memories[2] @ q[t], atol=1e-11)
        new = []
        for M in memories:
            leaf = M.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(0.5 * (leaf @ k - M @ v).square().sum(), leaf)
            new.append(M @ (alpha * torch.eye(4, dtype=F64) - eta * torch.outer(k, k)) - eta * gradient)
        memories = new
    for got, M in zip(last, memories):
        assert torch.allclose(got[0, 0].reshape(M.shape), M, atol=1e-11)


@pytest.mark.eq(87)
def test_linear_self_referential_memories_keep_their_rank_and_stay_at_zero(draw):
    x, q, *memories, _, _ = draw(40, 8).selfref()
    memories[2] = memories[2][..., :2] @ draw(1, 8)(2, 8)
    assert rank(selfref_memory(x, q, SelfRefState(*memories), chunk=8)[1].memory) == 2
    memories[2] = torch.zeros_like(memories[2])
    assert not selfref_memory(x, q, SelfRefState(*memories), chunk=8)[1].memory.any()


@pytest.mark.eq(44)
def test_newton_schulz_finds_the_orthogonal_factor(draw, rel):
    G = draw(12, 20, batch=4)(12, 20)[:, 0]
    U, _, Vh = torch.linalg.svd(G, full_matrices=False)
    assert rel(newton_schulz(G, 30, "cubic"), U @ Vh) < 1e-10
    X = newton_schulz(G)  # quintic: the same singular vectors, values near 1
    s = U.mT @ X @ Vh.mT
    values = s.diagonal(dim1=-2, dim2=-1)
    assert (s - torch.diag_embed(values)).abs().max() < 1e-10
    assert values.min() > 0.6 and values.max() < 1.25
    assert rel(newton_schulz(1000 * G), X) < 1e-6  # blind to the scale of G
    assert not newton_schulz(torch.zeros(3, 3)).any()  # and a zero gradient stays zero


@pytest.mark.eq(44)
def test_one_step_of_the_cubic_form_is_eq_44(draw, rel):
    O = draw(5, 9)(5, 9)[0, 0]
    O = O / O.norm()
    assert rel(newton_schulz(O, 1, "cubic", eps=0.0), 1.5 * O - 0.5 * O @ O.mT @ O) < 1e-14


def test_a_list_is_grouped_by_shape_and_returned_in_order(draw, rel):
    numbers = draw(1, 1)
    G = [numbers(*s)[0, 0].float() for s in ((4, 6), (6, 4), (4, 6), (2, 3, 3), (4, 6))]
    out = newton_schulz(G)
    assert isinstance(out, list)
    assert all(rel(o, newton_schulz(x)) < 1e-5 for o, x in zip(out, G))
    assert newton_schulz([]) == []
