"""Checks Latlas on the GPU of this machine: phase after phase, in the order of their worth.

It ends with one line per figure, `figure NAME VALUE BAR ok|short`, and succeeds only when all hold. After each
phase the results lie in a folder: $OUT where that is set, else ./gpu-check-results.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
import traceback
import zipfile
from pathlib import Path

# Leaves a checkout unchanged.
sys.dont_write_bytecode = True
HERE = Path(sys.argv[0]).resolve()
if not zipfile.is_zipfile(HERE):
    HERE = Path(__file__).resolve().parent
    # In a checkout the benchmarks' own modules are in that folder.
    sys.path.insert(1, str(HERE.parent / "benchmarks"))

import arithmetic  # noqa: E402
import common  # noqa: E402
import machine  # noqa: E402
from machine import Problem  # noqa: E402
from phases import DTYPES, PHASES, Check  # noqa: E402
from programs import OutOfTime, Programs, last_line  # noqa: E402


def data_file(name):
    """A data file of gpu-check: in a bundle it is next to this program, in a checkout at its own place."""
    places = [HERE.parent / name, HERE / name, HERE.parent / "benchmarks" / name]
    return next(path for path in places if path.is_file())


class Findings:
    """The result of one phase."""

    def __init__(self):
        self.figures, self.details = common.Figures(), {}
        self.state, self.problem, self.seconds = "not run", None, 0.0

    def plain(self):
        return {
            "state": self.state,
            "problem": self.problem,
            "seconds": round(self.seconds, 1),
            "figures": self.figures.lines,
            "details": self.details,
        }


class Results:
    """The files of the results, rewritten after each phase, so that earlier results survive any later failure."""

    def __init__(self, folder, arguments):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.arguments = folder, arguments
        self.phases, self.problem = {}, None
        (folder / "measurements.ndjson.gz").write_bytes(b"")

    def write(self):
        whole = {
            "arguments": self.arguments,
            "problem": self.problem,
            "phases": {name: found.plain() for name, found in self.phases.items()},
        }
        fresh = self.folder / "results.json.new"
        fresh.write_text(json.dumps(whole, indent=1))
        os.replace(fresh, self.folder / "results.json")
        (self.folder / "figures.txt").write_text("".join(line + "\n" for line in self.figure_lines()))

    def figure_lines(self):
        return [line for found in self.phases.values() for line in found.figures.lines]

    def keep(self, phase, measurements):
        """Adds a run's measurements, one JSON object per line."""
        lines = "".join(json.dumps(dict(m, phase=phase)) + "\n" for m in measurements)
        with open(self.folder / "measurements.ndjson.gz", "ab") as file:
            file.write(gzip.compress(lines.encode()))


def run_phase(phase, check, found):
    """Runs a phase; the phase's state records any failure."""
    started = time.monotonic()
    try:
        phase(check, found)
        found.state = "done"
    except OutOfTime:
        found.state, found.problem = "out of time", "its time was over"
    except Problem as problem:
        found.state, found.problem = "failed", str(problem)
    except Exception as problem:
        # An error of this program, or an answer that it does not understand: the other phases are still useful.
        found.state, found.problem = "failed", f"{type(problem).__name__}: {problem}"
        found.details["traceback"] = traceback.format_exc()
    found.seconds = time.monotonic() - started
    if found.state != "done":
        print(f"{phase.__name__}: {found.state}: {found.problem}")
        found.figures.add(f"{phase.__name__}_{found.state.replace(' ', '_')}", 1, "=0", False, "")


def arguments():
    names = [phase.__name__ for phase, _ in PHASES]
    parser = argparse.ArgumentParser(
        prog="gpu-check",
        description=__doc__,
        epilog="phases: " + "; ".join(f"{phase.__name__}: {phase.__doc__}" for phase, _ in PHASES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=4, help="how long all of it may take (4)")
    parser.add_argument("--only", action="append", choices=names, help="run this phase; may be given again")
    parser.add_argument("--device", default="cuda:0", help="cuda:N, or cpu to see whether everything runs (cuda:0)")
    parser.add_argument(
        "--dtype", action="append", choices=["f32", "f16", "bf16"], help="of the phase prediction (f32 and bf16)"
    )
    parser.add_argument("--quick", action="store_true", help="few ops: whether everything runs, not how well")
    parser.add_argument("--programs", type=Path, help="the folder of latlas-agent and latlas (this program's)")
    # The process that times ops in PyTorch.
    parser.add_argument("--time-ops", nargs="+", help=argparse.SUPPRESS)
    return parser.parse_args()


def time_ops(asked):
    import reference

    with tempfile.TemporaryDirectory() as scratch:
        folder = asked.programs
        programs = Programs(folder, machine.environment(folder), asked.device, Path(scratch), sys.stderr)
        programs.deadline = time.monotonic() + 60 * asked.minutes
        reference.time_ops(programs, asked.time_ops)


def main():
    asked = arguments()
    if asked.time_ops:
        return time_ops(asked)
    out = Path(os.environ.get("OUT") or "gpu-check-results")
    started = time.monotonic()
    results = Results(out, {name: str(value) for name, value in vars(asked).items()})
    with tempfile.TemporaryDirectory() as scratch, open(out / "log.txt", "w") as log:
        try:
            folder = (asked.programs or HERE.parent).resolve()
            programs = Programs(folder, machine.environment(folder), asked.device, Path(scratch), log)
            programs.deadline = started + 60 * asked.minutes
            # Without the device no further check makes sense.
            code, _, err = programs.start("latlas-agent", ["probe", "--device", asked.device], None)
            if code:
                raise Problem(last_line(err) or f"latlas-agent probe ended with {code}")
        except (Problem, OutOfTime) as problem:
            results.problem = str(problem) or "there was no time for the first question"
            results.write()
            sys.exit(f"gpu-check: {results.problem}")
        check = Check(programs, data_file, asked.quick, asked.dtype or DTYPES)
        wanted = [(phase, share) for phase, share in PHASES if not asked.only or phase.__name__ in asked.only]
        # The first start of a program reads gigabytes of libraries, and is not part of any phase's time.
        began = time.monotonic()
        minutes = asked.minutes - (began - started) / 60
        ends = arithmetic.plan([(phase.__name__, share) for phase, share in wanted], minutes)
        for phase, _ in wanted:
            name = phase.__name__
            print(f"\n== {name}: {phase.__doc__}", flush=True)
            found = results.phases[name] = Findings()
            programs.deadline = began + ends[name]
            programs.keep = lambda rows, name=name: results.keep(name, rows)
            run_phase(phase, check, found)
            results.write()
            sys.stdout.flush()
    print()
    for line in results.figure_lines():
        print(line)
    sys.exit(any(found.figures.short for found in results.phases.values()))


if __name__ == "__main__":
    main()
