"""One click command a file, each exposing `command`."""
