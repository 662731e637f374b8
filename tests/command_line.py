"""The command line in this process, as tests call it."""

from cuvee.cli.app import run_cli


def call(capsys, *arguments: object) -> tuple[int, str, str]:
    code = run_cli([str(a) for a in arguments])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def refused(capsys, *arguments: object) -> str:
    """The one line that a user gets; exit code 2."""
    code, out, err = call(capsys, *arguments)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (code, out) == (2, ""), (code, out, err)
    assert len(lines) == 1 and "Traceback" not in err
    return lines[0]
