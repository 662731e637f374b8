"""YAML at the door: the schema of study.yaml, its messages, its template."""

from cuvee.config.reading import config_schema, config_to_yaml, make_config, read_config
from cuvee.config.schema import (
    DataConfig,
    DialConfig,
    EmbeddedGenerator,
    EndpointGenerator,
    FileGenerator,
    ParaphraseConfig,
    PoolFile,
    SamplingConfig,
    StudyConfig,
    TopicsConfig,
)
from cuvee.config.template import render_template

__all__ = [
    "DataConfig",
    "DialConfig",
    "EmbeddedGenerator",
    "EndpointGenerator",
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
