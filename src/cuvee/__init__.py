"""Cuvée: how diverse should LLM-generated data be, and how much of it to mix with real data."""

from cuvee._version import __version__

__all__ = ["__version__"]
