"""The command line: parse, call, print, exit code. The only room that prints."""

from cuvee.cli import measuring, stages
from cuvee.cli.app import main

__all__ = ["main", "measuring", "stages"]
