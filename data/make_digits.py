"""Make data/digits.npz from scikit-learn's copy of the UCI handwritten digits, and bring data/checksums.txt up to date.

Needed only to make the file again: `python -m pip install scikit-learn && python data/make_digits.py`. The archive is
stored uncompressed, so that its bytes (and the checksum) do not depend on the version of zlib.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent


def main() -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = digits.data.astype(np.uint8), digits.target.astype(np.uint8)
    if images.shape != (1797, 64) or not np.array_equal(images, digits.data) or images.max() != 16:
        raise SystemExit("expected 1797 images of 8 x 8 whole numbers from 0 to 16, as the card says")
    target = HERE / "digits.npz"
    np.savez(target, images=images, labels=labels)
    listed = HERE / "checksums.txt"  # lines as sha256sum writes them: sum, two blanks, name
    lines = listed.read_text().splitlines() if listed.exists() else []
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    sums[target.name] = hashlib.sha256(target.read_bytes()).hexdigest()
    listed.write_text("".join(f"{sums[name]}  {name}\n" for name in sorted(sums)))
    print(f"{target.name}: {target.stat().st_size} bytes, sha256 {sums[target.name]}")


if __name__ == "__main__":
    main()
