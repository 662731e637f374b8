"""When and where work runs: executors, and the clock of a run's stages."""

from cuvee.execute.crews import ExecutorCrew
from cuvee.execute.local import LocalExecutor
from cuvee.execute.opening import ExecutorKind, open_executor
from cuvee.execute.processes import ProcessExecutor
from cuvee.execute.protocol import Executor, Lost, Terms
from cuvee.execute.stages import Listener, Silent, Stages

__all__ = [
    "Executor",
    "ExecutorCrew",
    "ExecutorKind",
    "Listener",
    "LocalExecutor",
    "Lost",
    "ProcessExecutor",
    "Silent",
    "Stages",
    "Terms",
    "open_executor",
]
