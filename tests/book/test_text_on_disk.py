"""The text of the reader's own Python, in mapped files, and the models that read it."""

from __future__ import annotations

import hashlib
import json
import math

import numpy as np
import pytest
import torch
from kit import refuses

from nlbook.book.data import python_text
from nlbook.book.data.python_text import DOCUMENT
from nlbook.book.ledger.runs import text
from nlbook.train import TrainingStopped


@pytest.fixture
def library(tmp_path):
    """A standard library of 60 small files, one with a byte order mark, a test folder and a file that is no text."""
    root = tmp_path / "lib"
    for i in range(60):
        file = root / ("pkg" if i % 3 else ".") / f"m{i}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"def f{i}(x):\r\n    return x + {i}  # été\n", "utf-8-sig" if i == 7 else "utf-8", newline="")
    (root / "test").mkdir()
    (root / "test" / "test_a.py").write_text("x = 1\n")
    (root / "latin.py").write_bytes(b"# \xe9t\xe9\n")
    return root


def test_the_readers_own_library_is_text_without_its_tests():
    files = dict(python_text.standard_library())
    assert len(files) > 300 and "json/decoder.py" in files and list(files) == sorted(files)
    assert not any("test" in name.split("/")[:-1] or "site-packages" in name for name in files)


def test_files_go_to_one_part_by_their_name_byte_by_byte(library, tmp_path):
    files = dict(python_text.standard_library(library))
    assert len(files) == 61 and files.pop("latin.py") is None and b"\r" not in b"".join(files.values())
    assert files["pkg/m7.py"].startswith(b"def f7")
    parts = python_text.prepare(tmp_path / "t", root=library)
    names = {"valid": [n for n in files if python_text.is_valid(n)]}
    names["train"] = [n for n in files if n not in names["valid"]]
    assert 0 < len(names["valid"]) < 20 and not python_text.is_valid("json/decoder.py")
    card = json.loads((tmp_path / "t" / "card.json").read_text())
    assert (card["source"], card["left_out"]) == ("lib", 1)
    for part, tokens in parts.items():
        assert tokens.tolist() == [t for n in names[part] for t in (DOCUMENT, *files[n])]
        assert isinstance(tokens, np.memmap) and not tokens.flags.writeable
        raw = (tmp_path / "t" / f"{part}.bin").read_bytes()
        said = {"files": len(names[part]), "tokens": len(tokens), "sha256": hashlib.sha256(raw).hexdigest()}
        assert card[part] == said and len(raw) == 2 * len(tokens)


def test_most_bounds_both_parts(library, tmp_path):
    whole = python_text.prepare(tmp_path / "a", root=library)
    part = python_text.prepare(tmp_path / "b", root=library, most=1000)
    last = len(part["train"]) - part["train"].tolist()[::-1].index(DOCUMENT)  # before the file that passes the limit
    read = int((part["train"][: last - 1] < DOCUMENT).sum())
    assert read < 1000 <= int((part["train"] < DOCUMENT).sum()) and len(part["train"]) < len(whole["train"])
    assert len(part["valid"]) < len(whole["valid"])


def test_a_library_too_small_for_two_parts_is_refused(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    with refuses("root"):
        python_text.prepare(tmp_path / "t", root=tmp_path)
    with refuses("root"):
        python_text.prepare(tmp_path / "t", root=tmp_path / "none")


# ---- windows ---------------------------------------------------------------------------------------------------------
TEXT = np.array([DOCUMENT if i % 11 == 0 else i for i in range(46)], np.uint16)


def test_windows_are_a_function_of_seed_and_step():
    at, again, other = (python_text.windows(TEXT, batch=4, length=20, seed=s) for s in (1, 1, 2))
    assert torch.equal(at(7), again(7)) and at(7).shape == (4, 20) and at(7).dtype == torch.int64
    assert not torch.equal(at(7), other(7)) and not torch.equal(at(7), at(8))
    assert all(row.tolist() in [TEXT[i : i + 20].tolist() for i in range(27)] for row in at(3))
    before = torch.random.get_rng_state()
    at(3)
    assert torch.equal(before, torch.random.get_rng_state())  # the global generator is not touched


def test_every_start_can_be_drawn_the_last_among_them():
    at = python_text.windows(TEXT[:5], batch=64, length=4, seed=0)  # five tokens, windows of four: two starts
    assert {int(r[0]) for r in at(0)} == {DOCUMENT, 1}


def test_an_evaluation_grades_each_token_at_most_once():
    rows = python_text.in_order(TEXT, length=6, most=99).tolist()
    assert [t for r in rows for t in r[1:]] == TEXT[1:46].tolist() and len(rows) == 9
    assert python_text.in_order(TEXT, length=6, most=3).tolist() == [rows[0], rows[3], rows[6]]


@pytest.mark.parametrize("length", [1, 47])
def test_windows_longer_than_the_text_or_without_a_prediction_are_refused(length):
    with refuses("length"):
        python_text.windows(TEXT, batch=1, length=length, seed=0)
    with refuses("length"):
        python_text.in_order(TEXT, length=length, most=1)


# ---- the experiment --------------------------------------------------------------------------------------------------
SIZE = {"dim": 16, "layers": 1, "hidden": 16, "periods": [8, 32]}
SHORT = {"steps": 30, "batch": 4, "length": 32, "held": 8, "held_length": 64, "most": 200_000}


def test_models_have_one_size_learn_and_repeat_themselves():
    """A model that has read 8 kB is better than a guess (8 bits), and a run repeats itself to the bit."""
    found = {m: text.run(method=m, lr=0.01, seed=0, **SHORT, **SIZE) for m in ("Hope", "gated delta", "Transformer")}
    sizes = [f["parameters"] for f in found.values()]
    assert max(sizes) - min(sizes) <= 2 * 16
    assert all(3 < f["bits"] < 8 for f in found.values())
    few = [text.run(method="Hope", lr=0.01, seed=1, **SHORT | {"steps": 3}, **SIZE) for _ in range(2)]
    assert few[0] == few[1] and few[0]["bits"] > found["Hope"]["bits"]


def test_counts_are_the_entropy_of_counts():
    one, two = (text.run(method=m, lr=0, seed=0, **SHORT | {"steps": 200}) for m in text.COUNTS)
    assert 4 < one["bits"] < 5.2 and two["bits"] < one["bits"] - 0.5
    windows = [torch.tensor([[256, 97, 98, 97, 98]])]
    table = text.counted(windows, 1)
    assert table[97].argmax() == 98 and table[98].argmax() == 97
    paid = text.surprise(table, windows[0], 1)
    assert paid.shape == (1, 4) and bool((paid[:, 1:] < 2).all())


def test_bits_are_per_byte_and_the_document_token_is_free():
    paid, reset = torch.full((2, 9), 3 * torch.log(torch.tensor(2.0)).item()), torch.zeros(2, 10, dtype=torch.bool)
    paid[0, 4], reset[0, 5] = 100.0, True  # the price of a document token
    g = text.graded(paid.double(), reset, 6)
    assert all(abs(v - 3) < 1e-6 for v in g.values()) and set(g) == {"bits", "bits 1", "bits 2", "bits 3", "bits 4"}


def test_a_run_that_diverges_counts_as_a_guess(monkeypatch):
    def stops(*args, **kw):
        raise TrainingStopped("the loss is nan")

    monkeypatch.setattr(text, "train", stops)
    r = text.run(method="gated delta", lr=1.0, seed=0, **SHORT, **SIZE)
    assert all(abs(r[k] - math.log2(257)) < 1e-12 for k in r if k.startswith("bits")) and r["parameters"] > 0


def test_a_method_that_is_none_is_refused():
    with refuses("method"):
        text.run(method="LSTM", lr=0.1, seed=0, steps=1)
