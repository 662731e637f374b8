"""The sections of study.yaml for where trials run, and where they are tracked."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from cuvee.config.sections import Section
from cuvee.execute import Terms
from cuvee.generate.masking import name_secrets
from cuvee.registry import require_trust

_ONLY_RAY = ("address",)
_NOT_LOCAL = ("workers", "timeout_s", "memory_gb", "retries", "gpus")


class ExecuteConfig(Section):
    """Where trials run. Results are the same everywhere."""

    kind: Literal["local", "processes", "ray"] = Field(
        "local", description="in this process; in processes of this machine; on a Ray cluster"
    )
    workers: int | Literal["auto"] = Field("auto", description="trials at once; auto: as many as fit")
    address: str | None = Field(None, description="of a running Ray cluster; null starts one on this machine")
    timeout_s: float | None = Field(None, gt=0, description="seconds a trial may take; then it has failed")
    memory_gb: float | None = Field(
        None, gt=0, description="of a trial: ended beyond it (processes), set aside for it (ray)"
    )
    retries: int = Field(2, ge=0, description="of a trial whose worker or node died")
    cpus: int | None = Field(
        None, ge=1, description="cores and threads of a trial; null: all of them (local), 1 (processes, ray)"
    )
    gpus: float = Field(0, ge=0, description="GPUs of a trial; below 1 several share one")

    @model_validator(mode="after")
    def _check(self) -> ExecuteConfig:
        if self.workers != "auto" and self.workers < 1:
            raise ValueError(f"workers is {self.workers}; give 1 or more, or auto")
        default = type(self).model_fields
        idle = [*(_NOT_LOCAL if self.kind == "local" else ()), *(_ONLY_RAY if self.kind != "ray" else ())]
        for name in idle:
            if getattr(self, name) != default[name].default:
                kinds = "ray" if name in _ONLY_RAY else "processes or ray"
                raise ValueError(f"{name} has no effect with kind {self.kind}; leave it out, or set kind: {kinds}")
        self.terms()  # which refuse what no executor can give
        return self

    def cluster(self) -> str | None:
        """The address of the Ray cluster, whose answers are unpickled, so that it can run what it likes here.

        Raises:
            ConfigError: the user does not trust ``ray``.
        """
        if self.address is not None:
            require_trust("ray", f"execute.address {self.address!r}: what a cluster answers")
        return self.address

    def terms(self) -> Terms:
        """As executors take them."""
        return Terms(
            workers=None if self.workers == "auto" else self.workers,
            timeout_s=self.timeout_s,
            memory_gb=self.memory_gb,
            retries=self.retries,
            cpus=self.cpus,
            gpus=self.gpus,
        )


class TrackConfig(Section):
    """Where a finished study is tracked. Nothing leaves this machine unless the URI says so."""

    mlflow: str = Field(
        min_length=1, description="a folder, or a tracking URI of MLflow; ${NAME} is an environment variable"
    )

    @field_validator("mlflow")
    @classmethod
    def _check_uri(cls, uri: str) -> str:
        safe = name_secrets(uri) if "://" in uri else uri
        if safe != uri:
            raise ValueError(f"the URI holds a password or a key; export it as a variable and write '{safe}'")
        return uri

    def in_folder(self, folder: Path) -> TrackConfig:
        """With the absolute path of a folder that is relative to this one; a URI stays as it is."""
        if self.mlflow == "databricks" or re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", self.mlflow):
            return self
        return TrackConfig(mlflow=str((folder / self.mlflow).resolve()))
