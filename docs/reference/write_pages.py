"""Pages that the site makes of the code itself: commands, keys of the YAML files, the notebook with its outputs.

A hook of MkDocs: see ``hooks`` in mkdocs.yml.
"""

import json
import re
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from typer.core import TyperCommand, TyperGroup

from cuvee.cli.app import COMMANDS, load_commands
from cuvee.config.collapse import CollapseConfig
from cuvee.config.schema import CheckRules, StudyConfig

JsonObject = Mapping[str, object]
FILES: dict[str, tuple[type[BaseModel], str]] = {
    "study.yaml": (StudyConfig, "`cuvee init DATA` writes one with comments, `cuvee run` runs it."),
    "collapse.yaml": (CollapseConfig, "`cuvee collapse FILE` runs it; the name of the file is free."),
    "rules.yaml": (CheckRules, "`cuvee check FILE --rules` reads it; `--write-rules` proposes one."),
}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that lie in the folder."""
    notebook = json.loads((Path(config.docs_dir) / "notebook.ipynb").read_text(encoding="utf-8"))
    pages = {
        "reference/commands.md": write_commands(),
        "reference/config.md": write_config(),
        "notebook.md": write_notebook(notebook),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


# --- commands ---
def write_commands() -> str:
    """The options of every command, as its ``--help`` has them."""
    lines = [
        "# Commands",
        "",
        "This page is made of what each command's `--help` says. Every command that prints results takes `--json`.",
        "",
    ]
    for name, (_, line, example) in COMMANDS.items():
        group = load_commands(name)
        assert isinstance(group, TyperGroup)
        lines += [f"## cuvee {name}", "", line, "", f"```text\ncuvee {name} {example}\n```", ""]
        command = group.commands[name]
        assert isinstance(command, TyperCommand)
        lines += [*_list_options(command), ""]
    return "\n".join(lines)


def _list_options(command: TyperCommand) -> Iterator[str]:
    context = command.make_context(command.name, [], resilient_parsing=True)
    yield from ("| argument or option | what it does |", "|---|---|")
    for parameter in command.get_params(context):
        if (record := parameter.get_help_record(context)) is not None:
            yield f"| {_code(record[0])} | {_words(record[1])} |"


def _code(text: str) -> str:
    """Code in the cell of a table."""
    return f"`{text.replace('|', chr(92) + '|')}`"


def _words(text: str) -> str:
    """Words in the cell of a table."""
    return re.sub(r"([|\[\]*_])", r"\\\1", escape(" ".join(text.split())))


# --- keys of YAML files ---
def write_config() -> str:
    """The keys of every YAML file with type, default and meaning, from the schema that reads it."""
    lines = [
        "# Configuration",
        "",
        "This page is made of the schema that reads the files. A key that is not here is refused, and the message "
        "names the nearest one. `cuvee init` writes `study.schema.json` beside study.yaml, for editors.",
        "",
    ]
    known: set[str] = set()
    for file, (kind, told) in FILES.items():
        schema = kind.model_json_schema()
        lines += [f"## {file}", "", told, "", *_list_keys(schema, schema["$defs"]), ""]
        for name, part in sorted(schema["$defs"].items()):
            if "properties" in part and name not in known:
                known.add(name)
                lines += [f"### {_title(part, name)} {{ #{name.lower()} }}", "", part.get("description", ""), ""]
                lines += [*_list_keys(part, schema["$defs"]), ""]
    return "\n".join(lines)


def _title(part: JsonObject, name: str) -> str:
    """A section's name, with the value of the key that chooses it."""
    properties = part["properties"]
    assert isinstance(properties, dict)
    chosen = [f"`{key}: {properties[key]['const']}`" for key in ("kind", "name") if "const" in properties.get(key, {})]
    return " ".join([name.removesuffix("Config"), *chosen])


def _list_keys(part: JsonObject, sections: Mapping[str, JsonObject]) -> Iterator[str]:
    properties, required = part["properties"], part.get("required", ())
    assert isinstance(properties, dict) and isinstance(required, list | tuple)
    yield from ("| key | type | default | meaning |", "|---|---|---|---|")
    for key, value in properties.items():
        default = "must be given" if key in required else _show(value.get("default"))
        own = sections.get(str(value.get("$ref")).rpartition("/")[2], {})
        told = " ".join(str(value.get("description", own.get("description", ""))).split())
        yield f"| `{key}` | {_tell_type(value)} | {default} | {_words(told)} |"


def _show(value: object) -> str:
    if isinstance(value, dict) and value:
        return "its own defaults"
    return _code(json.dumps(value, ensure_ascii=False))


def _tell_type(value: JsonObject) -> str:
    """A type in words; a section is a link to its keys."""
    if isinstance(reference := value.get("$ref"), str):
        name = reference.rpartition("/")[2]
        return f"[{name.removesuffix('Config')}](#{name.lower()})" if name not in ("JsonValue", "Topics") else "any"
    for several in ("anyOf", "oneOf"):
        if isinstance(options := value.get(several), list):
            return " or ".join(dict.fromkeys(map(_tell_type, options)))
    if "const" in value:
        return f"`{value['const']}`"
    if isinstance(choices := value.get("enum"), list):
        return " or ".join(f"`{choice}`" for choice in choices)
    kind = value.get("type", "any")
    if kind == "array":
        inner = value.get("items", value.get("prefixItems"))
        return f"list of {_tell_type(inner)}" if isinstance(inner, dict) else "list"
    return {"object": "mapping", "string": "text", "number": "number", "integer": "whole number"}.get(
        str(kind), str(kind)
    ) + _tell_range(value)


def _tell_range(value: JsonObject) -> str:
    signs = {"minimum": "at least", "exclusiveMinimum": "over", "maximum": "at most", "exclusiveMaximum": "under"}
    told = [f"{words} {value[name]:g}" for name, words in signs.items() if isinstance(value.get(name), int | float)]
    return f", {', '.join(told)}" if told else ""


# --- the notebook ---
def write_notebook(notebook: JsonObject) -> str:
    """A notebook's cells and outputs as a page."""
    cells = notebook["cells"]
    assert isinstance(cells, list)
    lines = []
    for cell in cells:
        source = "".join(cell["source"])
        lines += [source, ""] if cell["cell_type"] == "markdown" else [f"```python\n{source}\n```", ""]
        for output in cell.get("outputs", ()):
            lines += [_show_output(output), ""]
    return "\n".join(lines)


def _show_output(output: Mapping[str, object]) -> str:
    if output["output_type"] == "stream":
        return f"```text\n{''.join(output['text']).rstrip()}\n```"
    data = output["data"]
    assert isinstance(data, dict)
    for kind in ("image/svg+xml", "text/html"):
        if kind in data:
            return f'<div class="output">{_one_block("".join(data[kind]))}</div>'
    return f"```text\n{''.join(data['text/plain'])}\n```"


def _one_block(html: str) -> str:
    """HTML without blank lines, which would end its block in Markdown."""
    return "\n".join(line for line in html.splitlines() if line.strip())
