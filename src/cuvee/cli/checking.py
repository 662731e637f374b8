"""``cuvee check``: a gate for files of rows."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated
from xml.etree import ElementTree

import typer
from typer import Argument, Option

import cuvee.measure as room
from cuvee.cli import console, show
from cuvee.cli.options import Tell, expand_options
from cuvee.config.reading import config_to_yaml, read_config
from cuvee.config.schema import CheckRules, Limits
from cuvee.corpus import load_corpus, replace_text
from cuvee.encoders import load_encoder
from cuvee.errors import ConfigError
from cuvee.measure.findings import RULES, find_findings
from cuvee.records import Finding, Measurement

# metrics that hardly depend on the number of rows: a limit taken from real rows holds for other files
_RATES = ("exact_duplicate_rate", "near_duplicate_rate", "opening_rate", "ending_rate", "degenerate_rate")


@expand_options
def check(
    files: Annotated[list[Path], Argument(help="files of rows; with --write-rules the one of the real rows")],
    tell: Tell,
    rules: Annotated[Path, Option(help="what fails a file")] = Path("rules.yaml"),
    write_rules: Annotated[bool, Option("--write-rules", help="propose rules from real rows")] = False,
    junit: Annotated[Path | None, Option(help="write the result as JUnit XML")] = None,
) -> None:
    """Check files of rows against rules; exit code 1 if one fails.

    Each finding of `cuvee measure` that the rules name fails a file, and each number beyond its limits. In a GitHub
    workflow (GITHUB_ACTIONS is set) failures are annotations too.
    """
    if write_rules:
        tell({"rules": str(rules)}, _write_rules(files, rules))
        return
    asked = read_config(rules, CheckRules)
    measure = _prepare(asked)
    failed = {str(path): show.name_file(_find_failures(measure(path), asked), path) for path in files}
    if junit is not None:
        replace_text(junit, _render_junit(failed))
    passed = not any(failed.values())
    lines = []
    for path, found in failed.items():
        lines += [f"{path}: {'fails' if found else 'passes'}", *(f"- {each.id}: {each}" for each in found)]
        if os.environ.get("GITHUB_ACTIONS"):
            lines += [f"::error file={path},title={each.id}::{_escape(str(each))}" for each in found]
    tell({"passed": passed, "files": failed}, *lines)
    if not passed:
        raise typer.Exit(1)


def _escape(text: str) -> str:
    """As commands of GitHub's workflows want it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _prepare(asked: CheckRules) -> Callable[[Path], Measurement]:
    """What measures a file: the rows that the rules name and the encoder are loaded once for all files."""
    real = None if asked.against is None else load_corpus(asked.against, text=asked.text, label=asked.label)
    held_out = None if asked.held_out is None else load_corpus(asked.held_out, text=asked.text, label=asked.label).texts
    encoder = load_encoder(asked.encoder)

    def measure(path: Path) -> Measurement:
        corpus = load_corpus(path, text=asked.text, label=asked.label, origin="synthetic", labelled=False)
        with console.Display() as display:
            subject = room.Subject(
                corpus=corpus, against=real, held_out=held_out, encoder=encoder, listen=display.watch
            )
            measured = room.measure_subject(subject, name=path.name)
            return replace(measured, findings=find_findings(subject, measured.values, most=len(RULES)))

    return measure


def _find_failures(measured: Measurement, asked: CheckRules) -> list[Finding]:
    named = () if asked.findings == "all" else asked.findings
    for rule in RULES:
        if rule.id in named and (lacks := [name for name in rule.needs if name not in measured.values]):
            raise ConfigError(
                f"findings: {rule.id} needs {lacks[0]}, which needs `against` or `held_out`, or more rows"
            )
    failed = [f for f in measured.findings if f.severity and (asked.findings == "all" or f.id in asked.findings)]
    for name, limits in asked.limits.items():
        if name not in measured.values:
            raise ConfigError(f"limits: {name} was not measured: it needs `against` or `held_out`, or more rows")
        value = measured.values[name].value
        for side, limit, beyond in (("below", limits.min, -1), ("above", limits.max, 1)):
            if limit is not None and (value - limit) * beyond > 0:
                sentence = f"{name} is {value:.4g}, {side} its limit of {limit:.4g}."
                failed.append(Finding(id=name, sentence=sentence, value=value, yardstick=limit, severity=1.0))
    return failed


def _write_rules(files: Sequence[Path], target: Path) -> str:
    """Write rules whose limits are the upper ends of the real rows' own intervals, and say what is next."""
    if len(files) > 1:
        raise ConfigError("--write-rules takes one file, that of the real rows")
    if target.exists():
        raise ConfigError(f"{target}: already there; choose another name with --rules, or remove it")
    measured = _prepare(CheckRules())(files[0])
    highs = {name: measured.values[name].high for name in _RATES if name in measured.values}
    limits = {name: Limits(max=round(high, 4)) for name, high in highs.items() if high is not None}
    replace_text(target, config_to_yaml(CheckRules(against=os.path.relpath(files[0], target.parent), limits=limits)))
    return f"wrote {target}; next: cuvee check SYNTHETIC --rules {target}"


def _render_junit(failed: Mapping[str, Sequence[Finding]]) -> str:
    """One test case a file, with a failure for each of its findings."""
    count = sum(map(bool, failed.values()))
    suite = ElementTree.Element("testsuite", name="cuvee check", tests=str(len(failed)), failures=str(count))
    for path, found in failed.items():
        case = ElementTree.SubElement(suite, "testcase", classname="cuvee", name=path)
        for each in found:
            ElementTree.SubElement(case, "failure", message=each.sentence, type=each.id).text = str(each)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True)
