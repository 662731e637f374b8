"""The command line: parse, call, print, exit code. The only room that prints."""

from cuvee.cli.app import main

__all__ = ["main"]
