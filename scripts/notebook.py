"""Runs examples/predictions.ipynb, and writes its outputs into it and, as a page, into docs/notebook.md.

Usage: notebook.py [--check]. With --check nothing is written, and outputs that changed are an error. The package
`latlas` and numpy have to be installed.
"""

import ast
import contextlib
import difflib
import io
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOK = ROOT / "examples/predictions.ipynb"
PAGE = ROOT / "docs/notebook.md"


def run(source, names):
    """What a cell prints, and the text of its last expression or None."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, "cell", "exec"), names)
        value = None if last is None else eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    return printed.getvalue(), None if value is None else repr(value)


def lines(text):
    return text.splitlines(keepends=True)


def outputs(printed, result, count):
    """Outputs as a notebook has them."""
    made = []
    if printed:
        made.append({"name": "stdout", "output_type": "stream", "text": lines(printed)})
    if result is not None:
        data = {"text/plain": lines(result)}
        made.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
    return made


def rendered():
    """The notebook after a run, and the page."""
    notebook = json.loads(NOTEBOOK.read_text())
    names = {"__name__": "__main__"}
    parts = []
    count = 0
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        count += 1
        printed, result = run(source, names)
        cell["execution_count"] = count
        cell["outputs"] = outputs(printed, result, count)
        parts.append(f"```python\n{source}\n```")
        shown = printed + ("" if result is None else f"{result}\n")
        if shown:
            parts.append(f"```\n{shown}```")
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", "\n\n".join(parts) + "\n"


def changes():
    """Where the files are not what a run makes of them, as lines of a diff; and their new content."""
    here = os.getcwd()
    # A notebook runs in its own folder.
    os.chdir(NOTEBOOK.parent)
    try:
        contents = dict(zip((NOTEBOOK, PAGE), rendered()))
    finally:
        os.chdir(here)
    found = []
    for path, content in contents.items():
        old = path.read_text() if path.exists() else ""
        name = str(path.relative_to(ROOT))
        found += difflib.unified_diff(lines(old), lines(content), name, f"{name} after a run")
    return found, contents


def main():
    if sys.argv[1:] not in ([], ["--check"]):
        sys.exit("usage: notebook.py [--check]")
    found, contents = changes()
    if sys.argv[1:]:
        sys.stdout.writelines(found)
        sys.exit(bool(found))
    for path, content in contents.items():
        path.write_text(content)


if __name__ == "__main__":
    main()
