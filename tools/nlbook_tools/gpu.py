"""Everything that a GPU is asked, in one command of at most eight minutes: `make gpu`.

    tests       every operator compiled, in three precisions and head sizes of 16 to 128, against the float64 token loop
    sanitizer   memory and race errors of the kernels that hand values on through memory, where compute-sanitizer exists
    bench       the operators against eager, compiled and, where it is installed, flash-linear-attention; measured roofs
    hope        a Hope of 30M parameters in bf16: one training step, and reading 20,000 tokens

Each part runs in a process of its own within its seconds; what ran out of time or failed says so. The report goes to
kernels/RESULTS-gpu.md with the date, the GPU and versions. `--dry` runs small sizes on the CPU, kernels interpreted.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from nlbook_tools.bench import kernels

ROOT = Path(__file__).resolve().parents[2]
SECONDS = {"tests": 180, "sanitizer": 70, "bench": 150, "hope": 60}  # together less than eight minutes


def tests(dry: bool) -> None:
    """The tests marked gpu; dry, one of the interpreter's."""
    what = ["tests/kernels/test_operators.py", "-k", "touch and titans"] if dry else ["tests/kernels/test_gpu.py"]
    many = ["-n", str(1 if dry else min(12, os.cpu_count() or 1))]  # most of the time goes into compiling kernels
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *many, *what], cwd=ROOT)
    sys.exit(done.returncode)


def sanitizer(dry: bool) -> None:
    """A small forward and backward of the kernels in which one phase reads what another wrote."""
    tool = shutil.which("compute-sanitizer")
    if not tool:
        print("compute-sanitizer is not installed: not run")
        return
    small = [sys.executable, "-m", "nlbook_tools.gpu", "--part", "phases"]
    for kind in ("memcheck", "racecheck"):
        done = subprocess.run([tool, "--tool", kind, "--error-exitcode", "3", *small], capture_output=True, text=True)
        print(f"{kind}: {(done.stdout.strip().splitlines() or ['no output'])[-1]}", flush=True)
        if done.returncode:
            sys.exit(done.returncode)


def phases(dry: bool) -> None:
    """Forward and backward once, small, of every operator whose kernels work through phases."""
    from nlkernels import SelfRefState, mlp_memory, newton_schulz, selfref_memory

    on = torch.device("cpu" if dry else "cuda")
    x, q, v = (torch.randn(1, 2, 70, 32, requires_grad=True, device=on) for _ in range(3))
    Mk, Mv, Mm = (torch.eye(32, device=on).expand(1, 2, 32, 32).clone().requires_grad_() for _ in range(3))
    m, rate = torch.zeros(1, 2, 32, device=on), torch.full((1, 2, 70), 0.5, device=on)
    y, _ = selfref_memory(x, q, SelfRefState(Mk, Mv, Mm, m, m), chunk=32, impl="triton")
    z, _, _ = mlp_memory(0.1 * q, 0.1 * x, v, rate, 0.1 * rate, Mk, Mv, chunk=32, impl="triton")
    (y.sum() + z.sum() + newton_schulz(v, impl="triton").sum()).backward()
    if not dry:
        torch.cuda.synchronize()


def bench(dry: bool) -> None:
    """Tables of `nlbook bench kernels`."""
    on = kernels.machine()
    if dry:
        reports = kernels.memory_reports(on, 1, (1, 1, 32, 16), compiled=False, fused=True)
    else:
        reports = [*kernels.memory_reports(on, 5, (8, 16, 4096, 64), compiled=True, fused=True)]
        reports.append(kernels.newton_schulz_report(False, on))
    print("\n\n".join(r.table() for r in reports))


def hope(dry: bool) -> None:
    """Seconds of a training step and of reading in bf16."""
    from nlbook.hope import Hope, HopeConfig

    device, dtype = ("cpu", torch.float32) if dry else ("cuda", torch.bfloat16)
    dim, layers, heads, length, long = (16, 1, 2, 32, 64) if dry else (640, 7, 8, 1024, 20_000)
    model = Hope(HopeConfig(vocabulary=256, dim=dim, layers=layers, heads=heads)).to(device, dtype)
    tokens = torch.randint(256, (1 if dry else 8, length), generator=torch.Generator().manual_seed(0)).to(device)

    def seconds(run: Callable[[], object]) -> float:
        start = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def read() -> None:
        state = model.initial_state(1)
        with torch.no_grad():
            for first in range(0, long, length):
                _, state = model(tokens[:1, : min(length, long - first)], state)

    step = [seconds(lambda: model.loss(tokens).backward()) for _ in range(3)]
    print(f"Hope of {model.parameter_count() / 1e6:.1f}M parameters, {str(dtype)[6:]} on {device}")
    print(f"one training step of {tokens.numel()} tokens: first {step[0]:.2f} s, then {min(step[1:]):.2f} s")
    print(f"reading {long} tokens: {seconds(read):.2f} s")


PARTS = {"tests": tests, "sanitizer": sanitizer, "bench": bench, "hope": hope, "phases": phases}


def part(name: str, dry: bool) -> str:
    """What a part printed, in a process of its own; the last lines of it where that is more than 150."""
    command = [sys.executable, "-m", "nlbook_tools.gpu", "--part", name, *(["--dry"] if dry else [])]
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS[name])
        said, end = done.stdout + (done.stderr if done.returncode else ""), f"ended with {done.returncode}"
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode() if isinstance(late.stdout, bytes) else late.stdout or ""
        end = f"stopped after {SECONDS[name]} s"
    lines = said.strip().splitlines()[-150:]
    return "\n".join([f"### {name}: {end}, {time.perf_counter() - start:.0f} s", "", "```", *lines, "```", ""])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m nlbook_tools.gpu", description="Test and measure on a GPU.")
    parser.add_argument("--dry", action="store_true", help="small sizes on the CPU, kernels interpreted")
    parser.add_argument("--part", choices=sorted(PARTS), help="this part alone, in this process, without a report")
    parser.add_argument("--out", type=Path, default=ROOT / "kernels" / "RESULTS-gpu.md", help="the report")
    options = parser.parse_args()
    if options.part:
        PARTS[options.part](options.dry)
        return
    if not options.dry and not torch.cuda.is_available():
        parser.exit(2, "There is no GPU here: `make gpu` needs one; --dry runs small sizes on the CPU.\n")
    today = f"{datetime.date.today():%d %B %Y}"
    report = "\n".join([f"## {today}: {kernels.versions()}", "", *(part(name, options.dry) for name in SECONDS)])
    if options.dry:
        print(report)
    else:
        with options.out.open("a", encoding="utf-8") as file:
            file.write(report + "\n")
        print(report, f"appended to {options.out}", sep="\n")


if __name__ == "__main__":
    main()
