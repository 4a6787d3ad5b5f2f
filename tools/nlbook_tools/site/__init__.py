"""The book without a kernel: a static web site and decks of slides, made from the committed, executed notebooks.

maths.py     LaTeX -> MathML, at build time: no script, no web font service, readable by a screen reader
text.py      Markdown -> HTML: headings with anchors, links from notebooks to pages
cells.py     one notebook -> one page
twins.py     the pictures that move without a kernel: frames drawn in advance, or the widgets' own JavaScript over plain data
reference.py equations, definitions, notation, glossary, ledger, teaching, sources
page.py      the frame around every page
build.py     the whole site
check.py     links and alternative texts; the rest is axe-core's, in the browser tests
deck.py      slides from the same cells
assets/      style, scripts and fonts; vendor/ reveal.js for the slides; nothing is fetched from anywhere

Every address is relative: the site works from a folder, from a zip, under any path.
"""
