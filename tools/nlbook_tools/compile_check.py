"""Compile the kernels for GPUs that are not here, and read what the compiler made of them.

    python -m nlbook_tools.compile_check [--cc 80 90] [--dtype bf16 fp32] [--d 64] [operator ...]

The Linux wheel of triton carries ptxas, cuobjdump and nvdisasm: no GPU, driver or CUDA toolkit is needed. Of each
kernel it reads registers, bytes of registers spilled to memory, shared memory against what the chip has, and the
tensor-core instructions in the machine code (HGMMA: Hopper's wgmma, HMMA: mma.sync; only FFMA means that a product
runs on plain cores). It also counts Hopper's warp-group products whose left operand is a transposed register tile:
Triton 3.4 to 3.7.0 compiled that wrongly (fla-org/flash-linear-attention #640, #826, #984). A right operand goes
through shared memory.

Compiled kernels go to a temporary folder, unless TRITON_CACHE_DIR names one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from nlbook_tools.compile_cases import TORCH, Case, cases

OPERATORS = ("linear_memory", "newton_schulz", "selfref_memory", "titans_memory", "mlp_memory")
SHARED_LIMIT = {75: 64, 80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}  # KiB that a block may opt in to
SPILLS = r"(\d+) bytes spill stores, (\d+) bytes spill loads"
TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Compiled:
    """What the compiler reports. Sizes in bytes; spills per thread."""

    name: str
    cc: int
    num_warps: int
    registers: int
    spill_stores: int
    spill_loads: int
    shared: int
    seconds: float
    instructions: dict[str, int] = field(repr=False)
    risky_transposes: int = 0
    barriers: int = 0  # of the program's threads, for all memory, that the source asked for

    @property
    def fits(self) -> bool:
        """Whether a launch finds enough shared memory on this chip."""
        return self.shared <= SHARED_LIMIT.get(self.cc, 99) * 1024

    @property
    def tensor_core(self) -> int:
        """Tensor-core instructions in the machine code."""
        return sum(self.instructions.get(op, 0) for op in ("HGMMA", "HMMA", "UTCHMMA", "UTCQMMA"))

    def line(self) -> str:
        warn = [
            "" if self.fits else "SHARED MEMORY OVER THE LIMIT",
            "" if self.tensor_core else "NO TENSOR CORES",
            f"SPILLS {self.spill_stores}/{self.spill_loads} B" if self.spill_stores else "",
            f"{self.risky_transposes} RISKY TRANSPOSE" if self.risky_transposes else "",
        ]
        return (
            f"sm_{self.cc:<3} {self.name:58} w{self.num_warps} regs {self.registers:3} "
            f"shared {self.shared / 1024:5.1f} KiB {self.seconds:5.1f} s  {' '.join(w for w in warn if w)}"
        )


def _run(tool: str, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(TOOLS / tool), *args], capture_output=True, text=True, check=False)


def compile_case(case: Case, cc: int) -> Compiled:
    """Compile for sm_<cc> and inspect the result. Takes 1 to 30 s; a second time in one process, almost nothing."""
    names = case.kernel.arg_names
    if missing := [n for n in names if n not in case.signature and n not in case.constexprs]:
        raise ValueError(f"compile_case: {case.name} has no type or value for {missing}")
    signature = {n: "constexpr" if n in case.constexprs else case.signature[n] for n in names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, n in enumerate(names) if signature[n].startswith("*")}
    start = time.perf_counter()
    source = ASTSource(fn=as_jit(case.kernel), signature=signature, constexprs=dict(case.constexprs), attrs=aligned)
    said = io.StringIO()
    with knobs.nvidia.scope(), contextlib.redirect_stdout(said):
        knobs.nvidia.dump_ptxas_log = True
        built = triton.compile(
            source,
            target=GPUTarget("cuda", cc, 32),
            options={"num_warps": case.num_warps, "num_stages": case.num_stages},
        )
    seconds = time.perf_counter() - start
    ttgir, ptx = built.asm["ttgir"], built.asm["ptx"]
    risky = transposed_left_operands(ttgir)
    with tempfile.TemporaryDirectory() as folder:
        cubin, text = Path(folder, "k.cubin"), Path(folder, "k.ptx")
        cubin.write_bytes(built.asm["cubin"])
        text.write_text(ptx)
        usage = re.search(r"REG:(\d+)", _run("cuobjdump", "-res-usage", str(cubin)).stdout)
        arch = re.search(r"\.target\s+(sm_\w+)", ptx)
        assert usage and arch
        spills = re.search(SPILLS, said.getvalue())
        for ptxas in ("ptxas-blackwell", "ptxas"):  # from the cache: ask the one that understands this PTX
            if not spills and (TOOLS / ptxas).exists():
                spills = re.search(
                    SPILLS, _run(ptxas, "-v", f"--gpu-name={arch[1]}", str(text), "-o", str(Path(folder, "o"))).stderr
                )
        assert spills, said.getvalue()
        sass = _run("nvdisasm", str(cubin)).stdout
    counts = {
        op: len(re.findall(rf"\b{op}\b", sass)) for op in ("HGMMA", "HMMA", "UTCHMMA", "UTCQMMA", "FFMA", "LDL", "STL")
    }
    return Compiled(
        case.name,
        cc,
        case.num_warps,
        int(usage[1]),
        int(spills[1]),
        int(spills[2]),
        built.metadata.shared,
        seconds,
        {op: n for op, n in counts.items() if n},
        risky,
        len(re.findall(r"\bttg\.barrier all\b|\bgpu\.barrier\b", ttgir)),
    )


def transposed_left_operands(ttgir: str) -> int:
    """Warp-group products in Triton's GPU IR whose left operand comes, by whatever elementwise way, from a
    `tt.trans`."""
    made = {m[1]: m[2] for m in re.finditer(r"^\s*(%[\w#:]+)(?::\d+)? = (.*)$", ttgir, re.M)}
    stops = (
        "ttng.warp_group_dot",
        "tt.dot",
        "tt.load",
        "scf.",
        "ttng.wait",
        "ttng.warp_group_dot_wait",
        "arith.constant",
    )

    def from_transpose(name: str, seen: set[str]) -> bool:
        line = made.get(name, "")
        if name in seen or line.startswith(stops):
            return False
        seen.add(name)
        operands = re.findall(r"%[\w#]+", line.split(" loc(")[0])
        return "tt.trans" in line or any(from_transpose(o, seen) for o in operands)

    return sum(from_transpose(m[1], set()) for m in re.finditer(r"ttng\.warp_group_dot (%[\w#]+),", ttgir))


def as_jit(kernel: Any) -> JITFunction:
    """The compiled-mode function, or a clear error when TRITON_INTERPRET=1 was set before triton was imported."""
    if not isinstance(kernel, JITFunction):
        raise RuntimeError(
            "TRITON_INTERPRET=1 is set: kernels can be interpreted but not compiled in this process. "
            "Unset it; nlkernels interprets on CPU tensors without it"
        )
    return kernel


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m nlbook_tools.compile_check", description="Compile the kernels without a GPU."
    )
    parser.add_argument("operator", nargs="*", help=f"of {', '.join(OPERATORS)}; all by default")
    parser.add_argument("--cc", nargs="+", type=int, default=[80, 90], help="compute capabilities, e.g. 80 90")
    parser.add_argument("--dtype", nargs="+", default=["bf16", "fp32"], choices=sorted(TORCH))
    parser.add_argument("--d", nargs="+", type=int, default=[64], help="head sizes, e.g. 16 64 128")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TRITON_CACHE_DIR", folder)
        for operator in options.operator or OPERATORS:
            for cc, dtype, d in itertools.product(options.cc, options.dtype, options.d):
                for case in cases(operator, cc, dtype, d):
                    print(compile_case(case, cc).line(), flush=True)


if __name__ == "__main__":
    main()
