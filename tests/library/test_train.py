"""The training loop: the same run after a kill, a bar, clipping, an end with a reason."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
import tqdm
from torch import nn

from nlbook.errors import NLBookError
from nlbook.hope import Hope, HopeConfig
from nlbook.train import CHECKPOINT, TrainingStopped, Watch, adamw, constant, cosine, train

CONFIG = HopeConfig(vocabulary=9, dim=8, layers=1, hidden=8, periods=(4, 16), options={"chunk": 4, "other_chunk": 4})


def batches(step: int):
    return torch.randint(9, (4, 19), generator=torch.Generator().manual_seed(step))


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


class Noisy(nn.Module):
    """Dropout, so that the random state matters, and a tensor that no optimizer moves."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.drop = nn.Linear(3, 1), nn.Dropout(0.5)
        self.register_buffer("seen", torch.zeros(()))
        with torch.no_grad():
            self.linear.weight.fill_(0.5)
            self.linear.bias.zero_()

    def loss(self, x):
        self.seen += 1
        return (self.linear(self.drop(x)) - x.sum(-1, keepdim=True)).square().mean()


def numbers(step: int) -> torch.Tensor:
    return torch.randn(16, 3, generator=torch.Generator().manual_seed(step))


@pytest.mark.parametrize("make", [lambda: Hope(CONFIG), Noisy], ids=["hope", "dropout"])
def test_a_run_goes_on_bit_for_bit(make, tmp_path):
    data = batches if make is not Noisy else numbers
    whole, parts = make(), make()
    want = train(whole, data, 9, folder=tmp_path / "a", save_every=100, lr=1e-2)

    class Killed(Exception):
        pass

    def dying(step: int):
        if step == 5:
            raise Killed
        return data(step)

    with pytest.raises(Killed):
        train(parts, dying, 9, folder=tmp_path / "b", save_every=2, lr=1e-2)
    again = make()  # a new process: nothing but the folder
    got = train(again, data, 9, folder=tmp_path / "b", save_every=2, lr=1e-2)
    assert got.loss == want.loss and got.norm == want.norm and same(again, whole)
    assert train(make(), data, 9, folder=tmp_path / "b", lr=1e-2).loss == want.loss  # finished: nothing more to do
    assert [p.name for p in (tmp_path / "b").iterdir()] == [CHECKPOINT]  # no half-written file left


def test_a_killed_process_goes_on_bit_for_bit(tmp_path):
    """The real thing: SIGKILL in the middle of training, then the same command again."""
    script = tmp_path / "run.py"
    script.write_text(
        textwrap.dedent("""
        import sys, torch
        from nlbook.train import train
        torch.set_num_threads(1)
        class M(torch.nn.Linear):
            def loss(self, x): return (self(x) - x.sum(-1, keepdim=True)).square().mean()
        torch.manual_seed(0)
        model = M(3, 1)
        def data(step):
            if step == 30 and "wait" in sys.argv:
                print("ready", flush=True)
                sys.stdin.read()
            return torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        h = train(model, data, 60, folder=sys.argv[1], save_every=7)
        print(repr(h.loss), model.weight.tolist())
    """)
    )
    env = {**os.environ, "TQDM_DISABLE": "1"}

    def command(folder: str, *more: str) -> list[str]:
        return [sys.executable, str(script), str(tmp_path / folder), *more]

    child = subprocess.Popen(command("b", "wait"), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
    assert child.stdout is not None and child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    child.stdin.close()
    out = [subprocess.run(command(f), env=env, capture_output=True, check=True).stdout for f in ("a", "b")]
    assert out[0] == out[1] and len(out[0]) > 500


def test_the_callers_randomness_is_left_alone():
    models = [Noisy(), Noisy(), Noisy()]
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    runs = [train(m, numbers, 4, seed=s).loss for m, s in zip(models, (0, 0, 1))]
    assert torch.equal(torch.rand(2), want) and runs[0] == runs[1] != runs[2]


def test_it_learns_and_it_clips():
    model = Noisy()
    model.drop.p = 0.0
    history = train(model, numbers, 150, lr=0.1, schedule=constant)
    assert history.tail() < 0.01 * history.loss[0] and history.steps == 150
    grads = []
    sgd = torch.optim.SGD(model.parameters(), lr=0.0)
    sgd.register_step_pre_hook(
        lambda *_: grads.append(math.sqrt(sum(float(p.grad.square().sum()) for p in model.parameters())))
    )
    h = train(model, lambda i: 100 * numbers(i), 2, optimizer=sgd, clip=0.25)
    assert min(h.norm) > 0.25 and grads == pytest.approx([0.25, 0.25], rel=1e-4)
    h = train(model, lambda i: 100 * numbers(i), 2, optimizer=sgd, clip=None)
    assert grads[2:] == pytest.approx(h.norm, rel=1e-5)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_not_finite_stops_training(what, tmp_path):
    class Breaks(nn.Linear):
        def loss(self, x):
            bad = float(x.sum()) == 0
            y = self(x).square().mean()
            if bad and what == "loss":
                return y * math.nan
            return y + (torch.sqrt(0 * self.weight.sum()) if bad else 0)  # finite value, infinite slope

    torch.manual_seed(0)
    model = Breaks(3, 1)
    data = lambda step: torch.zeros(2, 3) if step == 5 else numbers(step)  # noqa: E731
    with pytest.raises(TrainingStopped, match=r"step 5.*losses before it: \d.*checkpoint of step 4.*smaller lr"):
        train(model, data, 9, folder=tmp_path, save_every=2, schedule=constant)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    torch.manual_seed(0)
    four = Breaks(3, 1)
    train(four, data, 4, schedule=constant)
    assert same(four, model)  # back at the last good one
    with pytest.raises(TrainingStopped, match="no checkpoint"):
        train(Breaks(3, 1), data, 9)


def test_a_batch_may_bring_its_own_loss():
    model, x = Hope(CONFIG), batches(0)
    task = SimpleNamespace(tokens=x, loss=lambda logits: logits.square().mean())
    assert train(model, lambda step: task, 1, lr=0.0).loss == [task.loss(model(x)[0]).item()]


def test_it_stops_when_it_is_good_enough(tmp_path):
    model, seen = Noisy(), []
    history = train(
        model,
        numbers,
        100,
        watch=Watch(lambda m: (seen.append(1), len(seen) * 0.25)[1], every=5, enough=0.5, patience=2),
        folder=tmp_path,
    )
    assert history.steps == 15 and history.marks == {5: 0.25, 10: 0.5, 15: 0.75} and history.stopped
    assert train(Noisy(), numbers, 100, folder=tmp_path).steps == 15


def test_initial_states_can_have_a_rate_of_their_own():
    model = Hope(CONFIG)
    opt = adamw(model, 1e-2, start_lr=0.0, weight_decay=0.1)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    train(model, batches, 2, optimizer=opt, schedule=partial(constant, warmup=1))
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    starts = {n for n in before if ".initial." in n or ".mlp.up" in n or ".mlp.down" in n}
    assert starts and not (moved & starts) and {"embedding", "blocks.0.W_o", "blocks.0.mixer.W_q"} <= moved
    decay = {id(p): g["weight_decay"] for g in opt.param_groups for p in g["params"]}
    named = dict(model.named_parameters())
    assert (
        decay[id(named["blocks.0.W_o"])] == 0.1
        and decay[id(named["embedding"])] == 0 == decay[id(named["blocks.0.mixer.taps"])]
    )


def test_schedules():
    assert cosine(0, 100, 10) == pytest.approx(0.1) and cosine(100, 100, 10) == pytest.approx(0, abs=1e-12)
    assert cosine(9, 100, 10) > 0.9 and constant(50, 100, 10) == 1.0 and constant(4, 100, 10) == 0.5


def test_a_bar_is_shown_to_who_asks_for_one(monkeypatch, capsys):
    monkeypatch.setattr("tqdm.auto.tqdm", partial(tqdm.tqdm, disable=False, mininterval=0))
    train(Hope(CONFIG), batches, 2)
    assert capsys.readouterr().err == ""
    train(Hope(CONFIG), batches, 2, label="reading")
    shown = capsys.readouterr().err
    assert "reading" in shown and "loss" in shown and "tokens/s" in shown


def test_bad_arguments_are_named(tmp_path):
    for bad, word in (
        (lambda: train(Noisy(), numbers, -1), "steps"),
        (lambda: train(nn.Linear(2, 2), numbers, 1), "model"),
        (lambda: Watch(len, every=0), "every"),
        (lambda: Watch(len, patience=0), "patience"),
        (lambda: train(Noisy(), numbers, 1, save_every=0), "save_every"),
    ):
        with pytest.raises(NLBookError, match=word):
            bad()
    train(Hope(CONFIG), batches, 1, folder=tmp_path)
    with pytest.raises(NLBookError, match="folder"):
        train(Hope(replace(CONFIG, dim=16)), batches, 2, folder=tmp_path)


class Own(nn.Linear):
    """A layer with a loss of its own and, where asked, a state that no file can hold."""

    def loss(self, batch):
        return self(batch).square().mean()


class Extra(Own):
    def get_extra_state(self):
        return {"n": 1}

    def set_extra_state(self, state):
        pass


def spoil(raw: bytes, how: str) -> bytes:
    return {
        "empty": b"",
        "junk": b"x" * 99,
        "cut": raw[: len(raw) // 2],
        "flip": raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:],
    }[how]


@pytest.mark.parametrize("how", ["empty", "junk", "cut", "flip"])
def test_a_damaged_checkpoint_is_named(how, tmp_path):
    file = tmp_path / CHECKPOINT
    train(Own(3, 2), numbers, 2, folder=tmp_path)
    file.write_bytes(spoil(file.read_bytes(), how))
    with pytest.raises(NLBookError, match=CHECKPOINT):
        train(Own(3, 2), numbers, 4, folder=tmp_path)


@pytest.mark.parametrize(
    ("word", "again"),
    [
        ("seed", lambda folder: train(Own(3, 2), numbers, 4, folder=folder, seed=1)),
        ("lr", lambda folder: train(Own(3, 2), numbers, 4, folder=folder, lr=0.1)),
        ("folder", lambda folder: train(Own(3, 4), numbers, 4, folder=folder)),
        (
            "optimizer",
            lambda folder: train(
                m := Own(3, 2),
                numbers,
                4,
                folder=folder,
                optimizer=torch.optim.SGD([{"params": [m.weight, m.bias], "lr": 3e-3}, {"params": [], "lr": 3e-3}]),
            ),
        ),
    ],
)
def test_what_a_resumed_run_is_told_is_used_or_refused(word, again, tmp_path):
    train(Own(3, 2), numbers, 2, folder=tmp_path)
    with pytest.raises(NLBookError, match=word):
        again(tmp_path)


def test_what_no_checkpoint_can_keep_is_refused_before_the_first_step(tmp_path):
    m, file = Own(3, 2), tmp_path / "file"
    file.write_text("x")
    tensor_rate = torch.optim.Adam(m.parameters(), lr=torch.tensor(1e-3))
    for word, run in (
        ("_extra_state", lambda: train(Extra(3, 2), numbers, 1, folder=tmp_path)),
        ("optimizer", lambda: train(m, numbers, 1, folder=tmp_path, optimizer=tensor_rate)),
        ("optimizer", lambda: train(m, numbers, 1, optimizer=torch.optim.LBFGS(m.parameters()))),
        ("folder", lambda: train(m, numbers, 1, folder=file)),
    ):
        before = m.weight.clone()
        with pytest.raises(NLBookError, match=word):
            run()
        assert torch.equal(m.weight, before) and not (tmp_path / CHECKPOINT).exists()


def test_an_optimizer_of_a_part_counts_and_clips_that_part():
    m = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2))
    m.loss = lambda batch: m(batch).square().mean()
    head = torch.optim.SGD(m[2].parameters(), lr=0.0)
    norms = train(m, lambda step: numbers(0), 4, optimizer=head).norm
    m.zero_grad()
    m.loss(numbers(0)).backward()
    own = torch.stack([p.grad.square().sum() for p in m[2].parameters()]).sum().sqrt()
    assert norms == pytest.approx([float(own)] * 4, rel=1e-6)  # the same batch and rate 0: nothing adds up
