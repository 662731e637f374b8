"""Names in YAML to objects: an entry of a table, or ``module:Name`` of the user's own, whose code can be hashed."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import TypeVar

from cuvee.errors import ConfigError

T = TypeVar("T")


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for a near miss, else the list of valid names."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"


def resolve_name(name: str, table: Mapping[str, T], *, what: str) -> T:
    """The entry called ``name`` in ``table``, or the object at ``module:Name``.

    Args:
        name: a key of the table, or ``package.module:Attribute``.
        table: the known entries.
        what: the kind of thing, for messages ("trainer", "dial").

    Raises:
        ConfigError: no such entry, module or attribute.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(f"unknown {what} {name!r}; {nearest_name(name, table)}")
    module_name, _, attribute = name.partition(":")
    try:
        found: T = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        remedy = "; is its folder on PYTHONPATH?" if isinstance(exc, ModuleNotFoundError) else ""
        raise ConfigError(f"{what} {name!r} cannot be loaded: {exc}{remedy}") from exc
    return found


def hash_code(name: str) -> str:
    """SHA-256 of the code behind ``module:Name``, by which results of the user's own code are known again.

    It is of the source of the module, of the module that the object is defined in, and of every module of the same
    folder tree that they import, however indirectly. Comments and layout do not count. Installed packages count with
    the version of their distribution. Of code without source (compiled, typed in) only what is typed in is known, so
    that otherwise its name alone counts. An import that is not written as a statement is not seen.

    Raises:
        ConfigError: no such module or attribute.
    """
    table: dict[str, object] = {}
    found = resolve_name(name, table, what="object")
    names = {name.partition(":")[0], getattr(found, "__module__", None) or ""} - {""}
    names = {each for each in names if each.partition(".")[0] != "cuvee"}  # whose version of numbers counts
    digest = hashlib.sha256()
    for module in sorted(names):
        for where, content in sorted(_read_code(module, found)):
            digest.update(f"{len(where)} {where} {len(content)} {content}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def _read_code(module: str, found: object) -> set[tuple[str, str]]:
    """Names of modules, each with its code as far as it decides what is done."""
    top = module.partition(".")[0]
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None or not path.endswith(".py"):
        return {(module, _find_version(top) or _find_typed(found))}
    first = Path(path).resolve()
    root = first.parents[module.count(".") + (first.name == "__init__.py")]
    installed = root.name in ("site-packages", "dist-packages") or str(root) == sysconfig.get_paths()["stdlib"]
    if installed and (release := _find_version(top)):
        return {(module, release)}
    read: dict[str, str] = {}
    waiting: list[tuple[str, Path | None]] = [(module, first)]
    while waiting:
        name, file = waiting.pop()
        if name in read or file is None or (installed and name.partition(".")[0] != top):
            continue
        tree = ast.parse(file.read_bytes())
        read[name] = ast.dump(tree)
        package = name if file.name == "__init__.py" else name.rpartition(".")[0]
        waiting += [(each, _find_file(root, each)) for each in _list_imports(tree, package)]
    return set(read.items())


def _find_version(top: str) -> str:
    """The distributions that a package comes from, with their versions; empty where there is none."""
    return ", ".join(f"{each} {version(each)}" for each in sorted(set(packages_distributions().get(top, []))))


def _find_typed(found: object) -> str:
    """The source of what was typed in, where it is at hand."""
    try:
        return inspect.getsource(found) if inspect.isclass(found) or inspect.isfunction(found) else ""
    except (OSError, TypeError):
        return ""


def _find_file(root: Path, name: str) -> Path | None:
    whole = root.joinpath(*name.split("."))
    return next((file for file in (whole / "__init__.py", whole.with_name(f"{whole.name}.py")) if file.is_file()), None)


def _list_imports(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of modules that a module imports, and names in them, which may be modules too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _list_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module or "") if part)
            if base:
                yield from _list_parents(base)
            yield from (".".join(part for part in (base, alias.name) if part) for alias in node.names)


def _list_parents(name: str) -> Iterator[str]:
    """``a``, ``a.b`` and ``a.b.c`` of ``a.b.c``: a package's own file is run before what lies in it."""
    parts = name.split(".")
    yield from (".".join(parts[: k + 1]) for k in range(len(parts)))
