"""`nlbook train`: the README's example alone and on four processes, texts, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from kit import close
from nlbook_tools.commands.train import command
from safetensors.torch import load_file

from nlbook.hope import Hope
from nlbook.train import CHECKPOINT

EXAMPLE = (Path(__file__).resolve().parents[2] / "README.md").read_text().partition("```toml\n")[2].partition("```")[0]
SMALL = EXAMPLE.replace("steps = 40", 'steps = 3, dtype = "float64"')


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Write a configuration into an empty working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TQDM_DISABLE", "1")
    return lambda text: (tmp_path / "hope.toml").write_text(text) and str(tmp_path / "hope.toml")


def test_four_processes_end_where_one_ends(written):
    config = written(SMALL)
    done = CliRunner().invoke(command, [config], catch_exceptions=False)
    assert done.exit_code == 0 and "3 steps" in done.output
    one = load_file(f"runs/hope/{CHECKPOINT}")
    Path("runs/hope").rename("runs/one")
    four = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "4", "--standalone", "--no-python"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*four, sys.executable, "-m", "nlbook_tools.cli", "train", config], env=env, capture_output=True
    )
    assert ran.returncode == 0, ran.stderr.decode()[-3000:]
    assert ran.stdout.decode().count("3 steps") == 1  # one process speaks
    many = load_file(f"runs/hope/{CHECKPOINT}")
    assert set(many) == set(one)
    for name, x in one.items():
        close(many[name].double(), x.double(), 1e-12)
    a, b = (Hope.load(f"runs/{n}") for n in ("one", "hope"))
    assert a.config == b.config and a.config.hidden == 32


def test_texts_are_read_as_bytes_and_a_run_goes_on(written):
    Path("a.txt").write_text("one two three " * 9)
    Path("b.txt").write_text("é" * 40)
    text = SMALL.replace('language = "scales"', 'text = ["a.txt", "b.txt"], length = 24').replace("m3", "adamw")
    for steps in (2, 3):
        done = CliRunner().invoke(
            command, [written(text.replace("steps = 3", f"steps = {steps}"))], catch_exceptions=False
        )
        assert done.exit_code == 0 and f"{steps} steps" in done.output
    assert json.loads(Path("runs/hope/config.json").read_text())["vocabulary"] == 257


@pytest.mark.parametrize(
    ("was", "now", "word"),
    [
        ("[23]", "[0]", "periods"), ("hidden", "width", "width"), ("scales", "klingon", "data.language: got 'klingon'"),
        ('"m3"', '"sgd"', "train.optimizer"), ("float64", "int8", "train.dtype"), ("steps = 3, ", "", "train: got"),
        ("train =", "training =", "tables: got"), ("lr =", "clap = 1, lr =", "clap"), ("=", "", "hope.toml"),
        ("batch = 8", "batch = 8, pears = 2", "pears"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_named(written, was, now, word):
    assert was in SMALL
    done = CliRunner().invoke(command, [written(SMALL.replace(was, now))])
    assert done.exit_code == 1 and word in done.output and not Path("runs").exists()
