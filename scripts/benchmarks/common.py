"""What the benchmarks share: Latlas' programs and figures."""

import http.client
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BIN = ROOT / "target/release"
SIXTY = ROOT / "scripts/benchmarks/sixty.yaml"


def run(*command):
    """Standard output of one of Latlas' programs."""
    done = subprocess.run([BIN / command[0], *command[1:]], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{command[0]} ended with {done.returncode}")
    return done.stdout


def measure(*arguments):
    """`latlas-agent bench`: measurements by op key, and the seconds it took."""
    start = time.monotonic()
    lines = run("latlas-agent", "bench", *arguments).splitlines()
    seconds = time.monotonic() - start
    measurements = {}
    for line in lines:
        measurement = json.loads(line)
        key = measurement["subject"]["op"]["key"]
        if measurement["latency"] is None:
            sys.exit(f"{key} could not be measured: {measurement['reason']}")
        measurements[key] = measurement
    return measurements, seconds


def point(measurement):
    """The curve's point that the row reports."""
    reference = measurement["run_config"]["reuse_distance_bytes"]
    (found,) = [
        point
        for point in measurement["latency"]["curve"]
        if point["reuse_distance_bytes"] == reference
    ]
    return found


class Coordinator:
    """A coordinator on a free port, with its data in a folder on the disk of the build: in a memory file system,
    waiting for the disk would cost nothing."""

    # Simulated values make no sense as canaries, and all simulated agents enrol with one token.
    FLAGS = ["--canary-every", "0", "--rate", "100000"]

    def __init__(self, data):
        self.data = Path(data)
        # Each agent has a connection or two.
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        self.start()

    def start(self):
        """Seconds from the start of the process until it is ready."""
        started = time.monotonic()
        self.process = subprocess.Popen(
            [BIN / "latlas-coordinator", "serve", *self.FLAGS, "--listen", "127.0.0.1:0", "--data", self.data],
            stdout=subprocess.PIPE,
            stderr=open(self.data.with_suffix(".log"), "a"),
            text=True,
        )
        line = self.process.stdout.readline()
        if not line:
            sys.exit("the coordinator did not start: " + self.log())
        self.url = line.split()[-1]
        while not self.is_ready():
            time.sleep(0.002)
        return time.monotonic() - started

    def is_ready(self):
        return self.call("/readyz")[0] == 200

    def get(self, path):
        """The answer of a route, which must be JSON."""
        status, body = self.call(path)
        assert status == 200, f"{path}: {status} {body[:200]}"
        return json.loads(body)

    def call(self, path):
        """Status and body of a GET."""
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=60)
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
        connection.close()
        return response.status, body

    def token(self, role):
        uses = ["--uses", "1000000"] if role == "enroll" else []
        return run("latlas-coordinator", "token", "create", "--role", role, *uses, "--data", self.data).strip()

    def simulate(self, *arguments):
        """The report of the simulated agents."""
        return json.loads(
            run(
                "simulated_farm",
                *map(str, arguments),
                *("--coordinator", self.url, "--enroll-token", self.token("enroll")),
            )
        )

    def most_memory(self):
        """Its peak memory, in MB."""
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024 / 1e6

    def log(self):
        return self.data.with_suffix(".log").read_text()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.terminate()
        if self.process.wait():
            sys.exit("the coordinator did not end as it should: " + self.log())


def disk_folder():
    """A temporary folder on the disk of the build."""
    return tempfile.TemporaryDirectory(prefix="bench-", dir=ROOT / "target")


def quantile(values, q):
    ordered = sorted(values)
    position = q * (len(ordered) - 1)
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


def median(values):
    return quantile(values, 0.5)


class Figures:
    """Collects figures and prints them at the end."""

    def __init__(self):
        self.lines = []
        self.short = False

    def at_most(self, name, value, bar, unit=""):
        self.add(name, value, f"<={bar:g}{unit}", value <= bar, unit)

    def at_least(self, name, value, bar, unit=""):
        self.add(name, value, f">={bar:g}{unit}", value >= bar, unit)

    def add(self, name, value, bar, holds, unit):
        self.short |= not holds
        self.lines.append(f"figure {name} {value:.4g}{unit} {bar} {'ok' if holds else 'short'}")

    def finish(self):
        print()
        for line in self.lines:
            print(line)
        sys.exit(1 if self.short else 0)
