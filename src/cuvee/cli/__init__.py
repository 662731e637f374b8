"""The command line: parse, call, print, exit code. The only room that prints."""

from cuvee.cli import comparing, ledgers, measuring, stages
from cuvee.cli.app import main

__all__ = ["comparing", "ledgers", "main", "measuring", "stages"]
