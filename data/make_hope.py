"""Make the two files of chapter 07, and bring data/checksums.txt up to date.

    python data/make_hope.py reader       hope_reader.safetensors: the small Hope that the chapter looks into
    python data/make_hope.py ablation     hope_ablation.json: every contestant on three seeds (some ten CPU minutes)

Both are what nlbook.book.chapters.hope.capstone.run returns; nothing else goes in. A stopped run goes on.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)


def listed(target: Path) -> None:
    """Write the file's checksum (lines as sha256sum writes them: sum, two blanks, name)."""
    sums = HERE / "checksums.txt"
    known = {name: digest for digest, name in (line.split() for line in sums.read_text().splitlines())}
    known[target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    sums.write_text("".join(f"{known[name]}  {name}\n" for name in sorted(known)))
    print(f"{target.name}: {target.stat().st_size} bytes")


def reader() -> None:
    from safetensors.torch import save_file

    from nlbook.book.chapters.hope import capstone

    run = capstone.run("Hope", seed=capstone.READER_SEED, steps=capstone.READER_STEPS)
    print({k: round(v, 4) for k, v in run.excess.items()})
    target = HERE / "hope_reader.safetensors"
    save_file({k: v.detach().contiguous() for k, v in run.model.state_dict().items()}, str(target))
    listed(target)


def ablation() -> None:
    from nlbook.book.chapters.hope import capstone

    names = [n for n in capstone.NAMES if n != capstone.HYBRID]
    part = HERE / "hope_ablation.part"
    target = HERE / "hope_ablation.json"
    rows: dict[str, dict[str, list[float]]] = {}
    if part.exists():
        rows = json.loads(part.read_text())
    elif target.exists():  # rows that are new since
        rows = {n: r for n, r in json.loads(target.read_text())["rows"].items() if n in names}
    for seed in SEEDS:
        for name in names:
            done = rows.setdefault(name, {k: [] for k in ("all", *capstone.KINDS)})
            if len(done["all"]) > SEEDS.index(seed):
                continue
            excess = capstone.run(name, seed).excess
            for k in done:
                done[k].append(round(excess[k], 4))
            part.write_text(json.dumps(rows))
            print(f"{name}, seed {seed}: {excess['all']:.4f}", flush=True)
    rows = {n: rows[n] for n in names}
    lines = ",\n".join(f"  {json.dumps(n)}: {json.dumps(row)}" for n, row in rows.items())
    target.write_text(f'{{"steps": {capstone.STEPS}, "seeds": {json.dumps(SEEDS)}, "rows": {{\n{lines}\n}}}}\n')
    part.unlink(missing_ok=True)
    listed(target)


if __name__ == "__main__":
    {"reader": reader, "ablation": ablation}[sys.argv[1] if len(sys.argv) > 1 else "reader"]()
