"""Files that come in: text, YAML and JSON, read within bounds, damage told in one line; and files written whole."""

from __future__ import annotations

import codecs
import errno
import json
import math
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import yaml

from cuvee.errors import ConfigError, CuveeError, InputError

_MOST_TEXT = 2**20  # bytes: YAML is read at some 70 kB a second
_DEPTH = 50  # of YAML
_DIGITS = 100  # of a whole number, beyond which Python is not asked to read it
_BLOCK = 2**20
_MOST_LAYERS = 1000
_SHOWN = 200
# a mark of UTF-32 begins with one of UTF-16; without a mark, where the zeros of plain letters stand
_WIDE = [((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE), "utf-32"), ((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE), "utf-16")]
_ZEROS = {b"\0\1\0\1": "utf-16-le", b"\1\0\1\0": "utf-16-be", b"\0\1\1\1": "utf-32-le", b"\1\1\1\0": "utf-32-be"}
_ARENA, _IO_THREADS = 2**26, 8  # address space that the C library sets aside for each thread, and Arrow's threads


def read_text(path: Path, wrong: type[CuveeError] = InputError) -> str:
    """A text file, which must be UTF-8, UTF-16 or UTF-32; a byte order mark is dropped.

    Raises:
        CuveeError: of the kind ``wrong``: it cannot be read, is too large, or is none of these.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(_MOST_TEXT + 1)
    except OSError as exc:
        raise wrong(f"{path}: cannot be read ({exc.strerror or exc})") from exc
    if len(data) > _MOST_TEXT:
        raise wrong(f"{path}: larger than the {show_bytes(_MOST_TEXT)} that such a file may have; is it the right one?")
    try:
        return to_utf8(data, str(path)).decode("utf-8")
    except InputError as exc:
        raise wrong(str(exc)) from exc


def read_prompts(path: Path) -> list[str]:
    """The prompts of a text file: the whole of it, and each of its lines.

    Raises:
        InputError: it cannot be read, or is empty.
    """
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path}: holds no prompt; give a text file with what the LLM was told")
    return [text, *text.splitlines()]


def to_utf8(data: bytes, where: str) -> bytes:
    """Text as UTF-8 without a byte order mark, from UTF-8 or from UTF-16 and UTF-32 as their marks or zeros tell them.

    Raises:
        InputError: it is neither; with the line.
    """
    marked = next((name for marks, name in _WIDE if data.startswith(marks)), None)
    wide = marked or _ZEROS.get(bytes(byte == 0 for byte in data[:4]))
    if wide is not None:
        try:
            return data.decode(wide).removeprefix("\ufeff").encode()
        except UnicodeError as exc:
            raise InputError(f"{where}: begins as {wide} and is not; save it as UTF-8, for example with iconv") from exc
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise InputError(f"{where}, line {line}: not UTF-8; save it as UTF-8, for example with iconv") from exc
    return data.removeprefix(codecs.BOM_UTF8)


@contextmanager
def whole_file(path: Path, *, durable: bool = True) -> Iterator[Path]:
    """A temporary path, whose file takes the name of ``path`` at the end: at every instant there is a whole one.

    Args:
        path: of the file; its folder is made.
        durable: on the disk when this returns; else a power cut may lose it.

    Raises:
        OSError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        with suppress(OSError):  # where its folder is a file, say
            temporary.unlink(missing_ok=True)


class _PlainLoader(yaml.SafeLoader):
    """YAML that is what it looks like: no aliases, no key twice, few levels, numbers that a computer counts with."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._levels = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal(f"alias *{event.anchor}: write out what it stands for", event.start_mark)
        if self._levels == _DEPTH:
            raise _refusal(f"nested deeper than {_DEPTH} levels", event.start_mark)
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> object:
        try:
            is_long = node.tag == "tag:yaml.org,2002:int" and len(node.value) > _DIGITS
            value = 2**63 if is_long else super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as exc:  # 2026-99-99 has the look of a date
            raise _refusal(first_line(exc), node.start_mark) from exc
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise _refusal("a whole number beyond 64 bits", node.start_mark)
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise _refusal("half of a surrogate pair, \\ud...: remove it", node.start_mark)
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise _refusal(f"{node.value} is not a finite number", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        lines: dict[Hashable, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _refusal("merge key <<: write out what it brings", key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable):  # the loader itself refuses another
                if key in lines:
                    raise _refusal(f"key {key!r} is there already, on line {lines[key]}", key_node.start_mark)
                lines[key] = key_node.start_mark.line + 1
        return cast("dict[Hashable, object]", super().construct_mapping(node, deep=deep))


def parse_yaml(text: str, where: str) -> tuple[yaml.Node | None, object]:
    """YAML of one document as nodes, which know their lines, and as plain values.

    Raises:
        ConfigError: it is not YAML, or has aliases, a key twice, more than 50 levels, or numbers beyond 64 bits.
    """
    try:
        loader = _PlainLoader(text)
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError(f"{where}, line {line}: not valid YAML (character {exc.character:#x}: {exc.reason})") from exc
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        place = f"{where}, line {mark.line + 1}" if mark else where
        raise ConfigError(f"{place}: not valid YAML ({getattr(exc, 'problem', None) or exc})") from exc


def _refusal(problem: str, mark: object) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=cast("yaml.Mark", mark))


def parse_json(text: str, file: str, line: int | None = None) -> object:
    """A JSON value; ``line`` is its line in the file, if it is one line of it.

    Raises:
        InputError: it is not JSON, nested too deep, or has a number of thousands of digits.
    """
    where = file if line is None else f"{file}, line {line}"
    try:
        return cast("object", json.loads(text))
    except json.JSONDecodeError as exc:
        raise InputError(f"{file}, line {line or exc.lineno}: broken JSON ({exc.msg} at column {exc.colno})") from exc
    except RecursionError as exc:
        raise InputError(f"{where}: broken JSON (nested too deep)") from exc
    except ValueError as exc:  # Python reads no number of more than 4,300 digits
        raise InputError(f"{where}: broken JSON (a number of thousands of digits); write it as a string") from exc


# --- Memory ----------------------------------------------------------------------------------------
def free_memory() -> int | None:
    """Bytes that new processes could take, by the kernel's and the control group's account; None where not known."""
    free: list[int] = []
    for line in read_kernel("/proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            free.append(int(line.split()[1]) * 1024)
    limit, used = read_kernel("/sys/fs/cgroup/memory.max"), read_kernel("/sys/fs/cgroup/memory.current")
    if limit.isdigit() and used.isdigit():
        free.append(max(0, int(limit) - int(used)))
    return min(free, default=None)


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = read_kernel("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit() and int(quota[1]) > 0:
        cores = min(cores, max(1, int(quota[0]) // int(quota[1])))
    return cores


def read_kernel(path: str) -> str:
    """The content of a file of the kernel; empty if there is none."""
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except OSError:
        return ""


@contextmanager
def bounded_memory(path: Path) -> Iterator[None]:
    """Let what is read from a file take the memory that the machine has free, less an eighth, and no more.

    What a file expands to cannot be told from its size, nor from what it says of itself; so the kernel bounds this
    process's address space meanwhile, unless a lower bound is set already. Only Linux has such a bound.

    Raises:
        InputError: it would take more.
    """
    free = free_memory()
    if free is None or not read_kernel("/proc/self/statm"):
        yield
        return
    import resource  # only Unix has it

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    lower = math.inf if soft == resource.RLIM_INFINITY else soft  # who reads inside has the bound already
    taken, room = _taken_memory(), free - free // 8
    bound = int(min(lower, taken + room + _ARENA * ((os.cpu_count() or 1) + _IO_THREADS)))
    resource.setrlimit(resource.RLIMIT_AS, (bound, hard))
    try:
        yield
    except (MemoryError, OSError) as exc:
        if isinstance(exc, OSError) and exc.errno != errno.ENOMEM:
            raise
        raise _too_large(path, min(room, max(1, bound - taken))) from exc
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _taken_memory() -> int:
    """Bytes of address space that this process takes."""
    return int(read_kernel("/proc/self/statm").split()[0]) * os.sysconf("SC_PAGESIZE")


def check_memory(path: Path, needed: int) -> None:
    """Refuse a file of which it can be told that it does not fit: some libraries end the process otherwise.

    Raises:
        InputError: inside ``bounded_memory`` so many bytes more are not free.
    """
    if read_kernel("/proc/self/statm"):
        import resource

        bound = resource.getrlimit(resource.RLIMIT_AS)[0]
        if bound != resource.RLIM_INFINITY and needed > (left := max(0, bound - _taken_memory())):
            raise _too_large(path, left)


def _too_large(path: Path, free: int) -> InputError:
    return InputError(
        f"{path}: to read it would take more than the {show_bytes(free)} of memory that are free; split it, or read it "
        "on a machine with more"
    )


# --- What libraries read ---------------------------------------------------------------------------
@contextmanager
def explain_damage(what: str, remedy: str) -> Iterator[None]:
    """Whatever a library raises over a damaged file becomes one line: they document no set of errors.

    A package that is missing, too little memory, and errors with a message for the user are passed on.

    Raises:
        InputError: naming ``what``.
    """
    try:
        yield
    except (CuveeError, ImportError, MemoryError):
        raise
    except Exception as exc:
        # torch says how to run that code
        reason = "its weights would run code" if "weights_only" in str(exc) else first_line(exc)
        raise InputError(f"{what} cannot be loaded ({reason}); {remedy}") from exc


def check_layers(model: str) -> None:
    """Refuse a model's folder whose config.json asks for more layers than could be built in minutes.

    Raises:
        InputError: it does, or it cannot be read.
    """
    path = Path(model) / "config.json"
    config = parse_json(read_text(path), str(path)) if path.is_file() else None
    for key, value in config.items() if isinstance(config, dict) else ():
        if key.endswith(("layer", "layers")) and isinstance(value, int) and value > _MOST_LAYERS:
            raise InputError(f"{path}: {key} is {show_value(value)}; no model has more than {_MOST_LAYERS}")


def first_line(exc: BaseException) -> str:
    """The first line of a message that is not empty, cut where it is long; else the name of the exception."""
    found = next((line.strip() for line in str(exc).splitlines() if line.strip()), type(exc).__name__)
    return found if len(found) <= _SHOWN else f"{found[:_SHOWN]}..."


def show_value(value: object, mask: Callable[[str], str] = str) -> str:
    """A value as Python writes it, without what ``mask`` takes out, cut where it is long."""
    try:
        written = mask(repr(value))
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "a number of thousands of digits"
    return written if len(written) <= _SHOWN else f"{written[:_SHOWN]}..."


def show_bytes(count: int) -> str:
    """A number of bytes, for people."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.1f} kB"
