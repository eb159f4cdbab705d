"""Computations of gpu-check on its measurements: pure functions."""

import copy

# An op counts as host-bound from this share of the device's time on, as in Latlas.
HOST_BOUND_SHARE = 0.9


def integral(samples):
    """The integral of a rate over its samples, (second, value) each, by trapezoids; 0 for fewer than two."""
    pairs = zip(samples, samples[1:])
    return sum((t1 - t0) * (v0 + v1) / 2 for (t0, v0), (t1, v1) in pairs)


def off(value, truth):
    """The deviation of a value from the truth, in percent."""
    return 100 * abs(value / truth - 1)


def calls_of_block(micros_of_one, block_micros, most=20000):
    """The number of calls that make a block of at least this many microseconds."""
    return max(1, min(most, round(block_micros / max(micros_of_one, 1e-3) + 0.5)))


def per_call(elapsed_ms, calls):
    """Microseconds of one call, from the two events around a block of calls."""
    return 1e3 * elapsed_ms / calls


def host_bound(host_micros, device_micros):
    return host_micros is not None and host_micros >= HOST_BOUND_SHARE * device_micros


def clocks_of(ops):
    """Host and device microseconds of a network, each as a sum over its predicted ops. The larger one is the bound."""
    host = sum(op.get("host_micros") or 0.0 for op in ops)
    device = sum(op.get("device_micros", op["latency_micros"]) for op in ops)
    return host, device


def device_share(networks):
    """Percent of the measured time of networks that belongs to device-bound ones; each is (measured, host, device)."""
    total = sum(measured for measured, _, _ in networks)
    by_device = sum(measured for measured, host, device in networks if device > host)
    return 100 * by_device / total if total else 0.0


def network_with_batch(spec, batch):
    """The same network for another batch, with the batch in its name."""
    spec = copy.deepcopy(spec)
    spec.pop("published", None)
    spec["input"]["n"] = batch
    if batch != 1:
        spec["name"] += f"-n{batch}"
    return spec


def spread(items, count):
    """This many of some items, evenly spread over all of them."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def plan(phases, minutes):
    """When each phase has to end, in seconds from the start; `phases` are (name, share) each. Unused time of a phase
    goes to the next ones."""
    total = sum(share for _, share in phases)
    ends, share_so_far = {}, 0.0
    for name, share in phases:
        share_so_far += share
        ends[name] = 60 * minutes * share_so_far / total
    return ends


def fitting(wanted, least, seconds_each, seconds_left):
    """How many of the wanted pieces of work fit into the remaining time, but at least the minimum."""
    return max(least, min(wanted, int(seconds_left / max(seconds_each, 1e-9))))
