"""One folder a chapter: its exercises with right and wrong answers, its figures, its experiments.

The order of the book is the order of this table; a folder is named by its topic, so it stays when the order changes.
"""

from pathlib import Path

FOLDERS = {
    "00": "welcome",
    "01": "memory",
    "02": "writing",
    "03": "attention",
    "04": "levels",
    "05": "clocks",
    "06": "selfmod",
    "07": "hope",
    "08": "referee",
    "A": "optimizers",
    "B": "speed",
    "C": "errata",
    "D": "counting",
}


def files(folder: Path, suffix: str = ".ipynb") -> list[Path]:
    """The chapters' files in `folder`, in the order of the book: 01_a_memory_you_can_hold, A_optimizers."""
    return [p for number in FOLDERS for p in sorted(folder.glob(f"{number}_*{suffix}"))]
