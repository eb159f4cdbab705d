"""Two independent builds of one table, minutes apart, and the same for torch.utils.benchmark."""

import time

import common
import pytorch

# Time between the ends of two builds, so that they do not share a quiet or a noisy minute.
APART_SECONDS = 150


def apart(first, second):
    return [abs(second[key] / first[key] - 1) for key in first]


def build():
    measurements, seconds = common.measure("--space", str(common.SIXTY))
    return {key: common.point(measurement) for key, measurement in measurements.items()}, seconds


def main():
    pytorch.torch.set_num_threads(1)
    start = time.monotonic()
    first, seconds = build()
    print(f"first table: {len(first)} rows in {seconds:.0f} s")
    reference, reference_seconds = pytorch.autorange_all(first)
    print(f"first reference: {reference_seconds:.0f} s")
    time.sleep(max(0.0, APART_SECONDS - (time.monotonic() - start)))
    second, seconds = build()
    print(f"second table: {seconds:.0f} s")
    again, reference_seconds = pytorch.autorange_all(first)
    print(f"second reference: {reference_seconds:.0f} s")

    quiet = {key: point["quiet_micros"] for key, point in first.items()}
    quiet_again = {key: point["quiet_micros"] for key, point in second.items()}
    ours, theirs = apart(quiet, quiet_again), apart(reference, again)
    shift = common.median([quiet_again[key] / quiet[key] for key in quiet])
    covered = [
        first[key]["ci95_low_micros"] <= quiet_again[key] <= first[key]["ci95_high_micros"]
        for key in first
    ]
    print(f"\n{'key':<48} {'first':>10} {'second':>10} {'ratio':>7}   reference ratio")
    for key in sorted(quiet, key=lambda key: -abs(quiet_again[key] / quiet[key] - 1)):
        print(
            f"{key:<48} {quiet[key]:>10.2f} {quiet_again[key]:>10.2f} "
            f"{quiet_again[key] / quiet[key]:>7.3f}   {again[key] / reference[key]:.3f}"
        )
    print(f"\ncommon shift of the second table: {shift - 1:+.1%}")
    print(
        f"torch.utils.benchmark, blocked_autorange: median {common.median(theirs):.1%}, "
        f"95th percentile {common.quantile(theirs, 0.95):.1%}"
    )
    figures = common.Figures()
    figures.at_most("repeatability_median", 100 * common.median(ours), 2, "%")
    figures.at_most("repeatability_p95", 100 * common.quantile(ours, 0.95), 6, "%")
    figures.at_least("interval_covers_second", 100 * sum(covered) / len(covered), 90, "%")
    figures.finish()


if __name__ == "__main__":
    main()
