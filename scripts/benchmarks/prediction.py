"""Predictions a second on one core from a table in memory, packed for a search and one by one."""

import subprocess
import sys

import common


def main():
    done = subprocess.run([common.BIN / "examples/prediction_speed"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit("the example prediction_speed did not end as it should")
    packed, single = (float(word) for word in done.stdout.split())
    print(f"packed table, sequences of 20 ops with their interval: {packed:,.0f} a second")
    print(f"one by one from their plans, mobilenet networks of 8 to 18 blocks: {single:,.0f} a second")
    figures = common.Figures()
    figures.at_least("predictions_per_second", packed, 1e6)
    figures.at_least("packed_over_single", packed / single, 1, "x")
    figures.finish()


if __name__ == "__main__":
    main()
