"""The command line: parse, call, print, exit code. The only room that prints."""

from cuvee.cli import (
    comparing,
    evaluating,
    generating,
    ledgers,
    measuring,
    mixing,
    planning,
    predicting,
    prompts,
    selecting,
    splitting,
    stages,
    status,
    training,
)
from cuvee.cli.app import main

__all__ = [
    "comparing",
    "evaluating",
    "generating",
    "ledgers",
    "main",
    "measuring",
    "mixing",
    "planning",
    "predicting",
    "prompts",
    "selecting",
    "splitting",
    "stages",
    "status",
    "training",
]
