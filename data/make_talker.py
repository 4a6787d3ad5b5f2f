"""Make talker.safetensors, the small Hope that one can talk to, and bring checksums.txt up to date.

    python data/make_talker.py          some ten CPU minutes; a run that was stopped goes on

The weights are those of nlbook.book.chapters.hope.talker.trained, in half precision; nothing else goes in.
"""

from __future__ import annotations

import json
from pathlib import Path

from make_hope import listed
from safetensors.torch import save_file

from nlbook.book.chapters.hope import talker

HERE = Path(__file__).parent

if __name__ == "__main__":
    model = talker.trained(folder=HERE.parent / ".nlbook" / "talker")
    target = HERE / talker.FILE
    save_file({n: w.detach().half().contiguous() for n, w in model.state_dict().items()}, str(target))
    listed(target)
    print(json.dumps(talker.judged(talker.talker()), indent=1))
