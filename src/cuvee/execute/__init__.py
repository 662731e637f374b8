"""When and where work runs: executors, and the clock of a run's stages."""

from cuvee.execute.local import LocalExecutor
from cuvee.execute.protocol import Executor
from cuvee.execute.stages import Listener, Silent, Stages

__all__ = ["Executor", "Listener", "LocalExecutor", "Silent", "Stages"]
