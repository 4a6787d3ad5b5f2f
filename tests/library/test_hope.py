"""Hope and its baselines: one code path; streams, documents, causality, outer gradients, generation, disk, levels."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from kit import refuses, seeds
from torch import Tensor

from nlbook.book.chapters.counting import parity
from nlbook.cms import CMS
from nlbook.errors import NLBookError
from nlbook.hope import MIXERS, Attention, Hope, HopeAttention, HopeConfig, HopeState, LinearMixer, plain
from nlbook.hope.block import NextToken
from nlbook.hope.mixers import rotate
from nlbook.levels import Trace
from nlbook.numerics import rms
from nlbook.titans import SelfModifyingTitans
from nlbook.tree import load, restart, save, tensors

V = 11
SMALL = HopeConfig(
    vocabulary=V, dim=8, layers=2, hidden=6, periods=(3, 7), options={"chunk": 4, "other_chunk": 2}, ends=(1, 1, 1)
)
KINDS = {
    "hope": SMALL,
    "hope-attention": replace(SMALL, mixer="attention", options={}),
    **{m: SMALL.baseline(m) for m in MIXERS},
    "self_modifying": SMALL.baseline("self_modifying", options=SMALL.options),
    "windowed": SMALL.baseline("attention", options={"window": 4}),
    "two heads": replace(SMALL, heads=2),
    "learned start": SMALL.baseline("gated_delta", options={"learn_start": True}),
    "titans-cms": replace(SMALL, mixer="titans", options={"chunk": 4}),
    "behind the mixer": replace(SMALL, cms={"variant": "sequential"}),
    "through the updates": replace(SMALL, cms={"first_order": False}),
    "behind, through": replace(SMALL, cms={"variant": "sequential", "first_order": False}),
    "first edition": HopeConfig.first_edition(vocabulary=V, dim=8, hidden=6, periods=(3, 7), options=SMALL.options),
}


def tokens(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(1, V, (batch, length), generator=torch.Generator().manual_seed(seed))


def stirred(config: HopeConfig, seed: int = 1) -> Hope:
    """In float64 and off its special start, so that every part matters."""
    model, g = Hope(config).double(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if not name.split(".")[-1].startswith("log_"):
                p.add_(0.1 * torch.randn(p.shape, generator=g, dtype=p.dtype))
    return model


@pytest.mark.eq(70, 71, 86, 87, 88, 89, 90, 93, 94, 95, 96, 97)
@pytest.mark.parametrize(
    ("sizes", "chunk", "length"),
    [
        ({"dim": 16, "layers": 2, "heads": 2, "hidden": 12, "periods": (4, 8, 16)}, 8, 45),
        ({"dim": 6, "layers": 1, "hidden": 9, "periods": (3, 5)}, 5, 44),
    ],
)
def test_hope_is_the_plain_file(sizes, chunk, length, tmp_path):
    """Logits, and the outer gradient of every parameter, of a model from a file; documents begin at token 3."""
    options = {"chunk": chunk, "other_chunk": chunk}
    stirred(HopeConfig(vocabulary=V, options=options, reset_token=3, seed=3, **sizes)).save(tmp_path)
    model, text = Hope.load(tmp_path), tokens(1, length)
    assert int((text == 3).sum()) > 1
    weights = {n: w.clone().requires_grad_() for n, w in model.state_dict().items()}
    want = plain.hope(weights, text[0], sizes["periods"], chunk, boundary=3)
    got = model(text)[0][0]
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    way = torch.randn(want.shape, generator=torch.Generator().manual_seed(0), dtype=want.dtype)
    for logits in (got, want):
        (logits * way).sum().backward()
    for n, p in model.named_parameters():
        assert weights[n].grad.abs().max() > 0, n
        scale = 1 + float(weights[n].grad.abs().max())
        torch.testing.assert_close(p.grad, weights[n].grad, rtol=0, atol=1e-12 * scale, msg=n)


@pytest.mark.eq(71)
@pytest.mark.parametrize("variant", ["headwise", "sequential"])
def test_levels_learn_the_next_token_and_see_nothing_of_the_future(variant):
    """The levels of a block move by the gradient of its own next-token loss; a token changes no logits before it."""
    config = replace(SMALL, layers=1, periods=(4,), ends=(), cms={"variant": variant, "lr": 0.3})
    model, x = stirred(config), tokens(2, 9)
    y, state = model(x)
    block, moved = model.blocks[0], state.blocks[0].levels.levels[0].weights
    up = block.mlp.up[0].detach().expand(2, -1, -1).clone().requires_grad_()
    e = F.embedding(x[:, :4], model.embedding)
    o, _ = block.mixer(rms(e))
    h = e + (rms(o) * F.silu(rms(e) @ block.W_g.mT)) @ block.W_o.mT
    read = rms(e if variant == "headwise" else h)
    answer = h + F.silu(read @ up.mT) @ block.mlp.down[0].mT
    paid = F.cross_entropy((rms(answer) @ model.embedding.mT).mT, x[:, 1:5], reduction="none")
    eta = 2 * torch.sigmoid(rms(h) @ block.gate.mT + block.gate_bias)[..., 0]
    (slope,) = torch.autograd.grad((eta.detach() * paid).sum(), up)
    first, _ = model(x[:, :6])[1].blocks[0].levels.levels[0].weights.values()
    torch.testing.assert_close(first, up - block.mlp.rate(0) * slope, rtol=0, atol=1e-12)
    assert (moved["up"] - first).abs().max() > 1e-6
    for t in range(1, 9):
        other = x.clone()
        other[:, t] = (other[:, t] + 1) % V
        assert torch.equal(model(other)[0][:, :t], y[:, :t])


def test_levels_live_on_where_the_mixer_forgets():
    """Default ends: after a document the mixer is new and the levels are not; `ends` of 2 is every other document."""
    config = replace(SMALL, layers=1, reset_token=0, ends=(1, 0, 2))
    model = stirred(config)
    document = torch.cat([torch.zeros(2, 1, dtype=torch.long), tokens(2, 8)], 1)
    starts = {n: model.blocks[0].mlp.up[i].detach() for i, n in enumerate(model.blocks[0].mlp.names)}
    state, seen = None, []
    for _ in range(3):
        _, state = model(document, state)
        after = model._hear(document[:, :1], torch.tensor([True, True]), state).blocks[0]
        fresh = model.blocks[0].initial_state(2).mixer
        assert all(
            torch.equal(a, b) for a, b in zip(tensors(after.mixer).values(), tensors(fresh).values(), strict=True)
        )
        levels = dict(zip(starts, after.levels.levels, strict=True))
        seen.append([not torch.equal(levels[n].weights["up"][0], w) for n, w in starts.items()])
        assert all(s.clock == 0 and s.buffer is None for s in levels.values())
    assert seen == [[True, True], [True, False], [True, True]]


def test_levels_at_work_says_what_each_level_is_good_for():
    model, x = stirred(replace(SMALL, cms={"lr": 0.5})), tokens(2, 40)
    rows = model.levels_at_work(x)
    assert [(r["block"], r["level"]) for r in rows] == [(0, "C3"), (0, "C7"), (1, "C3"), (1, "C7")]
    before = float(model.loss(x))
    assert all(r["moved"] > 1e-3 and abs(r["nats"]) > 1e-6 for r in rows) and float(model.loss(x)) == before
    model.blocks[1].mlp.held.add(0)
    assert float(model.loss(x)) - before == pytest.approx(rows[2]["nats"], abs=1e-12)
    still = stirred(replace(SMALL, cms={"lr": 1e-12}))
    assert all(r["moved"] < 1e-6 and abs(r["nats"]) < 1e-6 for r in still.levels_at_work(x))
    assert Hope(SMALL.baseline("gated_delta")).levels_at_work(x) == []


def test_keys_begin_as_the_token_before():
    for mixer in ("self_modifying", "gated_delta", "attention", "titans"):
        taps = getattr(Hope(replace(SMALL, mixer=mixer, options={}, conv_noise=0.0)).blocks[0].mixer, "qkv", None)
        taps = (taps or Hope(replace(SMALL, mixer=mixer, options={}, conv_noise=0.0)).blocks[0].mixer).taps
        q, k, v = taps[0].detach()
        assert (k[-2] == 1).all() and (k[-1] == 0).all() and (q[-1] == 1).all() and (v[-1] == 1).all(), mixer
    old = Hope(replace(SMALL, shift=False, conv_noise=0.0)).blocks[0].mixer.taps[0].detach()
    assert (old[:, -1] == 1).all() and (old[:, :-1] == 0).all()


def test_a_file_of_the_first_edition_means_what_it_meant():
    """A configuration without `ends` is of nlbook 0.1: levels with a loss of their own, everything restarts."""
    fields = {"vocabulary": V, "dim": 8, "hidden": 6, "periods": [3, 7], "reset_token": 0, "options": {"read": "after"}}
    config = HopeConfig.from_json(json.dumps(fields))
    assert config.ends == (1, 1, 1) and not config.shift and config.conv_noise == 0.5
    assert config.options == {**HopeConfig.first_edition(vocabulary=V).options, "read": "after"}
    assert Hope(config).blocks[0].mlp.objective == "local"


@pytest.fixture(params=sorted(KINDS))
def model(request) -> Hope:
    return stirred(KINDS[request.param])


def test_a_stream_cut_anywhere_is_one_call(model):
    x = tokens(2, 15)
    want, end = model(x)
    for cut in (1, 6, 8, 14):
        a, s = model(x[:, :cut])
        b, s = model(x[:, cut:], s)
        torch.testing.assert_close(torch.cat([a, b], 1), want, rtol=0, atol=1e-11)
        for one, two in zip(tensors(s).values(), tensors(end).values(), strict=True):
            torch.testing.assert_close(one, two, rtol=0, atol=1e-11)
        assert s.position == 15 and all(b.mixer.position == 15 for b in s.blocks)


def test_causal_and_each_sequence_by_itself(model):
    x = tokens(3, 12)
    y, _ = model(x)
    other = x.clone()
    other[:, 7:] = tokens(3, 5, seed=9)
    assert torch.equal(model(other)[0][:, :7], y[:, :7])
    torch.testing.assert_close(model(x[1:2])[0], y[1:2], rtol=0, atol=1e-12)


def test_every_parameter_learns(model):
    """The outer gradient reaches everything, the initial state of every memory and CMS level among it."""
    x = tokens(2, 24)
    model.loss(x).backward()
    dead = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or p.grad.abs().max() == 0)]
    assert dead == []


def test_the_outer_gradient_is_the_derivative():
    model = stirred(KINDS["through the updates"])
    x = tokens(2, 13)
    model.loss(x).backward()
    g = torch.Generator().manual_seed(3)
    way = {n: torch.randn(p.shape, generator=g, dtype=p.dtype) for n, p in model.named_parameters()}
    slope = sum(float((p.grad * way[n]).sum()) for n, p in model.named_parameters())
    at = {n: p.detach().clone() for n, p in model.named_parameters()}

    def value(step: float) -> float:
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(at[n] + step * way[n])
            return float(model.loss(x))

    h = 1e-6
    assert (value(h) - value(-h)) / (2 * h) == pytest.approx(slope, rel=1e-6)


def test_documents_do_not_see_each_other(model):
    """A restart of all rows is a new call; a restart of one row hides its past from it and from nobody else."""
    a, b = tokens(2, 7), tokens(2, 8, seed=5)
    both = torch.cat([a, b], 1)
    everywhere = torch.zeros(2, 15, dtype=torch.bool)
    everywhere[:, 7] = True
    y, _ = model(both, reset=everywhere)
    torch.testing.assert_close(y[:, :7], model(a)[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(y[:, 7:], model(b)[0], rtol=0, atol=1e-11)
    alone = everywhere.clone()
    alone[1] = False
    y, _ = model(both, reset=alone)
    torch.testing.assert_close(y[1], model(both)[0][1], rtol=0, atol=1e-12)
    changed = both.clone()
    changed[:, :7] = tokens(2, 7, seed=8)
    z, _ = model(changed, reset=alone)
    torch.testing.assert_close(z[0, 7:], y[0, 7:], rtol=0, atol=1e-12)
    assert (z[1, 7:] - y[1, 7:]).abs().max() > 1e-6
    split, s = model(both[:, :10], reset=alone[:, :10])  # and a stream may be cut inside a document
    torch.testing.assert_close(torch.cat([split, model(both[:, 10:], s)[0]], 1), y, rtol=0, atol=1e-11)


def test_a_token_can_begin_documents():
    plain, marked = stirred(SMALL), stirred(replace(SMALL, reset_token=0))
    x = torch.cat([tokens(2, 5), torch.zeros(2, 1, dtype=torch.long), tokens(2, 6, seed=2)], 1)
    assert torch.equal(marked(x)[0][:, 5:], plain(x[:, 5:])[0]) and not torch.equal(
        plain(x)[0][:, 5:], marked(x)[0][:, 5:]
    )


def test_generation_is_reading_what_one_has_said(model):
    prompt = tokens(2, 5)
    said, state = model.generate(prompt, 6, temperature=0)
    text = torch.cat([prompt, said], 1)
    logits, _ = model(text)
    assert torch.equal(logits[:, 4:-1].argmax(-1), said)
    assert state.position == 10
    more, _ = model.generate(said[:, -1:], 3, state=state, temperature=0)
    assert torch.equal(more, model.generate(text, 3, temperature=0)[0])
    one, two, three = (model.generate(prompt, 8, seed=s)[0] for s in (1, 1, 2))
    assert torch.equal(one, two) and not torch.equal(one, three)
    assert model.generate(prompt, 0)[0].shape == (2, 0)
    many = tokens(64, 3)
    chance = torch.softmax(model(many)[0][:, -1] / 0.5, -1)
    drawn = torch.multinomial(chance, 1, generator=torch.Generator().manual_seed(3))
    assert torch.equal(model.generate(many, 1, temperature=0.5, seed=3)[0], drawn)


def test_the_state_keeps_its_size():
    for name in ("hope", "titans", "gated_delta", "windowed"):
        model = Hope(KINDS[name])
        with torch.no_grad():
            sizes = [model(tokens(1, n))[1].numel() for n in (42, 84, 420)]
        assert len(set(sizes)) == 1, name
    growing = Hope(KINDS["attention"])
    assert growing(tokens(1, 84))[1].numel() > growing(tokens(1, 42))[1].numel()


def test_saved_models_come_back(model, tmp_path):
    model.save(tmp_path / "m")
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["config.json", "model.safetensors"]
    again = Hope.load(tmp_path / "m")
    assert again.config == model.config and torch.equal(again(tokens(1, 9))[0], model(tokens(1, 9))[0])


def test_what_is_wrong_on_disk_is_named(tmp_path):
    with pytest.raises(NLBookError, match=r"config\.json"):
        Hope.load(tmp_path)
    Hope(SMALL).save(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    for name, wrong in (
        ("config", {"size": 3}),
        ("options", {"options": {"retention": "zero"}}),
        ("cms", {"cms": {"x": 1}}),
    ):
        (tmp_path / "config.json").write_text(json.dumps(fields | wrong))
        with refuses(name):
            Hope.load(tmp_path)


def test_baselines_have_the_same_size_and_parts():
    base = HopeConfig(vocabulary=40, dim=32, hidden=24)
    size = Hope(base).parameter_count()
    for mixer in MIXERS:
        model = Hope(base.baseline(mixer))
        assert abs(model.parameter_count() - size) <= 2 * 32 * 2, mixer
        assert [n for n, _ in model.blocks[0].named_parameters() if n.startswith("W_")] == ["W_g", "W_o"]
        assert any("taps" in n for n, _ in model.named_parameters())  # the same short convolution
    assert isinstance(HopeAttention(base).blocks[0].mixer, Attention) and isinstance(
        HopeAttention(base).blocks[0].mlp, CMS
    )


def test_autocast_keeps_memories_in_full_precision():
    for name in ("hope", "gated_delta", "attention", "titans"):
        model, x = Hope(KINDS[name]), tokens(2, 20)
        with torch.autocast("cpu", torch.bfloat16):
            half = model.loss(x)
            _, s = model(x)
        half.backward()
        full = model.loss(x)
        assert half.item() == pytest.approx(full.item(), rel=0.03), name
        if name == "hope":
            assert all(t.dtype in (torch.float32, torch.long) for t in tensors(s).values())
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", ["hope", "attention", "linear", "gated_delta", "titans"])
def test_edges_are_right_or_refused(name):
    """No tokens, no sequences, nothing to predict; weights in half precision."""
    model, x = Hope(KINDS[name]), tokens(2, 20)
    assert model(x[:, :0])[0].shape == (2, 0, V) and model(x[:0])[0].shape == (0, 20, V)
    for word, asked in (("tokens", (x[:, :1],)), ("tokens", (x[:0],)), ("graded", (x, torch.zeros(2, 20).bool()))):
        with refuses(word):
            model.loss(*asked)
    full = model.loss(x).item()
    assert model.loss(x, torch.ones(2, 20).bool()).item() == pytest.approx(full, rel=1e-6)
    for dtype in (torch.bfloat16, torch.float16):
        assert model.to(dtype).loss(x).item() == pytest.approx(full, rel=0.01)


@pytest.mark.parametrize("name", ["hope", "attention", "gated_delta", "titans"])
def test_a_whole_model_compiles_into_one_graph(name):
    """torch.compile with no graph break: the same logits, state and outer gradients (traced; no code is generated)."""
    short = {"periods": (4,), "ends": (), "options": {"chunk": 4, "other_chunk": 4}} if name == "hope" else {}
    model, x = stirred(replace(KINDS[name], layers=1, **short)), tokens(2, 5)  # hope: a chunk, and one token
    want, state = model(x)
    want.square().sum().backward()
    grads = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    torch.compiler.reset()
    got, again = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    for a, b in zip(tensors(again).values(), tensors(state).values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    got.square().sum().backward()
    for n, p in model.named_parameters():
        if n in grads:
            torch.testing.assert_close(p.grad, grads[n], rtol=1e-9, atol=1e-9)


@pytest.mark.eq(94, 95, 96, 97)
def test_a_block_is_titans_then_the_chain():
    """Eq. 94-97 with the parts named one by one: norm, memory, gated read-out, residual, MLP levels fast to slow."""
    model = stirred(replace(SMALL, cms={"variant": "sequential"}))
    block, text = model.blocks[0], tokens(2, 9)
    x = F.embedding(text, model.embedding)
    y, _ = block(x, block.initial_state(2), text[:, 1:], NextToken(model.embedding))
    assert isinstance(block.mixer, SelfModifyingTitans) and list(block.mlp.periods) == sorted(block.mlp.periods)
    o, _ = block.mixer(rms(x))
    h = x + (rms(o) * F.silu(rms(x) @ block.W_g.mT)) @ block.W_o.mT
    for up, down in zip(block.mlp.up, block.mlp.down):
        h = h + F.silu(rms(h) @ up.mT) @ down.mT
    torch.testing.assert_close(y[:, :3], h[:, :3], rtol=0, atol=1e-12)  # nothing has moved before the first boundary
    assert (y[:, 3:] - h[:, 3:]).abs().max() > 1e-6


def test_the_error_of_the_next_token_is_the_derivative_of_its_loss():
    head, y = (
        torch.randn(*s, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        for i, s in enumerate(((V, 8), (2, 5, 8)))
    )
    loss, y = NextToken(head), y.requires_grad_()
    (slope,) = torch.autograd.grad(loss(y, tokens(2, 5)).sum(), y)
    torch.testing.assert_close(loss.error(y, tokens(2, 5)), slope, rtol=0, atol=1e-12)


def test_a_window_of_three_sees_three_tokens():
    layer, x = Attention(4, window=3, conv=0), torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    other = x.clone()
    other[:, 2] += 1
    moved = (layer(x)[0] - layer(other)[0]).abs().amax(-1)[0] > 1e-6
    assert moved.tolist() == [False, False, True, True, True, False]


def test_rotary_positions_only_see_distances():
    q, k = (torch.randn(1, 1, 8, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in (0, 1))
    score = [float((rotate(q, i) @ rotate(k, j).mT).squeeze()) for i, j in ((5, 2), (105, 102), (5, 3))]
    assert score[0] == pytest.approx(score[1], abs=1e-9) and abs(score[0] - score[2]) > 1e-3


@pytest.mark.parametrize("rule", ["linear", "delta", "gated_delta"])
def test_linear_mixers_are_their_recurrences(rule):
    """Token by token: eq. 15-16, eq. 65, and the gated delta rule, read after the write."""
    m = LinearMixer(4, rule=rule, horizon=5.0, seed=1).double()
    with torch.no_grad():
        m.gate.weight.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(1, 7, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    y, _ = m(x)
    z, _ = m.qkv(x, m.qkv.tail(1))
    q, k, v = z[0, 0]
    q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
    beta, alpha = torch.sigmoid(m.gate(x))[0].unbind(-1)
    M = torch.zeros(4, 4, dtype=torch.float64)
    for t in range(7):
        if rule == "gated_delta":
            M = alpha[t] * M
        erased = torch.zeros(4, dtype=torch.float64) if rule == "linear" else M @ k[t]
        M = M + beta[t] * torch.outer(v[t] - erased, k[t])
        torch.testing.assert_close(y[0, t], M @ q[t], rtol=0, atol=1e-9)


def test_levels_and_trace_of_a_whole_model():
    model = Hope(SMALL)
    opt = torch.optim.AdamW(model.parameters())
    system = model.levels(opt, tokens_per_step=64)
    period = {c.name: c.period for c in system.components}
    assert period["blocks.0.mixer.M_mem"] == 4 and period["blocks.1.mixer.M_eta"] == 2
    assert period["blocks.0.mlp.C3"] == 3 and period["blocks.1.mlp.C7"] == 7
    assert {c.kind for c in system.components} >= {"fast state", "initial state", "weights", "optimizer state"}
    with Trace(model, opt, tokens_per_step=64) as trace:
        model(tokens(1, 21))
    assert len(trace.updates["blocks.0.mixer.M_mem"]) == 5 and len(trace.updates["blocks.1.mlp.C3"]) == 6
    assert "attention" in "".join(c.name for c in Hope(KINDS["attention"]).levels(opt, 64).components).lower() or any(
        c.kind == "non-parametric" for c in Hope(KINDS["attention"]).levels().components
    )


def test_the_defaults_are_these():
    sizes = {"vocabulary": 5, "dim": 64, "layers": 2, "heads": 1, "hidden": 64, "periods": (16, 64, 256), "ends": ()}
    parts = {"mixer": "self_modifying", "mlp": "cms", "options": {}, "cms": {}, "reset_token": None, "seed": 0}
    taps = {"conv": 4, "conv_noise": 0.2, "shift": True, "activation": "silu"}
    assert vars(HopeConfig(vocabulary=5)) == sizes | parts | taps


def test_configs_go_through_json():
    config = replace(SMALL, options={"read": "after", "chunk": 8}, cms={"lr": 0.2}, reset_token=3)
    assert HopeConfig.from_json(config.to_json()) == config
    for bad, word in (
        (lambda: HopeConfig(vocabulary=0), "vocabulary"),
        (lambda: replace(SMALL, mixer="mamba"), "mixer"),
        (lambda: replace(SMALL, mlp="none"), "mlp"),
        (lambda: replace(SMALL, reset_token=V), "reset_token"),
        (lambda: HopeConfig.from_json("{"), "config"),
        (lambda: replace(SMALL, periods=()), "periods"),
        (lambda: Hope(SMALL)(torch.zeros(2, 3)), "tokens"),
        (lambda: Hope(SMALL)(torch.full((1, 3), V)), "tokens"),
        (lambda: Hope(SMALL).generate(tokens(1, 0), 2), "prompt"),
        (lambda: Hope(SMALL).loss(tokens(1, 4), torch.ones(1, 3)), "graded"),
    ):
        with pytest.raises(NLBookError, match=word):
            bad()


def test_a_state_can_be_kept_and_cut(tmp_path):
    model = stirred(SMALL)
    _, s = model(tokens(2, 9))
    assert isinstance(s, HopeState) and any(t.requires_grad for t in tensors(s).values())
    kept = s.clone()
    assert (
        not any(t.requires_grad for t in [*tensors(s.detach()).values(), *tensors(kept).values()])
        and kept.position == 9
    )
    save(tmp_path / "s.safetensors", s)
    read = load(tmp_path / "s.safetensors", model.initial_state(1))
    for same in (kept, read):
        assert torch.equal(model(tokens(2, 5), same)[0], model(tokens(2, 5), s)[0])


def test_a_memory_file_is_read_by_the_same_weights_only(tmp_path):
    model, friend, other = stirred(SMALL), stirred(SMALL), Hope(SMALL)
    x = tokens(1, 12)
    _, state = model(x)
    model.save_memory(tmp_path / "memory", state)
    got, want = (m(x, s)[0] for m, s in ((friend, friend.load_memory(tmp_path / "memory")), (model, state)))
    torch.testing.assert_close(got, want, rtol=0, atol=0)
    with pytest.raises(NLBookError, match="other weights"):
        other.load_memory(tmp_path / "memory")
    raw = (tmp_path / "memory").read_bytes()
    save(tmp_path / "bare", state)  # a state without the mark of its weights
    model.save(tmp_path / "model")
    (tmp_path / "cut").write_bytes(raw[: len(raw) // 2])
    (tmp_path / "turned").write_bytes(raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:])
    for name in ("nothing", "bare", "cut", "turned", "model/model.safetensors"):
        with pytest.raises(NLBookError, match="path: got"):
            model.load_memory(tmp_path / name)


def test_a_row_that_waits_learns_in_full_precision():
    """Under autocast a stream cut anywhere moves the levels as one call does."""
    model, x = stirred(SMALL).float(), tokens(1, 40)
    with torch.autocast("cpu", torch.bfloat16):
        _, whole = model(x)
        state = None
        for t in range(x.shape[1]):
            _, state = model(x[:, t : t + 1], state)
    full = [level.weights["up"].double() for s in (whole, state) for level in s.blocks[0].levels.levels]
    start = [w.double() for w in model.blocks[0].mlp.up]
    for one, cut, begin in zip(full[: len(start)], full[len(start) :], start):
        assert (one - cut).norm() <= 1e-3 * (one - begin).norm() + 1e-12


def test_what_is_wrong_with_a_kept_state_is_named(tmp_path):
    Hope(SMALL).save(tmp_path)
    with pytest.raises(NLBookError, match=r"path.*no state"):
        load(tmp_path / "model.safetensors", Hope(SMALL).initial_state(1))
    save(tmp_path / "s", Hope(SMALL).initial_state(1))
    with pytest.raises(NLBookError, match=r"path.*another kind"):
        load(tmp_path / "s", stirred(SMALL).blocks[0].mlp.initial_state(1))


def test_a_restart_takes_rows_from_the_fresh_state():
    tree = {"a": torch.ones(3, 2), "step": torch.tensor(4.0), "buffer": torch.ones(3), "n": 5, "none": None}
    rows = torch.tensor([True, False, True])
    got = restart(rows, [tree], [{"a": torch.zeros(3, 2)}])[0]
    assert got["a"].sum(1).tolist() == [0, 2, 0] and got["buffer"].tolist() == [0, 1, 0]
    assert (got["n"], got["none"], float(got["step"])) == (5, None, 4.0)


def stream(length: int, chunk: int = 16, part: int = 4096) -> tuple[int, float]:
    """Read `length` random tokens; returns the numbers kept and the largest of them."""
    periods = (chunk, 4 * chunk, 16 * chunk)
    model = Hope(
        HopeConfig(
            vocabulary=16,
            dim=8,
            layers=1,
            hidden=8,
            periods=periods,
            options={"chunk": 4 * chunk, "other_chunk": chunk},
        )
    )
    g, state, size = torch.Generator().manual_seed(0), None, None
    with torch.no_grad():
        for _ in range(-(-length // part)):
            logits, state = model(torch.randint(16, (1, part), generator=g), state)
            size = size or state.numel()
            assert torch.isfinite(logits).all() and state.numel() == size
    assert state is not None and size is not None and state.position >= length
    largest = max(float(t.abs().max()) for t in tensors(state).values())
    assert largest < 1e3
    return size, largest


def test_a_stream_stays_finite():
    stream(8_192)


def test_untrained_titans_stays_finite_on_one_token_again_and_again():
    """Within a chunk the gradients of its tokens add up, so its state grows from chunk to chunk, in the end to NaN."""
    config = HopeConfig(vocabulary=9, dim=32)
    for options, finite in ({}, True), ({"radius": None}, False):
        with torch.no_grad():
            logits, _ = Hope(config.baseline("titans", options=options))(torch.zeros(1, 200, dtype=torch.long))
        assert bool(logits.isfinite().all()) == finite


@pytest.mark.slow
def test_a_million_tokens_stay_finite():
    stream(1_000_000, chunk=128)


# ---------------------------------------------------------------- what such memories can learn (Table 5)
@seeds(1, 2)
def test_counting_generalises_to_lengths_never_trained(seed):
    """Trained on short words of (aa)*, every prefix of every new word right up to twice their length. Parity, and the
    controls that fail where they are trained: see the tests of appendix D.
    """
    run = parity.count("self-modifying", seed, language="aa", **parity.LANGUAGES["aa"])
    assert run.bins[:2] == (1.0, 1.0) and run.lengths[1][1] == 2 * run.longest
    assert run.steps <= 200
