"""YAML at the door: the schema of study.yaml, its messages, its template."""

from cuvee.config.dials import (
    CombinedConfig,
    DialConfig,
    ExamplesConfig,
    ParaphraseConfig,
    SamplingConfig,
    TopicsConfig,
)
from cuvee.config.reading import config_schema, config_to_yaml, make_config, read_config
from cuvee.config.schema import (
    DataConfig,
    EmbeddedGenerator,
    EndpointGenerator,
    FileGenerator,
    PoolFile,
    StudyConfig,
)
from cuvee.config.template import render_template

__all__ = [
    "CombinedConfig",
    "DataConfig",
    "DialConfig",
    "EmbeddedGenerator",
    "EndpointGenerator",
    "ExamplesConfig",
    "FileGenerator",
    "ParaphraseConfig",
    "PoolFile",
    "SamplingConfig",
    "StudyConfig",
    "TopicsConfig",
    "config_schema",
    "config_to_yaml",
    "make_config",
    "read_config",
    "render_template",
]
