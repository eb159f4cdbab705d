"""The protocol between latlas-agent and the command of a runtime: docs/runtimes.md.

A worker is a class with the methods of `Runtime`. `serve` reads requests and writes replies. It needs numpy alone.
"""

import json
import os
import resource
import sys
import time

import numpy

PROTOCOL = 1


class Refused(Exception):
    """A request that can't be met: the row is `failed` with this reason."""


class Runtime:
    """What a worker implements."""

    # Names of the runtime and of its version; devices without their number; element types.
    name = version = ""
    devices = dtypes = ()
    can_evict = True

    def facts(self):
        """What else changes latencies, for the fingerprint of the box."""
        return {}

    def start(self, device, dtype, threads):
        """Called once. `device` is `cpu` or `cuda:N`."""
        raise NotImplementedError

    def prepare(self, path):
        """A model that is ready to be called: an object with the methods of `Model`."""
        raise NotImplementedError

    def evict(self, size):
        """Reads `size` bytes of other memory, so that the model's weights leave the caches."""
        raise NotImplementedError


class Model:
    """A model with a random input."""

    def produce(self):
        """Writes the input anew, as the op before it would do."""

    def call(self):
        """Makes one call."""
        raise NotImplementedError

    def timed_call(self):
        """Makes one call; its time in microseconds, and the host's time where that is another one."""
        start = time.perf_counter_ns()
        self.call()
        return (time.perf_counter_ns() - start) / 1e3, None

    def wait(self):
        """Waits for calls that were only issued."""


class Memory:
    """Memory that is read to evict other data from the caches of a processor."""

    def __init__(self, size):
        # Written once, so that its pages exist.
        self.words = numpy.ones(max(size // 8, 1), dtype=numpy.int64)

    def read(self, size):
        # One word of each cache line.
        return int(self.words[: size // 8 : 8].sum())


def preemptions():
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def sample(runtime, model, count, distance):
    """The reply to `sample`."""
    micros, host, preempted, reading = [], [], [], 0
    for _ in range(count):
        if distance > 0:
            start = time.perf_counter_ns()
            runtime.evict(distance)
            reading += time.perf_counter_ns() - start
        model.produce()
        # Inside a network, the code that calls an op is in the caches, whatever the op's weights are.
        runtime.smallest.call()
        runtime.smallest.wait()
        before = preemptions()
        latency, issuing = model.timed_call()
        preempted.append(preemptions() != before)
        micros.append(latency)
        if issuing is not None:
            host.append(issuing)
    return {"micros": micros, "host_micros": host, "preempted": preempted, "reading_micros": reading / 1e3}


def run(model, seconds):
    """The reply to `run`."""
    model.produce()
    model.wait()
    start, calls, block = time.monotonic(), 0, 1
    began = start
    while True:
        for _ in range(block):
            model.call()
        model.wait()
        calls += block
        end = time.monotonic()
        if end - start >= seconds:
            return {"calls": calls, "start": start, "end": end}
        # Blocks of about 20 ms: the clock is read seldom, and the end is not missed by much.
        if end - began < 0.01:
            block = min(2 * block, 512)
        began = end


def answer(runtime, models, request):
    ((kind, given),) = request.items()
    if kind == "start":
        runtime.start(given["device"], given["dtype"], given["threads"])
        if runtime.can_evict:
            runtime.memory = Memory(given["largest_reuse_distance_bytes"])
        runtime.smallest = runtime.prepare(given["smallest"])
        return {"started": {}}
    if kind == "prepare":
        models[given["id"]] = runtime.prepare(given["model"])
        return {"prepared": {}}
    if kind == "sample":
        model = models[given["id"]]
        return {"sampled": sample(runtime, model, given["samples"], given["reuse_distance_bytes"])}
    if kind == "run":
        return {"ran": run(models[given["id"]], given["seconds"])}
    if kind == "drop":
        del models[given["id"]]
        return {"dropped": {}}
    raise Refused(f"this worker knows no request `{kind}`: it speaks protocol {PROTOCOL}")


def serve(runtime):
    """Answers requests until standard input ends."""
    # What a library prints must not get between the replies.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(reply):
        replies.write(json.dumps(reply) + "\n")
        replies.flush()

    say({
        "hello": {
            "protocol": PROTOCOL,
            "runtime": runtime.name,
            "version": runtime.version,
            "devices": list(runtime.devices),
            "dtypes": list(runtime.dtypes),
            "can_evict": runtime.can_evict,
            "facts": runtime.facts(),
        }
    })  # fmt: skip
    models = {}
    for line in sys.stdin:
        try:
            say(answer(runtime, models, json.loads(line)))
        except Refused as refused:
            say({"refused": {"reason": str(refused)}})
        except Exception as error:  # noqa: BLE001: each failure is the failure of one row
            say({"refused": {"reason": f"{type(error).__name__}: {error}"}})
