"""Wall time per key against torch.utils.benchmark, and how it grows with the number of keys."""

import common
import pytorch


def main():
    pytorch.torch.set_num_threads(1)
    keys = list(common.measure("--space", str(common.SIXTY))[0])
    ours, theirs = [], []
    # Alternating, so that both see the same state of the machine.
    for _ in range(3):
        _, seconds = common.measure("--space", str(common.SIXTY))
        ours.append(seconds / len(keys))
        _, seconds = pytorch.autorange_all(keys)
        theirs.append(seconds / len(keys))
        print(f"per key: latlas {ours[-1]:.3f} s, blocked_autorange {theirs[-1]:.3f} s")
    print("\ngrowth with the number of keys:")
    growth = {}
    for count in (15, 30, 60):
        arguments = [argument for key in keys[:: 60 // count] for argument in ("--key", key)]
        measurements, seconds = common.measure(*arguments)
        growth[count] = seconds
        peak = max(m["peak_memory_bytes"] for m in measurements.values()) >> 20
        print(f"  {count} keys: {seconds:.1f} s, {seconds / count:.3f} s per key, worker {peak} MiB")
    figures = common.Figures()
    figures.at_most("time_per_key_ratio", common.median(ours) / common.median(theirs), 0.5, "x")
    figures.at_most("growth_15_to_60_keys", growth[60] / growth[15], 5, "x")
    figures.finish()


if __name__ == "__main__":
    main()
