"""Pictures of the book: pure functions `draw(state) -> Figure`, made live by one thin widget.

    from nlbook.book import viz
    viz.load("interference:n=32,rho=0.5")   a live picture: sliders, landmarks, task, state string
    viz.still("score:T=50", "score:T=200")  a static strip of states
    viz.show(fig, alt="…")                  a plain figure with alt text
    viz.shop()                              the Clock Shop, computed in the page, with a kernel or without
    from nlbook.book.viz import score; score.play(trace)      a run of your own: who wrote when, in motion
    viz.gallery()                           what there is
    viz.figure(), viz.COLORS                to draw your own; one colour is one quantity all book long
    @viz.view(…), viz.Int, Float, Choice, Bool, Ints      to make a picture of your own: see README.md here

Matplotlib, ipywidgets and anywidget are imported with this room, and the module of a picture when its key is asked for.
"""

from nlbook.book.viz.live import Live, shop
from nlbook.book.viz.picture import Gallery, Picture, Still, gallery, load, show, still
from nlbook.book.viz.spec import View, all_views, find, view
from nlbook.book.viz.state import Bool, Choice, Float, Int, Ints, State
from nlbook.book.viz.style import COLORS, book_style, end_label, figure, png

__all__ = [
    "COLORS",
    "Bool",
    "Choice",
    "Float",
    "Gallery",
    "Int",
    "Ints",
    "Live",
    "Picture",
    "State",
    "Still",
    "View",
    "all_views",
    "book_style",
    "end_label",
    "figure",
    "find",
    "gallery",
    "load",
    "png",
    "shop",
    "show",
    "still",
    "view",
]
