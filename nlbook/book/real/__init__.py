"""A language model that others trained, with levels, taught by typing: SmolLM2-135M from PyPI. Opt-in: `make real`."""
