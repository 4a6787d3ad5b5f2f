"""One folder a chapter: its exercises with right and wrong answers, its figures, its experiments.

The order of the book is the order of this table; a folder is named by its topic, so it stays when the order changes.
"""

FOLDERS = {
    "00": "welcome",
    "01": "memory",
    "02": "writing",
    "03": "optimizers",
    "04": "attention",
    "05": "levels",
    "06": "starts",
    "07": "clocks",
    "08": "forgetting",
    "09": "selfmod",
    "10": "hope",
    "11": "speed",
    "12": "referee",
}
