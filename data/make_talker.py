"""Make talker.safetensors, the small Hope that one can talk to, and bring checksums.txt up to date.

    python data/make_talker.py          two to ten CPU minutes; a run that was stopped goes on

The weights are those of nlbook.book.chapters.hope.talker.trained, in half precision; nothing else goes in.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file

from nlbook.book.chapters.hope import talker

HERE = Path(__file__).parent


def listed(target: Path) -> None:
    """Write the file's checksum (lines as sha256sum writes them: sum, two blanks, name)."""
    sums = HERE / "checksums.txt"
    known = {name: digest for digest, name in (line.split() for line in sums.read_text().splitlines())}
    known[target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    sums.write_text("".join(f"{known[name]}  {name}\n" for name in sorted(known)))
    print(f"{target.name}: {target.stat().st_size} bytes")


if __name__ == "__main__":
    model = talker.trained(folder=HERE.parent / ".nlbook" / "talker")
    target = HERE / talker.FILE
    save_file({n: w.detach().half().contiguous() for n, w in model.state_dict().items()}, str(target))
    listed(target)
    print(json.dumps(talker.judged(talker.talker()), indent=1))
