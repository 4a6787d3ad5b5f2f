"""The exercises, one module a chapter (`ch01.py`, ...), imported when an id of that chapter is first asked for."""
