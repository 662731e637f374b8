"""Names in YAML to objects: an entry of a table, or ``module:Name`` of the user's own, whose code can be hashed."""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import inspect
import os
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from importlib.metadata import packages_distributions, version
from modulefinder import ModuleFinder
from pathlib import Path
from typing import TypeVar, cast, get_type_hints

from cuvee.errors import ConfigError, CuveeError
from cuvee.inputs import parse_yaml, read_text

T = TypeVar("T")


def nearest_name(name: str, valid: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for a near miss, else the list of valid names."""
    names = [str(v) for v in valid]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"


@contextmanager
def trust_modules(*modules: str) -> Iterator[None]:
    """Let ``module:Name`` of these modules and of their submodules be imported and called inside the block.

    What is in a trusted module runs with all your rights, on whatever settings a study gives it. The list ``trust``
    of your own file ``$XDG_CONFIG_HOME/cuvee/config.yaml`` (by default ``~/.config/cuvee/config.yaml``) counts too.

    Args:
        modules: names as Python imports them, such as ``my_dials``.

    Raises:
        ConfigError: one is no name of a module.
    """
    for name in modules:
        _check_module(name, "trust")
    token = _TRUSTED.set(_TRUSTED.get() | frozenset(modules))
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def list_trusted() -> tuple[str, ...]:
    """The modules that are trusted here, for a worker elsewhere to trust too."""
    return tuple(sorted(_TRUSTED.get() | _read_own_list()))


_TRUSTED: ContextVar[frozenset[str]] = ContextVar("trusted", default=frozenset())


def _read_own_list() -> frozenset[str]:
    """What the user's own configuration file trusts."""
    base = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    path = (base if base.is_absolute() else Path.home() / ".config") / "cuvee" / "config.yaml"
    found = parse_yaml(read_text(path, ConfigError), str(path))[1] if path.is_file() else {}
    content = found or {}
    names = content.get("trust", []) if isinstance(content, dict) and set(content) <= {"trust"} else None
    if not isinstance(names, list):
        raise ConfigError(f"{path}: holds one key, a list of modules of your own: trust: [my_dials]")
    for name in names:
        _check_module(name, f"{path}: trust")
    return frozenset(names)


def _check_module(name: object, where: str) -> None:
    if not (isinstance(name, str) and all(part.isidentifier() for part in name.split("."))):
        raise ConfigError(f"{where}: {name!r} is no name of a module; give one as Python imports it, such as my_dials")


def _is_trusted(module: str) -> bool:
    parts = module.split(".")  # a package's own file is run before what lies in it
    parents = {".".join(parts[: k + 1]) for k in range(len(parts))}
    return not parents.isdisjoint(_TRUSTED.get() | _read_own_list())


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """What an object of the user's own must be, so that it is known before it is called.

    Attributes:
        name: the kind of thing, for messages ("trainer", "dial").
        makes: a protocol: a class with its methods, or a function whose return annotation is such a class, will do.
        takes: names of arguments: a function that takes so many by their places.
        is_a: a class: an instance of it will do.
        other: another kind that will do.
    """

    name: str
    makes: type | None = None
    takes: tuple[str, ...] = ()
    is_a: type | None = None
    other: Kind | None = None

    def fits(self, found: object) -> bool:
        """Whether an object is of this kind; it is looked at, and not called."""
        if self.other is not None and self.other.fits(found):
            return True
        if self.is_a is not None:
            return isinstance(found, self.is_a)
        if self.takes:
            return callable(found) and not isinstance(found, type) and self._takes(found)
        if inspect.isfunction(found):
            try:
                found = get_type_hints(found).get("return")
            except (NameError, TypeError, AttributeError):
                return False
        return isinstance(found, type) and not self.list_lacking(found)

    def list_lacking(self, found: object) -> list[str]:
        """The methods that an object lacks."""
        wanted = vars(self.makes or object).items()
        methods = [name for name, member in wanted if name[0] != "_" and inspect.isfunction(member)]
        return [name for name in methods if not callable(getattr(found, name, None))]

    def _takes(self, found: Callable[..., object]) -> bool:
        try:
            signature = inspect.signature(found)
            signature.bind(*self.takes)
        except (TypeError, ValueError):
            return False
        places = [p for p in signature.parameters.values() if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        return len(places) >= len(self.takes)  # *args takes anything, and says nothing

    def __str__(self) -> str:
        if self.is_a is not None:
            return f"a {self.is_a.__module__}.{self.is_a.__qualname__}"
        if self.takes:
            other = f"{self.other}, or " if self.other is not None else ""
            return f"{other}a function of ({', '.join(self.takes)})"
        assert self.makes is not None
        name = self.makes.__name__
        return f"a class with the methods of {self.makes.__module__}.{name}, or a function annotated to return one"


def resolve_name(name: str, table: Mapping[str, T], kind: Kind) -> T:
    """The entry called ``name`` in ``table``, or the object at ``module:Name``.

    Args:
        name: a key of the table, or ``package.module:Attribute`` of a module that is trusted.
        table: the known entries.
        kind: what it must be.

    Raises:
        ConfigError: no such entry, module or attribute; a module that is not trusted, which is then not imported; or
            an object of another kind.
    """
    if name in table:
        return table[name]
    if ":" not in name:
        raise ConfigError(f"unknown {kind.name} {name!r}; {nearest_name(name, table)}")
    found = _import_object(name, kind.name)
    if not kind.fits(found):
        lacks = f"; it lacks {' and '.join(kind.list_lacking(found))}" if isinstance(found, type) and kind.makes else ""
        raise ConfigError(f"{kind.name} {name!r} is {found!r:.200}; it must be {kind}{lacks}")
    return cast("T", found)


def _import_object(name: str, what: str) -> object:
    module, _, attribute = name.partition(":")
    _check_module(module, f"{what} {name!r}")
    require_trust(module, f"{what} {name!r}")
    try:
        found: object = getattr(importlib.import_module(module), attribute)
    except CuveeError:
        raise
    except Exception as exc:  # of the user's module, as it is imported
        said = str(exc) if isinstance(exc, ImportError | AttributeError) else f"{type(exc).__name__}: {exc}"
        remedy = "; is its folder on PYTHONPATH?" if isinstance(exc, ModuleNotFoundError) else ""
        raise ConfigError(f"{what} {name!r} cannot be loaded: {' '.join(said.split())}{remedy}") from exc
    if hasattr(found, "__qualname__"):  # a class or function, which a trusted module may have from elsewhere
        home = getattr(found, "__module__", None)
        require_trust(str(home), f"{what} {name!r} is of module {home!r}, and that")
    return found


def require_trust(module: str, what: str) -> None:
    """Refuse what is code of a module that the user does not trust.

    Args:
        module: as Python imports it.
        what: names it, and where it is named.

    Raises:
        ConfigError: it is not trusted.
    """
    if not _is_trusted(module):
        top = module.partition(".")[0]
        raise ConfigError(
            f"{what} is code of a module that is not trusted, and was not run; if you know the code, allow it with "
            f"--trust {top}, from Python with cuvee.trust_modules({top!r})"
        )


def hash_code(name: str) -> str:
    """SHA-256 of the code behind ``module:Name``, by which results of the user's own code are known again.

    It is of the source of the module, of the module that the object is defined in, and of every module of the same
    folder tree that they import, however indirectly. Comments and layout do not count. Installed packages count with
    the version of their distribution. Of other code without source (compiled, typed in) its name alone
    counts. An import that is not written as a statement is not seen.

    Raises:
        ConfigError: no such module or attribute.
    """
    found = _import_object(name, "object")
    names = {name.partition(":")[0], getattr(found, "__module__", None) or ""} - {""}
    names = {each for each in names if each.partition(".")[0] != "cuvee"}  # whose version of numbers counts
    digest = hashlib.sha256()
    for module in sorted(names):
        for where, content in sorted(_read_code(module)):
            digest.update(f"{len(where)} {where} {len(content)} {content}".encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def hash_own(names: Iterable[str]) -> tuple[str, ...]:
    """Hashes of the code of the user's own among these names, which are written ``module:Name``."""
    return tuple(hash_code(name) for name in names if ":" in name)


def _read_code(module: str) -> set[tuple[str, str]]:
    """Names of modules, each with its code as far as it decides what is done."""
    path = getattr(sys.modules.get(module), "__file__", None)
    if path is None or not path.endswith(".py"):
        return {(module, _find_version(module))}
    first = Path(path).resolve()
    root = first.parents[module.count(".") + (first.name == "__init__.py")]
    if root.name in ("site-packages", "dist-packages") or str(root) == sysconfig.get_paths()["stdlib"]:
        return {(module, _find_version(module) or _dump_code(first))}
    finder = ModuleFinder([str(root)])  # it runs nothing of what it reads
    finder.import_hook(first.stem if module == "__main__" else module)
    files = {name: getattr(each, "__file__", None) or "" for name, each in finder.modules.items()}
    return {(name, _dump_code(Path(file))) for name, file in files.items() if file.endswith(".py")}


def _find_version(module: str) -> str:
    """The distributions that hold a module, with their versions; empty if there is none."""
    found = packages_distributions().get(module.partition(".")[0], [])
    return ", ".join(f"{each} {version(each)}" for each in sorted(set(found)))


def _dump_code(file: Path) -> str:
    return ast.dump(ast.parse(file.read_bytes()))
