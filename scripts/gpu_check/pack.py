"""Packs gpu-check into one program: `pack.py FILE`. It needs only Python's standard library."""

import shutil
import sys
import tempfile
import zipapp
from pathlib import Path

HERE = Path(__file__).resolve().parent
BENCHMARKS = HERE.parent / "benchmarks"


def pack(target):
    with tempfile.TemporaryDirectory() as folder:
        for source in HERE.glob("*.py"):
            if source.name != "pack.py" and not source.name.startswith("test_"):
                shutil.copy(source, folder)
        for name in ("common.py", "pytorch.py"):
            shutil.copy(BENCHMARKS / name, folder)
        zipapp.create_archive(folder, target, interpreter="/usr/bin/env python3", compressed=True)


if __name__ == "__main__":
    pack(sys.argv[1])
