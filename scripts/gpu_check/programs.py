"""Runs Latlas' programs for gpu-check, with a time limit, and keeps their output."""

import json
import os
import signal
import subprocess
import time

from machine import Problem


class OutOfTime(Exception):
    """A phase's time is over; its results so far are kept."""


class Programs:
    """The programs of a folder, on a device."""

    def __init__(self, folder, environment, device, scratch, log):
        self.folder, self.device, self.scratch, self.log = folder, device, scratch, log
        # Results of earlier runs on this machine must not affect this check.
        self.environment = dict(environment, XDG_STATE_HOME=str(scratch))
        self.deadline = None
        for name in ("latlas-agent", "latlas"):
            if not (folder / name).is_file():
                raise Problem(f"{folder} has no {name}: make the folder with scripts/gpu-bundle, or name another in "
                              "--programs")

    def left(self):
        """Seconds until the phase has to end."""
        return self.deadline - time.monotonic()

    def run(self, name, *arguments, faults=None, text=None):
        """Standard output of a program that must succeed."""
        code, out, err = self.start(name, arguments, faults, text)
        if code:
            raise Problem(f"{name} {arguments[0]}: {last_line(err) or f'it ended with {code}'}")
        return out

    def start(self, name, arguments, faults, text=None):
        environment = dict(self.environment)
        if faults:
            environment["LATLAS_FAULTS"] = faults
        seconds = self.left()
        if seconds <= 0:
            raise OutOfTime
        child = subprocess.Popen(
            [str(self.folder / name), *map(str, arguments)],
            stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
            start_new_session=True,
        )
        timed_out = False
        try:
            out, err = child.communicate(text, timeout=seconds)
        except subprocess.TimeoutExpired:
            timed_out = True
            # On Ctrl-C the agent ends its workers and then itself.
            os.kill(child.pid, signal.SIGINT)
            try:
                out, err = child.communicate(timeout=5)
            except subprocess.TimeoutExpired:
                child.kill()
                out, err = child.communicate()
        self.log.write(f"$ {name} {' '.join(map(str, arguments))[:500]}\n{err}\n")
        self.log.flush()
        if timed_out:
            raise OutOfTime
        return child.returncode, out, err

    def json(self, name, *arguments):
        return json.loads(self.run(name, *arguments))

    def latlas(self, *arguments):
        return self.run("latlas", *arguments)

    def bench(self, *arguments, faults=None):
        """Measurements of `latlas-agent bench`, including those of a run that reached the time limit."""
        out = self.scratch / "bench.ndjson"
        out.unlink(missing_ok=True)
        command = ["bench", "--device", self.device, "--out", out, *arguments]
        try:
            self.run("latlas-agent", *command, faults=faults)
        finally:
            # For the results' file, even if the phase fails.
            lines = out.read_text().splitlines() if out.is_file() else []
            self.measured = [json.loads(line) for line in lines]
            self.keep(self.measured)
        return self.measured

    def keep(self, measurements):
        """Overridden by collectors of measurements."""

    def bench_space(self, space, *arguments):
        """The same for a space: measurements by key."""
        return {key_of(m): m for m in self.bench("--space", space, *arguments)}

    def bench_keys(self, keys, *arguments, faults=None):
        """The same for op keys: measurements by key."""
        words = [word for key in keys for word in ("--key", key)]
        return {key_of(m): m for m in self.bench(*words, *arguments, faults=faults)}


def last_line(text):
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def key_of(measurement):
    """Its op key; None for a whole network."""
    return measurement["subject"].get("op", {}).get("key")


def point(measurement, distance=None):
    """The point of the curve at a reuse distance, by default the one that the row reports."""
    if distance is None:
        distance = measurement["run_config"]["reuse_distance_bytes"]
    for point in measurement["latency"]["curve"]:
        if point["reuse_distance_bytes"] == distance:
            return point
    raise Problem(f"{measurement['subject']} has no point at {distance} bytes")


def latency(point):
    """The cost of a call: the larger of the device's and the host's time."""
    return max(point["quiet_micros"], point.get("host_micros") or 0.0)


def interval(point):
    """The 95% interval of the cost of a call."""
    if (point.get("host_micros") or 0.0) > point["quiet_micros"]:
        return point["host_ci95_low_micros"], point["host_ci95_high_micros"]
    return point["ci95_low_micros"], point["ci95_high_micros"]
