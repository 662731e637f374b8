"""Run notebook.ipynb cell by cell and write it again with what the cells show.

``python docs/write_notebook.py`` does so in a temporary folder; no notebook server is needed. Charts become SVG, which
needs no network to be shown.
"""

import ast
import contextlib
import json
import os
import tempfile
from pathlib import Path

import vl_convert

NOTEBOOK = Path(__file__).resolve().with_name("notebook.ipynb")
Cell = dict[str, object]


def run_cell(code: str, names: dict[str, object]) -> list[Cell]:
    """Run a cell and return what it shows: the value of its last line, if that is an expression."""
    tree = ast.parse(code)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "notebook.ipynb", "exec"), names)
    value = None if last is None else eval(compile(ast.Expression(last.value), "notebook.ipynb", "eval"), names)
    if value is None:
        return []
    data = {"text/plain": repr(value)}
    if hasattr(value, "to_json"):
        data = {"text/plain": "a chart", "image/svg+xml": vl_convert.vegalite_to_svg(value.to_json())}
    elif hasattr(value, "_repr_html_"):
        data["text/html"] = value._repr_html_()
    shown = {kind: text.splitlines(keepends=True) for kind, text in data.items()}
    return [{"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": shown}]


def run_notebook() -> dict[str, object]:
    """The notebook with the outputs of today, run in an empty folder."""
    notebook: dict[str, object] = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    names: dict[str, object] = {"__name__": "__main__"}
    cells = notebook["cells"]
    assert isinstance(cells, list)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        for cell in cells:
            if cell["cell_type"] == "code":
                cell["outputs"] = run_cell("".join(cell["source"]), names)
    return notebook


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    made = json.dumps(run_notebook(), indent=1, ensure_ascii=False)
    NOTEBOOK.write_text(made + "\n", encoding="utf-8")
