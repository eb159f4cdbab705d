"""The same ops in PyTorch, timed by CUDA events. On a processor, which has none, they are timed by its clock.

It runs in a separate process, which frees the GPU for the agent when it ends.
"""

import functools
import json
import time

import arithmetic
import common
import pytorch

torch = pytorch.torch

# The approximate duration of a block of calls: events and waiting are a small part of it.
BLOCK_MICROS = 3000
# The most calls of a block on a GPU: the queue of launches takes about a thousand.
MOST_CALLS = 32
BLOCKS = 15
# The device is kept busy for this multiple of the host's time to issue a block.
MARGIN = 1.5


def time_ops(programs, keys):
    """Prints the time of each op, one JSON object per line."""
    # The definitions are those that `latlas` reports.
    pytorch.run = programs.run
    device = programs.device
    torch.set_default_device(device)
    torch.set_num_threads(1)
    torch.backends.cudnn.benchmark = False
    for key in keys:
        print(json.dumps(dict(time_op(key, device != "cpu"), key=key)), flush=True)


def events(op, x, calls, busy_cycles=0):
    """Microseconds of one call on the device, from two events around the given number of calls. Before, the device is
    kept busy for the given number of its cycles, while the host issues the calls."""
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    if busy_cycles:
        torch.cuda._sleep(busy_cycles)
    op(x)
    op(x)
    start.record()
    for _ in range(calls):
        op(x)
    end.record()
    end.synchronize()
    return arithmetic.per_call(start.elapsed_time(end), calls)


def cycles_while_issuing(op, x, calls):
    """The number of cycles for which the device must be busy, so that the host can issue the given number of calls
    meanwhile."""
    cycles = 10_000_000
    micros = events(lambda _: torch.cuda._sleep(cycles), None, 1)
    torch.cuda.synchronize()
    issuing = clock(op, x, calls)
    torch.cuda.synchronize()
    return round(MARGIN * issuing * (calls + 2) * cycles / micros)


def clock(op, x, calls):
    """The same by the host's clock, for a device whose calls are synchronous."""
    start = time.perf_counter()
    for _ in range(calls):
        op(x)
    return (time.perf_counter() - start) * 1e6 / calls


def replayed(op, x, calls=20):
    """Microseconds of one call in a replayed CUDA graph, where no call waits for the host; None if the op cannot be
    captured."""
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            op(x)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for _ in range(calls):
                op(x)
        values = [events(lambda _: graph.replay(), None, 10) / calls for _ in range(5)]
        return common.median(values)
    except RuntimeError:
        return None


def time_op(key, on_gpu):
    """For one op: microseconds on the device from blocks of calls that need not wait for the host, microseconds in a
    replayed graph, and its peak memory, in bytes."""
    with torch.inference_mode():
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        reference = pytorch.Reference(key)
        op, x = reference.op, reference.input
        if on_gpu:
            calls = arithmetic.calls_of_block(events(op, x, 3), BLOCK_MICROS, MOST_CALLS)
            measure = functools.partial(events, busy_cycles=cycles_while_issuing(op, x, calls))
        else:
            calls = arithmetic.calls_of_block(clock(op, x, 3), BLOCK_MICROS)
            measure = clock
        # The first block brings clocks and caches to their steady state.
        values = [measure(op, x, calls) for _ in range(BLOCKS + 1)][1:]
        in_graph = replayed(op, x) if on_gpu else None
        peak = torch.cuda.max_memory_allocated() if on_gpu else None
    return {"micros": common.median(values), "in_graph_micros": in_graph, "peak_bytes": peak}
