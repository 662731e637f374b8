"""A measurement as JSON text and back: a saved number keeps its provenance and can be compared later."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import TYPE_CHECKING

from cuvee.errors import InputError
from cuvee.inputs import parse_json, show_value
from cuvee.records import Estimate, Measurement

if TYPE_CHECKING:
    from pydantic import ValidationError

_PROVENANCE = tuple(f.name for f in fields(Measurement) if f.name != "values")


def measurement_to_json(measurement: Measurement) -> str:
    """One JSON object on one line: the provenance, then every number under its metric's name.

    Numbers that are not finite become the strings ``"inf"``, ``"-inf"`` and ``"nan"``, which JSON has no words for;
    ``read_measurement`` reads them back as numbers everywhere but in ``settings``, where they stay strings.

    Raises:
        ValueError: a metric has the name of a provenance key.
    """
    clash = [name for name in measurement.values if name in _PROVENANCE]
    if clash:
        raise ValueError(f"a metric is called {clash[0]!r}, which is a key of the measurement itself; rename it")
    content = {key: getattr(measurement, key) for key in _PROVENANCE}
    numbers = {name: _estimate_to_json(estimate) for name, estimate in measurement.values.items()}
    return json.dumps(_finite({**content, **numbers}), ensure_ascii=False, allow_nan=False)


def read_measurement(text: str, *, name: str) -> Measurement:
    """The measurement that ``measurement_to_json`` or ``cuvee measure --json`` wrote.

    Args:
        text: the JSON text.
        name: of the file it came from, for messages; the measurement keeps its own name.

    Raises:
        InputError: the text is not JSON, not one measurement, or a key is missing or has a value of the wrong kind.
    """
    from pydantic import TypeAdapter, ValidationError

    content = parse_json(text, name)
    if not isinstance(content, dict):
        raise InputError(f"{name}: holds a JSON {type(content).__name__}, not the object of one measurement")
    missing = [key for key in _PROVENANCE if key not in content]
    if missing:
        raise InputError(f"{name}: key {missing[0]!r} is missing; give the output of cuvee measure FILE --json")
    values = {key: value for key, value in content.items() if key not in _PROVENANCE}
    whole = {**{key: content[key] for key in _PROVENANCE}, "values": values}
    try:
        return TypeAdapter(Measurement).validate_python(whole)
    except ValidationError as exc:
        raise InputError(f"{name}: {_first_fault(exc)}") from exc


def _estimate_to_json(estimate: Estimate) -> dict[str, object]:
    entries = {f.name: getattr(estimate, f.name) for f in fields(Estimate)}
    return {**entries, "settings": dict(estimate.settings)}


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    place = ".".join(str(part) for part in fault["loc"] if part != "values")
    return f"key {place!r} has the value {show_value(fault['input'])}: {fault['msg']}"
