"""Where the wall time of a run on the space `mobilenet` goes: ops, reading memory, the engine's own."""

import re
import subprocess
import sys

import common


def main():
    done = subprocess.run(
        [common.BIN / "latlas-agent", "bench", "--space", "mobilenet", "--out", "/dev/null"],
        stderr=subprocess.PIPE,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    print(last)
    found = re.search(r"([\d.]+)% the engine's own", last)
    if done.returncode or not found:
        sys.exit("latlas-agent bench did not end as it should")
    figures = common.Figures()
    figures.at_most("engine_share", float(found[1]), 25, "%")
    figures.finish()


if __name__ == "__main__":
    main()
