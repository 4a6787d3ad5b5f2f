"""Make reader.safetensors, the reader of real text, and the record of its race, and bring checksums.txt up to date.

    python -m nlbook.book.chapters.hope.reader_run FOLDER      trains everybody, two CPU hours; goes on where it stopped
    python data/make_reader.py FOLDER

The weights are those of reader_run.SHIPS, in half precision; with them go the settings and the pieces. The record is
everything that is judged in the folder, and for the reader itself once more, from the file as it ships.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from make_talker import listed
from safetensors.torch import save_file

from nlbook.book import reader
from nlbook.book.chapters.hope import reader_run as run


def rounded(x: Any) -> Any:
    """Numbers to four digits after the point."""
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    return [rounded(v) for v in x] if isinstance(x, list) else round(x, 4)


if __name__ == "__main__":
    folder, target = Path(sys.argv[1]), Path(__file__).parent / reader.FILE
    pieces = run.the_pieces(folder)
    model = run.trained(run.SHIPS, pieces, folder)
    weights = {name: w.detach().half().contiguous() for name, w in model.state_dict().items()}
    weights["pieces"] = torch.tensor(pieces.merges, dtype=torch.int16)
    save_file(weights, str(target), metadata={"config": model.config.to_json()})
    listed(target)
    record = {n: json.loads(f.read_text()) for n in run.NETS if (f := folder / f"{n}.json").is_file()}
    record[run.SHIPS]["sheets"] = run.judged(*reader.shipped())
    run.RECORD.write_text(json.dumps(rounded(record), indent=0) + "\n")
    page = run.RECORD.with_suffix(".md")
    head, _, foot = page.read_text().partition("| bits a byte")
    page.write_text(f"{head}{run.told(record)}\n\n{foot[foot.index('**What') :]}")
