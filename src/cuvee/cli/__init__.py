"""The command line: parse, call, print, exit code. The only room that prints."""

from cuvee.cli import comparing, generating, ledgers, measuring, mixing, prompts, selecting, splitting, stages
from cuvee.cli.app import main

__all__ = [
    "comparing",
    "generating",
    "ledgers",
    "main",
    "measuring",
    "mixing",
    "prompts",
    "selecting",
    "splitting",
    "stages",
]
