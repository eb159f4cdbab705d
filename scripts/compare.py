"""Prints predictions of networks next to their measured latencies.

Usage: compare.py PREDICTIONS MEASUREMENTS, both NDJSON, as printed by `latlas predict --json` and `latlas-agent bench
--network`.
"""

import json
import sys


def read(path):
    with open(path, encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def main(predictions, measurements):
    measured = {}
    for measurement in read(measurements):
        name = measurement["subject"]["network"]["spec"]["name"]
        if measurement["latency"] is None:
            sys.exit(f"{name} could not be measured: {measurement['reason']}")
        measured[name] = measurement["latency"]["curve"][0]
    print(f"{'network':<16} {'predicted':>12} {'measured':>12} {'error':>8}")
    for prediction in read(predictions):
        point = measured[prediction["name"]]
        predicted = prediction["latency_micros"]
        error = predicted / point["quiet_micros"] - 1
        print(
            f"{prediction['name']:<16} {predicted / 1e3:>9.3f} ms "
            f"{point['quiet_micros'] / 1e3:>9.3f} ms {error:>+8.1%}"
        )


if __name__ == "__main__":
    main(*sys.argv[1:])
