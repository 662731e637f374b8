"""When and where work runs: executors, and the clock of a run's stages."""

from cuvee.execute.executors import ExecutorKind, ExecutorPool, LocalExecutor, open_executor
from cuvee.execute.processes import ProcessExecutor
from cuvee.execute.stages import Listener, Progress, Silent, Stages
from cuvee.execute.workers import Executor, Lost, Terms

__all__ = [
    "Executor",
    "ExecutorKind",
    "ExecutorPool",
    "Listener",
    "LocalExecutor",
    "Lost",
    "ProcessExecutor",
    "Progress",
    "Silent",
    "Stages",
    "Terms",
    "open_executor",
]
