"""Pictures of the book: pure functions `draw(state) -> Figure`, made live by one thin widget.

    from nlbook.book import viz
    viz.load("interference:n=32,rho=0.5")   a live picture: sliders, landmarks, task, state string
    viz.show(fig, alt="…")                  a plain figure with alt text
    viz.shop()                              the Clock Shop, computed in the page, with a kernel or without
    viz.score(), viz.score(trace)           who wrote when, in motion; a model of your own, live while it trains
    viz.gallery()                           what there is
    viz.figure(), viz.COLORS                to draw your own; in a chapter one colour is one meaning
    @viz.view(…), viz.Int, Float, Choice, Bool, Ints      to make a picture of your own: see README.md here

Matplotlib, ipywidgets and anywidget are imported with this room, and the module of a picture when its key is asked for.
"""

from nlbook.book.viz.live import Live, score, shop
from nlbook.book.viz.picture import Gallery, Picture, gallery, load, show
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
    "View",
    "all_views",
    "book_style",
    "end_label",
    "figure",
    "find",
    "gallery",
    "load",
    "png",
    "score",
    "shop",
    "show",
    "view",
]
