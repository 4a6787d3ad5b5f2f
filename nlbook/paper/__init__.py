"""The index of the paper: its 121 equations with their errata, seven definitions, six tables, letters and words.

    from nlbook import paper
    paper.equation(57)      # shows itself: printed form, what holds, what it means, the code that carries it
    paper.errata()          # every slip, with the test that computes both forms
    paper.definition(1)     # in this book's words
    paper.table(6)          # the paper's own numbers
    paper.notation()        # letters in formulas, words in code

`nlbook paper --coverage` says which equations have code, a test and a chapter. The paper is Behrouz, Razaviyayn,
Zhong and Mirrokni, "Nested Learning", arXiv 2512.24695. Formulas are the paper's; every sentence here is this book's.
"""

from nlbook.paper.equations import equation, equations, errata
from nlbook.paper.words import definition, definitions, glossary, notation, table, tables

__all__ = [
    "definition",
    "definitions",
    "equation",
    "equations",
    "errata",
    "glossary",
    "notation",
    "table",
    "tables",
]
