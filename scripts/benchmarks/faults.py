"""Kills and a failing network, for some minutes: nothing acknowledged may be lost. Needs no reference."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent

if __name__ == "__main__":
    sys.exit(subprocess.run([ROOT / "target/release/latlas-faults", *sys.argv[1:]]).returncode)
