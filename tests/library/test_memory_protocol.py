"""The protocol that every memory keeps: scan, streaming, causality, isolation, errors; the deep memory, the cache."""

from __future__ import annotations

import pytest
import torch
from kit import F64, apart, argmin, close, rand, refuses
from torch import Tensor

from nlbook import memory
from nlbook.book.data import recall as task
from nlbook.memory import MatrixMemory, rules

EVERY = memory.names()


def stream(
    T: int = 6, d: int = 4, batch: tuple[int, ...] = (3,), seed: int = 0, dtype: torch.dtype = F64
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        task.unit(rand(*batch, T, d, seed=seed)).to(dtype),
        rand(*batch, T, d, seed=seed + 1, dtype=dtype),
        rand(*batch, T, d, seed=seed + 2, dtype=dtype),
    )


@pytest.mark.parametrize("name", EVERY)
def test_scan_is_write_and_read_in_turn(name):
    """read="before" sees tokens < t, "after" tokens <= t; `before` at t is `after` at t - 1 with the same query."""
    mem, (k, v, q) = memory.make(name), stream()
    for read in ("before", "after"):
        y, end = mem.scan(k, v, q, read=read)
        state = mem.init(4, 4, (3,), dtype=F64)
        for t in range(6):
            if read == "before":
                close(y[:, t], mem.read(state, q[:, t]))
            state = mem.write(state, k[:, t], v[:, t])
            if read == "after":
                close(y[:, t], mem.read(state, q[:, t]))
        close(end.M, state.M)
        close(mem.write_all(k, v).M, state.M)
    close(mem.read(state, q)[:, 2], mem.read(state, q[:, 2]))  # many queries at once are many single ones


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("cut", [0, 1, 4, 6])
def test_streaming_cut_anywhere_is_one_call(name, cut):
    mem, (k, v, q) = memory.make(name, **({"window": 3} if name in ("omega", "sliding_window") else {})), stream()
    y, end = mem.scan(k, v, q)
    y1, state = mem.scan(k[:, :cut], v[:, :cut], q[:, :cut])
    y2, state = mem.scan(k[:, cut:], v[:, cut:], q[:, cut:], state)
    close(torch.cat([y1, y2], 1), y)
    close(state.M, end.M)


@pytest.mark.parametrize("name", EVERY)
def test_a_later_token_changes_no_earlier_answer(name):
    mem, (k, v, q) = memory.make(name), stream()
    t = 3
    k2, v2 = k.clone(), v.clone()
    k2[:, t], v2[:, t] = k[:, t].flip(-1), -v[:, t] + 1
    for read, first in (("before", t + 1), ("after", t)):
        a, b = mem.scan(k, v, q, read=read)[0], mem.scan(k2, v2, q, read=read)[0]
        close(a[:, :first], b[:, :first], 0)
        apart(a[:, first:], b[:, first:], 1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_a_sequence_has_its_own_memory(name):
    """Batched equals one by one, and writing to one sequence leaves its neighbours bit for bit alone."""
    mem, (k, v, q) = memory.make(name), stream()
    y, end = mem.scan(k, v, q)
    for b in range(3):
        alone, state = mem.scan(k[b], v[b], q[b])
        close(y[b], alone)
        close(end.M[b], state.M)
    v2 = v.clone()
    v2[1] += 1
    y2, _ = mem.scan(k, v2, q)
    close(y2[[0, 2]], y[[0, 2]], 0)
    apart(y2[1], y[1], 1e-6)


@pytest.mark.parametrize("name", EVERY)
def test_states_are_values_and_dtypes_are_kept(name):
    for dtype in (torch.float32, F64):
        mem, (k, v, q) = memory.make(name), stream(dtype=dtype)
        state = mem.init(4, 4, (3,), dtype=dtype)
        before = state.M.clone()
        after = mem.write(state, k[:, 0], v[:, 0])
        assert state.M.shape == before.shape
        assert torch.equal(state.M, before)
        y, end = mem.scan(k, v, q)
        assert y.dtype == end.M.dtype == after.M.dtype == dtype
        assert all(x.dtype == dtype for x in end.extra.values())
    y32, _ = mem.scan(*(x.float() for x in (k, v, q)))
    close(y32.double(), y, 1e-4)  # float32 agrees with float64


@pytest.mark.parametrize("name", EVERY)
def test_everything_is_differentiable(name):
    """Gradients of a scan by keys, values, queries, rates and retention against finite differences."""
    mem = memory.make(name, **({"hidden": 3} if name == "mlp" else {}))
    k, v, q = (x.requires_grad_() for x in stream(T=3, d=2, batch=(2,)))
    lr = torch.full((2, 3), 0.3, dtype=F64, requires_grad=True)
    keep = torch.full((2, 3), 0.9, dtype=F64, requires_grad=True)
    run = lambda *a: mem.scan(*a[:3], lr=a[3], keep=a[4], read="after")[0]  # noqa: E731
    assert torch.autograd.gradcheck(run, (k, v, q, lr, keep))


@pytest.mark.parametrize("name", EVERY)
def test_rates_per_token_and_as_numbers_agree(name):
    mem, (k, v, q) = memory.make(name), stream()
    a = mem.scan(k, v, q, lr=0.3, keep=0.9)[0]
    per_token = {"lr": torch.full((3, 6), 0.3, dtype=F64), "keep": torch.full((3, 6), 0.9, dtype=F64)}
    close(mem.scan(k, v, q, **per_token)[0], a)
    close(mem.scan(k, v, q, lr=torch.tensor(0.3, dtype=F64), keep=torch.tensor(0.9, dtype=F64))[0], a)
    lr = torch.full((3, 6), 0.3, dtype=F64)
    lr[1, 2] = 0.0  # a rate of zero writes nothing
    if name not in ("omega", "softmax", "sliding_window"):  # their windows keep the pair itself
        state = mem.init(4, 4, (3,), dtype=F64)
        wrote = mem.write(state, k[:, 2], v[:, 2], lr=lr[:, 2])
        close(wrote.M[1], state.M[1], 1e-12)
        apart(wrote.M[0], state.M[0], 1e-3)


def test_many_passes_are_many_scans():
    mem, (k, v, _) = memory.make("delta", lr=0.4), stream()
    twice = mem.write_all(k, v, mem.write_all(k, v))
    close(mem.write_all(k, v, passes=2).M, twice.M)


@pytest.mark.parametrize("name", EVERY)
def test_bad_input_names_the_argument(name):
    mem, (k, v, q) = memory.make(name), stream()
    state = mem.init(4, 4, (3,), dtype=F64)
    k0, v0 = k[:, 0], v[:, 0]
    for argument, call in (
        ("k", lambda: mem.write(state, k0[0], v0)),
        ("k", lambda: mem.write(state, k0[:1], v0)),  # no silent broadcast over the batch
        ("v", lambda: mem.write(state, k0, torch.zeros(3, 5, dtype=F64))),
        ("v", lambda: mem.write(state, k0, v0.float())),
        ("k", lambda: mem.write(state, k0.long(), v0)),
        ("q", lambda: mem.read(state, [1.0])),
        ("q", lambda: mem.read(state, q[..., :3])),
        ("q", lambda: mem.scan(k, v, q[:, :5])),
        ("v", lambda: mem.scan(k, v[:, :5], q)),
        ("k", lambda: mem.scan(k[0, 0], v, q)),
        ("read", lambda: mem.scan(k, v, q, read="during")),
        ("lr", lambda: mem.write(state, k0, v0, lr=-0.1)),
        ("lr", lambda: mem.scan(k, v, q, lr=torch.ones(6, dtype=F64))),
        ("lr", lambda: mem.scan(k, v, q, lr=torch.ones(3, 6))),
        ("lr", lambda: mem.write(state, k0, v0, lr="1")),
        ("keep", lambda: mem.write(state, k0, v0, keep=0)),
        ("keep", lambda: mem.write(state, k0, v0, keep=1.1)),
        ("keep", lambda: mem.scan(k, v, q, keep=torch.zeros(3, 6, dtype=F64))),
        ("passes", lambda: mem.write_all(k, v, passes=0)),
        ("lr", lambda: memory.make(name, lr=float("nan"))),
        ("keep", lambda: memory.make(name, keep=2.0)),
    ):
        with refuses(argument):
            call()


def test_bad_parts_name_the_argument():
    for argument, call in (
        ("name", lambda: memory.make("hopfield")),
        ("window", lambda: memory.make("delta", window=3)),
        ("window", lambda: memory.make("omega", window=0)),
        ("window", lambda: memory.make("sliding_window", window=0)),
        ("weights", lambda: memory.make("omega", window=3, weights=(1.0,))),
        ("ridge", lambda: memory.make("rls", ridge=0.0)),
        ("form", lambda: rules.dgd_rate(torch.ones(2), 1.0, "paper")),
        ("towards", lambda: rules.Retention(towards="one")),
        ("gradient_at", lambda: rules.Retention(gradient_at="new")),
        ("objective", lambda: MatrixMemory("oja", rules.DGD())),
        ("objective", lambda: MatrixMemory("dot", rules.RLS())),
        ("towards", lambda: memory.make("rls", towards="initial")),
        ("phi", lambda: memory.make("hebbian", phi="exp")),
        ("temperature", lambda: memory.make("softmax", temperature=-1.0)),
        ("kernel", lambda: memory.make("softmax", kernel="laplace")),
        ("hidden", lambda: memory.make("mlp", hidden=0)),
        ("d_v", lambda: memory.make("mlp").init(4, 3)),
        ("d_k", lambda: memory.make("delta").init(0, 3)),
        ("M0", lambda: memory.make("delta").init(4, 3, M0=torch.zeros(4, 3))),
        ("M0", lambda: memory.make("softmax").init(4, 3, M0=torch.zeros(3, 4))),
    ):
        with refuses(argument):
            call()


def test_the_three_parts_are_visible():
    text = repr(memory.make("gated_delta", lr=0.5))
    for part in ("gated_delta(lr=0.5)", "objective  ½|Mk − v|²", "rule       M − η∇L", "retention  αM"):
        assert part in text
    rows = memory.table()
    assert [row["memory"] for row in rows] == EVERY
    assert {"memory", "objective", "learning rule", "retention", "source"} == set(rows[0])
    assert len(repr(rows).splitlines()) == len(EVERY) + 2
    markdown = memory.table("delta", "softmax")._repr_markdown_().splitlines()
    assert len(markdown) == 4 and r"½\|Mk − v\|²" in markdown[2]
    points = {(row["objective"], row["learning rule"], row["retention"]) for row in rows}
    assert len(points) == len(EVERY) - 1  # hebbian and linear_attention differ by the feature map alone


def test_state_counts_its_floats():
    d, T = 4, 6
    k, v, _ = stream(T, d)
    sizes = {name: memory.make(name).write_all(k, v).floats() for name in EVERY}
    assert sizes["delta"] == sizes["decay"] == sizes["oja"] == d * d
    assert sizes["rls"] == 2 * d * d
    assert sizes["omega"] == d * d + 8 * (2 * d + 1)
    assert sizes["softmax"] == T * (2 * d + 1)
    assert memory.make("sliding_window", window=2).write_all(k, v).floats() == 2 * (2 * d + 1)
    assert sizes["mlp"] == 2 * d * 64
    assert memory.make("delta").init(4, 3).floats() == 12  # one memory, no batch


def test_detach_cuts_the_past():
    mem, (k, v, _) = memory.make("delta"), stream()
    k.requires_grad_()
    state = mem.write(mem.init(4, 4, (3,), dtype=F64), k[:, 0], v[:, 0])
    assert state.M.requires_grad and not state.detach().M.requires_grad


# ---- the deep memory, the cache, a learned start ----


@pytest.mark.eq(29)
@pytest.mark.parametrize("objective", ["dot", "l2", "lp"])
@pytest.mark.parametrize("residual", [True, False])
def test_mlp_gradients_are_autograd(objective, residual):
    mem = memory.make("mlp", objective=objective, residual=residual, hidden=5)
    k, v, _ = stream()
    state = mem.write_all(k, v, lr=0.1)
    W1, W2 = state.M.requires_grad_(), state.extra["W2"].requires_grad_()
    y = (W1 @ torch.nn.functional.silu(W2 @ k[:, 0, :, None]))[..., 0] + (k[:, 0] if residual else 0)
    loss = mem.objective.value(y.unsqueeze(-1), torch.ones_like(y[..., :1]), v[:, 0]).sum()
    for ours, theirs in zip(mem.grads(state, k[:, 0], v[:, 0]), torch.autograd.grad(loss, (W1, W2))):
        close(ours, theirs)
    close(mem.read(state, k[:, 0]), y)


def test_mlp_steps_are_repeated_writes_with_one_decay():
    k, v, _ = stream()
    mem, one = memory.make("mlp", steps=3), memory.make("mlp")
    state = thrice = one.write(one.init(4, 4, (3,), dtype=F64), k[:, 1], v[:, 1])
    for keep in (0.5, 1.0, 1.0):
        thrice = one.write(thrice, k[:, 0], v[:, 0], keep=keep)
    close(mem.write(state, k[:, 0], v[:, 0], keep=0.5).M, thrice.M)
    assert (mem.init(4, 4).extra["W2"] == mem.init(4, 4).extra["W2"]).all()  # the start comes from the seed
    assert (memory.make("mlp", seed=1).init(4, 4).extra["W2"] != mem.init(4, 4).extra["W2"]).any()


@pytest.mark.eq(4, 28)
def test_a_learned_start_is_learned_after_the_inner_steps():
    """Printed without the inner adaptation eq. 28 is plain training. With it, tasks are weighed a (1 - lr a)^2."""
    a, b, lr = torch.tensor([1.0, 4.0, 0.5], dtype=F64), torch.tensor([-1.0, 2.0, 5.0], dtype=F64), 0.2
    mem = memory.make("delta", lr=lr)
    k, v = a.sqrt()[:, None], (a.sqrt() * b)[:, None]  # |M k - v|^2 = a (M - b)^2: one scalar memory a task

    def outer_loss(start: Tensor, adapt: bool) -> Tensor:
        state = mem.init(1, 1, (3,), M0=start.reshape(1, 1), dtype=F64)
        return mem.loss(mem.write(state, k, v) if adapt else state, k, v).sum()

    zero = torch.zeros(1, dtype=F64)
    w = a * (1 - lr * a) ** 2
    close(argmin(lambda p: outer_loss(p, True), zero), (w * b).sum()[None] / w.sum())
    close(argmin(lambda p: outer_loss(p, False), zero), (a * b).sum()[None] / a.sum())
    apart((w * b).sum() / w.sum(), (a * b).sum() / a.sum())


@pytest.mark.eq(62, 63)
def test_softmax_memory_is_attention_and_its_window():
    k, v, q = stream(T=7)
    score = q @ k.mT / 2  # sqrt(d_k) = 2
    mask = torch.ones(7, 7).tril().bool()
    close(memory.make("softmax").scan(k, v, q, read="after")[0], score.masked_fill(~mask, -torch.inf).softmax(-1) @ v)
    band = mask & ~torch.ones(7, 7).tril(-3).bool()
    windowed = memory.make("sliding_window", window=3).scan(k, v, q, read="after")[0]
    close(windowed, score.masked_fill(~band, -torch.inf).softmax(-1) @ v)
    close(memory.make("softmax").scan(k, v, q)[0][:, 0], torch.zeros(3, 4, dtype=F64), 0)  # nothing is known yet
    age = torch.arange(7.0, dtype=F64)
    recency = score + (age[:, None] - age[None]) * torch.tensor(0.7, dtype=F64).log()
    aged = memory.make("softmax", keep=0.7).scan(k, v, q, read="after")[0]
    close(aged, recency.masked_fill(~mask, -torch.inf).softmax(-1) @ v)


@pytest.mark.eq(27)
def test_softmax_memory_is_a_function_of_the_set():
    k, v, q = stream()
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    mem = memory.make("softmax")
    close(mem.read(mem.write_all(k[:, order], v[:, order]), q), mem.read(mem.write_all(k, v), q))
    delta = memory.make("delta")
    apart(delta.read(delta.write_all(k[:, order], v[:, order]), q), delta.read(delta.write_all(k, v), q))


def test_temperature_runs_from_nearest_neighbour_to_mean():
    k, v, q = stream()
    nearest = v.gather(1, (q @ k.mT).argmax(-1, keepdim=True).expand(-1, -1, 4))
    for tau, want in ((0.0, nearest), (1e-4, nearest), (float("inf"), v.mean(1, keepdim=True).expand(-1, 6, -1))):
        mem = memory.make("softmax", temperature=tau)
        close(mem.read(mem.write_all(k, v), q), want, 1e-9)
        close(mem.read(mem.write_all(k[:, :0], v[:, :0]), q), 0 * want)  # nothing kept, nothing said
    gauss, dot = memory.make("softmax", kernel="gaussian"), memory.make("softmax")  # one thing for keys of one length
    close(gauss.read(gauss.write_all(k, v), q), dot.read(dot.write_all(k, v), q))


# ---- torch.compile and torch.func.vmap ----


@pytest.mark.parametrize("name", EVERY)
def test_a_scan_with_rates_compiles_into_one_graph_and_maps_over_the_loop(name):
    k, v, q = stream(4, batch=())
    lr, keep = torch.linspace(0.1, 0.4, 4, dtype=F64), torch.linspace(0.5, 0.9, 4, dtype=F64)
    mem = memory.make(name)
    start = mem.init(4, 4, dtype=F64)

    def scan(k, v, q, lr, keep, impl="loop"):
        return mem.scan(k, v, q, start, lr=lr, keep=keep, impl=impl)[0]

    want = scan(k, v, q, lr, keep)
    torch.compiler.reset()
    close(torch.compile(scan, fullgraph=True, backend="eager")(k, v, q, lr, keep), want)
    batch = [torch.stack([x, x.flip(0), x]) for x in (k, v, q, lr, keep)]
    mapped = torch.func.vmap(scan)(*batch)
    close(mapped[2], want)
    close(mapped[1], scan(*(x[1] for x in batch)))


def test_what_vmap_cannot_map_is_refused_by_name():
    k, v, q = stream(4)
    for argument, name, options in (("impl", "delta", {"impl": "chunked"}), ("state", "mlp", {})):
        with refuses(argument):
            torch.func.vmap(lambda *x, name=name, o=options: memory.make(name).scan(*x, **o)[0])(k, v, q)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused_by_name(bad):
    k, v, q = stream()
    broken, mem = k.clone(), memory.make("delta")
    broken[1, 2, 3] = bad
    state = mem.init(4, 4, (3,), dtype=F64)
    for argument, call in (
        ("k", lambda: mem.scan(broken, v, q)),
        ("v", lambda: mem.scan(k, broken, q)),
        ("q", lambda: mem.scan(k, v, broken)),
        ("q", lambda: mem.read(state, broken)),
        ("k", lambda: mem.write(state, broken[:, 2], v[:, 2])),
        ("lr", lambda: mem.scan(k, v, q, lr=broken[..., 0] + bad)),
    ):
        with refuses(argument):
            call()
