"""The notebook and its page are what a run makes of them."""

from __future__ import annotations

import importlib.util
import unittest
from pathlib import Path

SCRIPT = Path(__file__).parent.parent.parent / "scripts" / "notebook.py"


class Notebook(unittest.TestCase):
    def test_the_outputs_are_those_of_a_run(self) -> None:
        spec = importlib.util.spec_from_file_location("notebook", SCRIPT)
        assert spec is not None and spec.loader is not None
        notebook = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(notebook)
        changes, _ = notebook.changes()
        self.assertEqual("".join(changes), "", "run scripts/notebook.py")
