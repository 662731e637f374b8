"""The room of studies: what is run in which order; ``opening.py`` tells it on one page."""
