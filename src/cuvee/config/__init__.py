"""YAML at the door: the schema of study.yaml, its messages, its template."""

from cuvee.config.dials import (
    AttributesConfig,
    CombinedConfig,
    DialConfig,
    ExamplesConfig,
    ParaphraseConfig,
    SamplingConfig,
    TargetConfig,
    TopicsConfig,
    parse_target,
)
from cuvee.config.generators import (
    EmbeddedGenerator,
    EndpointGenerator,
    FileGenerator,
    TransformersGenerator,
)
from cuvee.config.pools import FilterConfig, PoolFile, SelectConfig
from cuvee.config.reading import config_schema, config_to_yaml, make_config, read_config
from cuvee.config.schema import DataConfig, StudyConfig
from cuvee.config.template import render_template

__all__ = [
    "AttributesConfig",
    "CombinedConfig",
    "DataConfig",
    "DialConfig",
    "EmbeddedGenerator",
    "EndpointGenerator",
    "ExamplesConfig",
    "FileGenerator",
    "FilterConfig",
    "ParaphraseConfig",
    "PoolFile",
    "SamplingConfig",
    "SelectConfig",
    "StudyConfig",
    "TargetConfig",
    "TopicsConfig",
    "TransformersGenerator",
    "config_schema",
    "config_to_yaml",
    "make_config",
    "parse_target",
    "read_config",
    "render_template",
]
