"""Every slip of the paper's equations: the printed form computed beside the one that holds, in float64.

One test per entry of `paper.errata()`, named after its first equation. Each shows that the printed form fails (another
number, another sign, shapes that do not multiply) and that the corrected one does what the paper says it does.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from kit import apart, argmin, close, draws, grad
from torch import Tensor

eye, outer = torch.eye, torch.outer
pytestmark = pytest.mark.usefixtures("float64")


@pytest.fixture
def rand():
    return draws(7)


def prox(w: Tensor, w0: Tensor, eta: float) -> Tensor:
    return ((w - w0) ** 2).sum() / (2 * eta)


def multiplies(a: Tensor, b: Tensor) -> bool:
    """Whether the matrix product a b is defined."""
    return a.shape[-1] == b.shape[0]


def newton_schulz(x: Tensor, steps: int = 40) -> Tensor:
    x = x / x.norm()
    for _ in range(steps):
        x = 1.5 * x - 0.5 * x @ x.T @ x
    return x


# ---- Sections 3.1-3.3: one layer, nested systems, transfer -----------------------------------------------------------
@pytest.mark.eq(9)
def test_the_key_of_a_backprop_step_is_the_present_input(rand):
    w0, old, x, y, eta = rand(4, 3), rand(3), rand(3), rand(4), 0.3
    u = w0 @ x - y  # surprise of 1/2 |Wx - y|^2, at W_t

    def step(key):
        return argmin(lambda w: (w @ key) @ u + prox(w, w0, eta), w0)

    sgd = w0 - eta * outer(u, x)
    close(step(x), sgd)
    apart(step(old), sgd)  # printed: the key of the previous sample
    implicit = argmin(lambda w: 0.5 * ((w @ x - y) ** 2).sum() + prox(w, w0, eta), w0)
    apart(implicit, sgd)  # the surprise must be held fixed


@pytest.mark.eq(19)
def test_a_nested_problem_descends_only_with_the_other_sign(rand):
    theta, x, y, eta = rand(4, 3), rand(3), rand(4), 0.05

    def loss(w):
        return 0.5 * ((w @ x - y) ** 2).sum()

    u = theta @ x - y

    def solve(sign):
        return argmin(lambda phi: sign * (phi @ x) @ u + prox(phi, theta, eta), theta)

    close(solve(+1), theta - eta * grad(loss, theta))
    close(solve(-1), theta + eta * grad(loss, theta))  # printed: ascent
    assert loss(solve(-1)) > loss(theta) > loss(solve(+1))


@pytest.mark.eq(20)
def test_a_memory_learns_its_value_only_with_the_other_sign(rand):
    m, k, v, eta = rand(4, 3), rand(3), rand(4), 0.05
    u = m @ k - v

    def solve(sign):
        return argmin(lambda phi: sign * (phi @ k) @ u + prox(phi, m, eta), m)

    close(solve(+1), m @ (eye(3) - eta * outer(k, k)) + eta * outer(v, k))  # the delta rule
    before, after = (m @ k - v).norm(), (solve(-1) @ k - v).norm()
    assert after > before > (solve(+1) @ k - v).norm()


@pytest.mark.eq(21)
def test_the_adatransformer_writes_key_times_value_in_rows(rand):
    k, v, q = rand(5, 4), rand(5, 3), rand(4)  # rows are tokens
    assert not multiplies(v[:1], k[:1].T)  # printed v k^T on row vectors: (1, 3) times (4, 1)
    rows = sum(k[t : t + 1].T @ v[t : t + 1] for t in range(5))
    columns = sum(outer(v[t], k[t]) for t in range(5))
    close(rows, columns.T)
    close(q @ rows, columns @ q)


@pytest.mark.eq(28)
def test_a_learned_start_is_judged_after_the_inner_step():
    a, b, eta = torch.tensor([1.0, 4.0, 0.5]), torch.tensor([-1.0, 2.0, 5.0]), 0.2  # tasks a/2 (phi - b)^2

    def loss(phi):
        return (a / 2 * (phi - b) ** 2).sum()

    start = torch.zeros(())
    printed = argmin(loss, start)
    maml = argmin(lambda phi: loss(phi - eta * a * (phi - b)), start)  # one inner step, then the loss
    weights = a * (1 - eta * a) ** 2
    close(printed, (a * b).sum() / a.sum())  # plain joint training
    close(maml, (weights * b).sum() / weights.sum())
    apart(printed, maml, 0.1)


# ---- Section 4: optimisers -------------------------------------------------------------------------------------------
@pytest.mark.eq(33)
def test_alpha_keeps_the_momentum_and_eta_is_its_rate(rand):
    """The text calls alpha the learning rate and eta the momentum rate: the library's names say otherwise."""
    w0, target, alpha, eta = rand(3, 2), rand(3, 2), 0.9, 0.05

    def run(alpha, eta):
        w, m = w0, torch.zeros(3, 2)
        for _ in range(6):
            m = alpha * m - eta * (w - target)
            w = w + m
        return w

    p = torch.nn.Parameter(w0.clone())
    sgd = torch.optim.SGD([p], lr=eta, momentum=alpha)
    for _ in range(6):
        sgd.zero_grad()
        (0.5 * ((p - target) ** 2).sum()).backward()
        sgd.step()
    close(run(alpha, eta), p.detach())
    apart(run(alpha=eta, eta=alpha), p.detach(), 0.1)


@pytest.mark.eq(41)
def test_a_preconditioner_learns_from_its_present_state(rand):
    p, g, key, zeta = rand(4, 4), rand(4), rand(4), 0.1

    def loss(p):
        return 0.5 * ((p @ key - g) ** 2).sum()

    new = p - zeta * grad(loss, p)
    close(new, p - zeta * outer(p @ key - g, key))
    assert loss(new) < loss(p)
    # printed: P_{t+1} = P_{t+1} - zeta grad; a solution would need a vanishing gradient
    apart(new, new - zeta * grad(loss, p))


@pytest.mark.eq(42)
def test_newton_schulz_erases_a_rate_inside_the_momentum(rand):
    gradients = rand(5, 4, 6)

    def run(eta, inside):
        w = m = torch.zeros(4, 6)
        for g in gradients:
            m = 0.9 * m - (eta if inside else 1.0) * g
            w = w + (1.0 if inside else eta) * newton_schulz(m)
        return w

    close(run(1e-3, inside=True), run(10.0, inside=True), 1e-8)  # printed: the rate is erased
    close(run(0.2, inside=False), 2 * run(0.1, inside=False))


@pytest.mark.eq(43)
def test_the_orthogonality_objective_does_not_know_the_gradient(rand):
    """The text says that the objective keeps O near g. The printed one does not: its minima are all orthogonal O."""
    g = rand(6, 4)

    def printed(o):
        return ((o.T @ o - eye(4)) ** 2).sum()

    q1, q2 = (torch.linalg.qr(rand(6, 4))[0] for _ in range(2))
    close(printed(q1), 0)
    close(printed(q2), 0)
    apart(q1, q2, 0.1)  # g plays no part

    def both(o):
        return 0.5 * ((o - g) ** 2).sum() + 0.5 * printed(o)

    close(grad(both, q1), q1 - g + 2 * q1 @ (q1.T @ q1 - eye(4)))  # what Eq. 44 descends
    close(grad(printed, q1 + g), 4 * (q1 + g) @ ((q1 + g).T @ (q1 + g) - eye(4)))  # a factor 2 too, and no g


@pytest.mark.eq(44)
def test_newton_schulz_with_the_proximity_term_does_not_orthogonalise(rand):
    g = rand(6, 4)
    g = 0.9 * g / torch.linalg.matrix_norm(g, 2)
    u, s0, vh = torch.linalg.svd(g, full_matrices=False)

    def printed(o, zeta):
        return o - zeta * (o - g + 2 * o @ (o.T @ o - eye(4)))

    close(printed(g, 0.25), 1.5 * g - 0.5 * g @ g.T @ g)  # its first step is Newton-Schulz
    o = n = g
    for _ in range(600):
        o, n = printed(o, 0.15), 1.5 * n - 0.5 * n @ n.T @ n
    s = torch.diagonal(u.T @ o @ vh.T)
    close(2 * s**3 - s, s0, 1e-9)  # iterated, it stops at these singular values ...
    assert s.max() < 0.999 and s.min() > math.sqrt(0.5)  # ... none of which is 1
    close(n, u @ vh, 1e-9)  # without the proximity term: the polar factor


@pytest.mark.eq(45)
def test_momentum_needs_7_and_44_gradients():
    """The text gives 6 and 43 gradients for 50 % and 99 % of a momentum with beta = 0.9."""

    def share(n):
        return sum(0.1 * 0.9**i for i in range(n))

    assert share(6) < 0.5 <= share(7)
    assert share(43) < 0.99 <= share(44)
    assert math.isclose(share(44), 1 - 0.9**44)


@pytest.mark.eq(49)
def test_delta_momentum_needs_its_rate_in_the_brake_and_minus_the_value(rand):
    g, p, m, alpha, eta = rand(4, 3), rand(4, 4), rand(4, 3), 0.9, 0.05

    def step(sign):
        return alpha * m - eta * grad(lambda m: 0.5 * ((m @ g.T - sign * p) ** 2).sum(), m)

    corrected = m @ (alpha * eye(3) - eta * g.T @ g) - eta * p @ g
    close(step(-1), corrected)  # the value is -P
    close(step(+1), corrected + 2 * eta * p @ g)  # the stated loss moves along +P G
    printed = m @ (alpha * eye(3) - g.T @ g) - eta * p @ g
    apart(printed, corrected, 0.1)  # the rate is missing from the decay ...

    def largest(rate):
        return torch.linalg.eigvalsh(alpha * eye(3) - rate * g.T @ g).abs().max()

    assert largest(1.0) > 1 > largest(eta)  # ... so this gradient would blow the memory up


@pytest.mark.eq(57)
def test_the_rate_of_dgd_contains_the_length_of_the_input(rand):
    w, x, y, eta = rand(4, 3), 2 * rand(3), rand(4), 0.37
    u = -(w @ x - y)

    def solve(x):
        return argmin(lambda z: 0.5 * ((z @ x - u) ** 2).sum() + prox(z, w, eta), w)

    def dgd(x, rate):
        return w @ (eye(3) - rate * outer(x, x)) + rate * outer(u, x)

    unit, printed = x / x.norm(), eta / (1 + eta)
    close(solve(x), dgd(x, eta / (1 + eta * x @ x)))
    apart(solve(x), dgd(x, printed), 0.1)
    close(solve(unit), dgd(unit, printed))  # the printed rate is the one for |x| = 1


@pytest.mark.eq(59, 60)
def test_the_fit_of_generalised_descent_contains_the_weights(rand):
    """As printed the fit term does not contain W, so the minimiser is the retention's and nothing is learned."""
    w, older, x, y, eta = rand(4, 3), rand(4, 3), rand(3), rand(4), 0.2
    u = -(w @ x - y)  # the value that the memory generates itself
    close(argmin(lambda z: -(w @ x) @ u + prox(z, w, eta), w), w)
    close(argmin(lambda z: -(z @ x) @ u + prox(z, w, eta), w), w + eta * outer(u, x))
    window = argmin(lambda z: -(z @ x) @ u + prox(z, w, eta) + prox(z, older, eta), w)
    close(window, (w + older) / 2 + eta / 2 * outer(u, x))


# ---- Section 5: sequence models --------------------------------------------------------------------------------------
@pytest.mark.eq(63)
def test_window_attention_weighs_with_the_query_of_now(rand):
    k, v, q = rand(3, 4), rand(3, 2), rand(3, 4)  # the window; the last row is token t

    def fit(queries):
        s = torch.exp((k * queries).sum(-1) / 2)
        return argmin(lambda m: (s * ((v - m) ** 2).sum(-1)).sum(), v[0])

    attention = torch.softmax(k @ q[-1] / 2, 0) @ v
    close(fit(q[-1].expand(3, 4)), attention)
    apart(fit(q), attention)  # printed: s(k_i, q_i)


@pytest.mark.eq(64)
def test_the_printed_hebbian_loss_is_twice_its_gradient(rand):
    m, k, v = rand(3, 4), rand(4), rand(3)
    close(grad(lambda m: -(m @ k) @ v, m), -outer(v, k))
    close(grad(lambda m: -2 * (m @ k) @ v, m), -2 * outer(v, k))  # printed loss: twice its underbrace


@pytest.mark.eq(65)
def test_the_delta_rule_erases_on_the_right(rand):
    m, k, v, eta = rand(4, 4), rand(4), rand(4), 0.1
    step = m - eta * grad(lambda m: 0.5 * ((m @ k - v) ** 2).sum(), m)
    erase = eye(4) - eta * outer(k, k)
    close(step, m @ erase + eta * outer(v, k))
    apart(step, erase @ m + eta * outer(v, k))  # printed: the factor on the left
    close(step.T, erase @ m.T + eta * outer(k, v))  # it belongs to the transposed state
    assert not multiplies(erase, rand(3, 4))  # and does not multiply for d_v = 3, d_k = 4


@pytest.mark.eq(66, 67)
def test_ojas_rule_subtracts_rows_of_equal_length(rand):
    m, k, v, eta = rand(3, 4), rand(4), rand(3), 0.1

    def loss(m):
        return -(m @ k) @ v + 0.5 * ((m.T @ v) ** 2).sum()

    close(m - eta * grad(loss, m), m + eta * outer(v, k - m.T @ v))
    row, column = k[None], (m.T @ v)[:, None]
    assert row.shape != column.shape  # printed: a row minus a column ...
    assert (row - column).shape == (4, 4)  # ... which torch would broadcast in silence
    close(grad(lambda m: 2 * loss(m), m), 2 * (outer(v, v) @ m - outer(v, k)))  # the underbrace of Eq. 67


@pytest.mark.eq(68)
def test_the_omega_rule_subtracts_gradients_not_losses(rand):
    keys, values, gamma = rand(6, 4), rand(6, 3), 0.1

    def loss(m, i):
        return 0.5 * ((m @ keys[i] - values[i]) ** 2).sum()

    m = delta = torch.zeros(3, 4)
    for t in range(6):
        m = m - gamma * grad(lambda m, t=t: loss(m, t), m)  # a window of one
        delta = delta @ (eye(4) - gamma * outer(keys[t], keys[t])) + gamma * outer(values[t], keys[t])
    close(m, delta)
    assert loss(m, 0).shape == () != m.shape  # printed: the loss itself, a number, is subtracted from a matrix


@pytest.mark.eq(69)
def test_the_adatransformer_block_writes_the_transpose(rand):
    k, v, q, start = (rand(5, 4) for _ in range(4))  # the block needs d_k = d_v
    start = start[:4]
    causal = torch.full((5, 5), -torch.inf).triu(1)
    attended = torch.softmax(q @ k.T / 2 + causal, -1) @ v

    def run(write):
        w, out = start, []
        for t in range(5):
            w = w + write(t)
            out.append(attended[t] @ w)
        return torch.stack(out)

    parallel = attended @ start + torch.tril(attended @ k.T) @ v
    close(run(lambda t: outer(k[t], v[t])), parallel)
    apart(run(lambda t: outer(v[t], k[t])), parallel)  # printed: the transpose
    assert (v[:1] @ k[:1].T).numel() == 1  # read literally with rows it is a number


# ---- Sections 7 and 8: continuum memory, M3, Titans ----------------------------------------------------------------
@pytest.mark.eq(71)
def test_chunks_of_a_cms_do_not_share_a_token(rand):
    chunk, steps, eta = 4, 12, 0.05
    a, b, theta0 = rand(steps + 1, 3), rand(steps + 1), rand(3)  # samples 1..12; row 0 does not exist in the paper

    def run(first):
        theta, used = theta0, []
        for i in range(chunk, steps + 1, chunk):
            tokens = list(range(first(i), i + 1))
            used += tokens
            theta = theta - eta * sum((a[t] @ theta - b[t]) * a[t] for t in tokens)
        return theta, used

    corrected, used = run(lambda i: i - chunk + 1)
    assert used == list(range(1, steps + 1))
    batches = theta0
    for block in torch.arange(1, steps + 1).split(chunk):  # SGD with batches of one chunk
        batches = batches - eta * a[block].T @ (a[block] @ batches - b[block])
    close(corrected, batches)
    printed, used = run(lambda i: i - chunk)
    assert used.count(4) == used.count(8) == 2
    assert used[0] == 0
    apart(printed, corrected)


@pytest.mark.eq(75)
def test_the_betas_of_m3_need_a_decay_and_its_windows_no_overlap(rand):
    """Plain sums and a scale-free map: the printed betas do nothing. And Algorithm 1's windows overlap."""
    gradients = rand(8, 3, 4)

    def direction(beta, decay):
        m = torch.zeros(3, 4)
        for g in gradients:
            m = ((1 - beta) if decay else 1.0) * m + beta * g
        return newton_schulz(m, 60)

    close(direction(0.9, decay=False), direction(1e-3, decay=False), 1e-8)
    apart(direction(0.9, decay=True), direction(0.1, decay=True), 0.1)
    period = 4
    printed = [range((k - 1) * period, k * period + 1) for k in (1, 2)]
    corrected = [range((k - 1) * period + 1, k * period + 1) for k in (1, 2)]
    assert [len(r) for r in printed] == [5, 5] and printed[0][-1] == printed[1][0]
    assert [*itertools.chain(*corrected)] == list(range(1, 9))

    def step(scale):  # the printed denominator: the root of the summed squared gradients
        g = scale * gradients[0]
        return newton_schulz(g) / (g**2).sqrt()

    close(step(10.0), step(1.0) / 10)  # ten times the loss, a tenth of the step


@pytest.mark.eq(80)
def test_a_rate_memory_has_the_key_of_all_memories(rand):
    rate_memory, x, key = rand(1, 4), rand(4), rand(4)  # M_eta maps R^4 to R
    eta = rate_memory @ x
    assert not multiplies(rate_memory, eta)  # printed: its own output is its key
    assert multiplies(rate_memory, key)  # Eq. 85: every memory has the key k_t


@pytest.mark.eq(90)
def test_a_chunk_reads_the_last_state_of_the_chunk_before():
    chunk = 4
    printed = [chunk * math.ceil(t / chunk) for t in range(1, 13)]
    corrected = [chunk * ((t - 1) // chunk) for t in range(1, 13)]
    assert all(state >= t for t, state in enumerate(printed, 1))  # a state that does not exist yet
    assert corrected == [0] * 4 + [4] * 4 + [8] * 4  # the last state of the previous chunk
    assert [(t - 1) // 1 for t in (1, 2, 3)] == [0, 1, 2]  # with chunks of one: Eqs. 86-88


@pytest.mark.eq(92)
def test_a_hebbian_write_is_added(rand):
    keys, values = torch.linalg.qr(rand(4, 4))[0], rand(4, 4)
    close(grad(lambda m: -(m @ keys[0]) @ values[0], rand(4, 4)), -outer(values[0], keys[0]))

    def recall(sign):
        m = torch.zeros(4, 4)
        for _ in range(100):
            for k, v in zip(keys, values):
                m = m @ (eye(4) - 0.4 * outer(k, k)) + sign * 0.4 * outer(v, k)
        return m @ keys.T

    close(recall(+1), values.T)
    close(recall(-1), -values.T)  # printed minus: recalls the negative


@pytest.mark.eq(93)
def test_a_chunk_takes_its_gradients_at_its_start(rand):
    """With the printed index a state depends on its own chunk's future; with the corrected one it does not."""
    chunk, eta = 4, 0.3
    k = torch.nn.functional.normalize(rand(8, 3), dim=-1)
    v = rand(8, 2)

    def states(v, frozen):
        """Fixed point of the recurrence, where `frozen(t)` is the state index that the gradients of token t use."""
        m = [torch.zeros(2, 3)] * 9
        for _ in range(60):
            new = [m[0]]
            for t in range(1, 9):
                error = m[frozen(t)] @ k[t - 1] - v[t - 1]
                new.append(new[-1] @ (eye(3) - eta * outer(k[t - 1], k[t - 1])) - eta * outer(error, k[t - 1]))
            m = new
        return m

    later = v.clone()
    later[3] += 1.0  # token 4, the last of the first chunk
    end, start = (lambda t: chunk * math.ceil(t / chunk)), (lambda t: chunk * ((t - 1) // chunk))
    apart(states(v, end)[1], states(later, end)[1])
    close(states(v, start)[3], states(later, start)[3])
    one = states(v, lambda t: t - 1)[1]
    close(one, eta * outer(v[0], k[0]))


# ---- Appendices ------------------------------------------------------------------------------------------------------
@pytest.mark.eq(98, 99)
def test_the_implicit_step_is_explicit_to_first_order_only(rand):
    """The text calls it gradient descent 'or equivalently'; it is the implicit step, equal to first order only."""
    a, theta = rand(4, 4), rand(4)
    a = a @ a.T

    def implicit(eta):
        return argmin(lambda z: 0.5 * z @ a @ z + prox(z, theta, eta), theta)

    new = implicit(0.2)
    close(new, theta - 0.2 * a @ new)
    apart(new, theta - 0.2 * a @ theta)
    gaps = [float((implicit(e) - (theta - e * a @ theta)).norm()) for e in (1e-3, 1e-4)]
    assert 90 < gaps[0] / gaps[1] < 110  # a gap of second order
    m, k, v, eta = rand(3, 4), rand(4), rand(3), 0.2
    delta = argmin(lambda z: 0.5 * ((z @ k - v) ** 2).sum() + prox(z, m, eta), m)
    close(delta, m - eta / (1 + eta * k @ k) * outer(m @ k - v, k))  # Eq. 99: the implicit delta rule


@pytest.fixture
def sums(rand):
    """Nine gradients of six weights, a target, and the sums of Appendix B."""
    g = rand(9, 6)
    return g, rand(6).abs() + 0.5, g.sum(0), (g**2).sum(0)


@pytest.mark.eq(102)
def test_the_optimum_of_eq_102_divides_by_element_and_shares_its_weights(rand, sums):
    g, p, m, h = sums
    ridge = 0.3
    best = argmin(lambda x: ((x * g - p) ** 2).sum() + ridge * (x**2).sum(), p)
    close(best, m * p / (h + ridge))
    matrix = h.reshape(2, 3).T @ h.reshape(2, 3) + ridge * eye(3)
    apart(torch.linalg.inv(matrix), 1 / matrix)  # the printed matrix inverse is not the reciprocal
    mixed, plain, printed = torch.zeros(6), torch.zeros(6), torch.zeros(6)
    for x in g:
        printed, plain, mixed = mixed + x, plain + x, mixed + x * p  # printed: M~ is built from M
    close(mixed, plain * p)
    apart(mixed, printed * p)
    w = 0.9 ** torch.arange(8, -1, -1.0)[:, None]  # moving averages: the minimiser if both share the decay
    best = argmin(lambda x: (w * (x * g - p) ** 2).sum() + ridge * (x**2).sum(), p)
    close(best, (w * g).sum(0) * p / ((w * g**2).sum(0) + ridge))
    slow = 0.999 ** torch.arange(8, -1, -1.0)[:, None]
    apart(best, (w * g).sum(0) * p / ((slow * g**2).sum(0) + ridge), 1e-2)  # Adam's two betas


@pytest.mark.eq(103)
def test_the_memory_of_gradients_is_added(rand):
    w, curvature, p = rand(6), rand(6).abs() + 0.5, rand(6).abs() + 0.5

    def loss(w):
        return 0.5 * (curvature * w**2).sum()

    g = -grad(loss, w)  # Eq. 101: the negative gradient
    best = g * p / (g**2 + 0.3)
    assert loss(w - 1e-3 * best) > loss(w) > loss(w + 1e-3 * best)  # printed minus: ascent


@pytest.mark.eq(104)
def test_the_square_target_gives_one_over_beta(sums):
    _, _, m, total = sums
    beta = 0.25
    h = beta * total
    close(m * total / h, m / beta)
    apart(m * total / h, beta * m)  # printed


@pytest.mark.eq(105)
def test_sums_give_adagrad_not_adam(sums):
    """The algebra holds (up to the sign of Eq. 103), but plain sums are AdaGrad with summed momentum, not Adam."""
    g, _, m, total = sums
    beta = 0.25
    h, p = beta * total, total.sqrt()
    close(m * p / h, m / h.sqrt() / math.sqrt(beta))
    first = second = torch.zeros(6)
    for x in g:
        first, second = 0.9 * first + 0.1 * x, 0.999 * second + 0.001 * x**2

    def unit(x):
        return x / x.norm()

    apart(unit(first / second.sqrt()), unit(m / p), 1e-2)


@pytest.mark.eq(107, 108, 109, 110)
def test_the_outer_memory_has_its_inverse_on_the_right(rand):
    g, p, ridge = rand(9, 6), rand(4), 0.3
    best = argmin(lambda m: ((g @ m.T - p) ** 2).sum() + ridge * (m**2).sum(), torch.zeros(4, 6))
    h, numerator = g.T @ g, outer(p, g.sum(0))
    inverse = torch.linalg.inv(h + ridge * eye(6))
    close(best, numerator @ inverse)
    assert not multiplies(inverse, numerator)  # printed: the inverse on the left
    assert not multiplies(g.sum(0)[None], p[:, None])  # and M~ P in Eq. 107, where Eq. 108 has P M~
    plain, mixed, printed = torch.zeros(1, 6), torch.zeros(4, 6), None
    for x in g:
        printed, plain, mixed = mixed + x[None], plain + x[None], mixed + outer(p, x)
    close(p[:, None] @ plain, mixed)
    assert printed.shape == mixed.shape != plain.shape  # Eq. 109 as printed adds a row to a matrix


@pytest.mark.eq(111)
def test_the_matrix_target_of_adagrad_fits_no_vector_residual(rand):
    g, start, curvature, beta = rand(20, 4), rand(4), rand(4).abs() + 0.5, 0.25
    total = g.T @ g
    values, u = torch.linalg.eigh(total)

    def power(e):
        return u @ torch.diag(values**e) @ u.T

    m = g.sum(0)
    close(torch.linalg.inv(beta * total) @ power(0.5) @ m, power(-0.5) @ m / beta)  # the algebra, for a column
    assert (power(0.5) @ g[0]).shape != power(0.5).shape  # so it is not Eq. 106: m g is a vector, this P a matrix

    def loss(w):
        return 0.5 * (curvature * w**2).sum()

    down = -grad(loss, start)
    step = 1e-3 * power(-0.5) @ down
    assert loss(start - step) > loss(start) > loss(start + step)  # the sign of Eq. 103


@pytest.fixture
def dgd(rand):
    """One problem of Appendix C: weight, input, gradient at the output, rate, exact minimiser of Eq. 113."""
    w, x, y, eta = rand(4, 3), 1.5 * rand(3), rand(4), 0.37
    g = w @ x - y
    return w, x, g, eta, argmin(lambda z: 0.5 * ((z @ x + g) ** 2).sum() + prox(z, w, eta), w)


@pytest.mark.eq(114)
def test_stationarity_of_dgd_has_another_sign_and_one_over_eta(dgd):
    w, x, g, eta, new = dgd
    close(outer(new @ x + g, x) + (new - w) / eta, torch.zeros(4, 3))
    apart(outer(new @ x - g, x) + (new - w) / eta, torch.zeros(4, 3))  # printed sign
    apart(outer(new @ x + g, x) + eta * (new - w), torch.zeros(4, 3))  # printed eta for 1 / eta


@pytest.mark.eq(115, 116, 117)
def test_solving_dgd_for_the_weights_keeps_both_signs(dgd):
    w, x, g, eta, new = dgd
    system = outer(x, x) + eye(3) / eta
    close(new @ system, -outer(g, x) + w / eta)
    close(new, (-outer(g, x) + w / eta) @ torch.linalg.inv(system))
    apart(new, (outer(g, x) + eta * w) @ torch.linalg.inv(outer(x, x) + eta * eye(3)))  # printed
    close(torch.linalg.inv(system), eta * (eye(3) - eta / (1 + eta * x @ x) * outer(x, x)))  # Eq. 117 holds


@pytest.mark.eq(118, 119)
def test_the_expansion_of_dgd_has_the_squared_length(dgd):
    w, x, g, eta, new = dgd
    rate, square = eta / (1 + eta * x @ x), x @ x
    erase = eye(3) - rate * outer(x, x)
    close(new, (-outer(g, x) + w / eta) @ (eta * erase))
    close(new, w @ erase - eta * outer(g, x) + eta**2 * square / (1 + eta * square) * outer(g, x))
    c = 1 / eta  # the appendix's eta
    brace = outer(g, x) @ outer(x, x) / (square * c + c**2)
    close(brace, square / (square * c + c**2) * outer(g, x))
    apart(brace, square.sqrt() / (square * c + c**2) * outer(g, x))  # printed: the norm, not its square
    apart(new, (outer(g, x) + c * w) @ erase / c)  # printed sign of Eq. 118


@pytest.mark.eq(120, 121)
def test_the_printed_beta_of_dgd_climbs(dgd):
    w, x, g, eta, new = dgd
    rate, norm, c = eta / (1 + eta * x @ x), x.norm(), 1 / eta
    close(new, w @ (eye(3) - rate * outer(x, x)) - rate * outer(g, x))
    beta = norm / (norm**2 * c + c**2) - 1 / c  # the printed bracket of Eq. 120
    assert beta < 0
    apart(beta, rate, 0.1)  # gradient ascent
    close(norm**2 / (norm**2 * c + c**2) - 1 / c, -rate)  # with the square: the right size, the wrong sign
