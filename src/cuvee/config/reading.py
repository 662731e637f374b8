"""Reading and writing study.yaml."""

from __future__ import annotations

import json
import math
from pathlib import Path

import yaml
from pydantic import ValidationError

from cuvee.config.generators import FileGenerator, absolute_paths
from cuvee.config.messages import explain_error
from cuvee.config.schema import StudyConfig
from cuvee.errors import ConfigError
from cuvee.inputs import parse_yaml, read_text


def read_config(path: str | Path) -> StudyConfig:
    """Read study.yaml; its relative paths become absolute.

    Raises:
        ConfigError: with file, line, key, and the nearest valid key or what is expected.
    """
    path = Path(path)
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; `cuvee init DATA` writes a study.yaml")
    node, raw = parse_yaml(read_text(path, ConfigError), str(path))
    if not isinstance(raw, dict):
        raise ConfigError(f"{path}: a study is a mapping of keys; `cuvee init DATA` writes one")
    try:
        config = StudyConfig.model_validate(raw)
    except ValidationError as exc:
        raise ConfigError(explain_error(exc, str(path), node)) from exc
    return _absolute(config, path.resolve().parent)


def make_config(values: StudyConfig | dict[str, object]) -> StudyConfig:
    """A config from Python values; relative paths are relative to the working folder.

    Raises:
        ConfigError: as :func:`read_config`.
    """
    if isinstance(values, StudyConfig):
        return values
    try:
        return _absolute(StudyConfig.model_validate(values), Path.cwd())
    except ValidationError as exc:
        raise ConfigError(explain_error(exc, "config", None)) from exc


def config_to_yaml(config: StudyConfig) -> str:
    """The resolved config: every key, defaults included."""
    return yaml.dump(config.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def scalar_to_yaml(value: str) -> str:
    """A text on one line of nothing but printable characters, as it may stand in a comment too."""
    return yaml.dump(value, Dumper=_Dumper, allow_unicode=value.isprintable(), width=math.inf).split("\n")[0]


class _Dumper(yaml.SafeDumper):
    """Escapes what is not printable: in YAML's other styles several line breaks read back as spaces."""


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar(
        "tag:yaml.org,2002:str", text, style=None if text.isprintable() else '"'
    ),
)


def config_schema() -> str:
    """JSON schema of study.yaml, for editors."""
    return json.dumps(StudyConfig.model_json_schema(), indent=2)


def _absolute(config: StudyConfig, folder: Path) -> StudyConfig:
    def fix(path: str | None) -> str | None:
        return None if path is None else str((folder / path).resolve())

    data = config.data.model_copy(update={k: fix(getattr(config.data, k)) for k in ("real", "test", "validation")})
    pools = tuple(p.model_copy(update={"path": fix(p.path)}) for p in config.pools)
    writing = config.writing.model_copy(update={k: fix(getattr(config.writing, k)) for k in ("prompts", "sources")})
    evaluate = config.evaluate.model_copy(update={"passages": fix(config.evaluate.passages)})
    generator = config.generator
    if not isinstance(generator, FileGenerator):
        generator = absolute_paths(generator, folder)
    track = config.track and config.track.in_folder(folder)
    made = {"data": data, "pools": pools, "generator": generator, "writing": writing, "track": track}
    return config.model_copy(update={**made, "evaluate": evaluate})
