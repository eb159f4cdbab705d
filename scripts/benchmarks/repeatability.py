"""Independent builds of one table, minutes apart, and the same for torch.utils.benchmark."""

import time

import common
import pytorch

BUILDS = 4
# Time between the starts of two builds, so that they do not share a quiet or a noisy minute.
APART_SECONDS = 100


def build():
    measurements, seconds = common.measure("--space", str(common.SIXTY))
    return {key: common.point(measurement) for key, measurement in measurements.items()}, seconds


class Pair:
    """The values of two builds, and how far they are apart beyond the shift that all keys have in common."""

    def __init__(self, first, second):
        self.ratios = {key: second[key] / first[key] for key in first}
        self.shift = common.median(list(self.ratios.values()))
        apart = [abs(ratio / self.shift - 1) for ratio in self.ratios.values()]
        self.median, self.p95 = 100 * common.median(apart), 100 * common.quantile(apart, 0.95)


def main():
    pytorch.torch.set_num_threads(1)
    tables, references = [], []
    for number in range(1, BUILDS + 1):
        start = time.monotonic()
        table, seconds = build()
        reference, reference_seconds = pytorch.autorange_all(table)
        tables.append(table)
        references.append(reference)
        print(f"build {number}: {len(table)} rows in {seconds:.0f} s, the reference in {reference_seconds:.0f} s")
        if number < BUILDS:
            time.sleep(max(0.0, APART_SECONDS - (time.monotonic() - start)))

    quiet = [{key: point["quiet_micros"] for key, point in table.items()} for table in tables]
    ours = [Pair(first, second) for first, second in zip(quiet, quiet[1:])]
    theirs = [Pair(first, second) for first, second in zip(references, references[1:])]
    inside = [
        [point["ci95_low_micros"] <= second[key] <= point["ci95_high_micros"] for key, point in first.items()]
        for first, second in zip(tables, quiet[1:])
    ]
    covered = [100 * sum(keys) / len(keys) for keys in inside]
    print(f"\n{'pair':<6} {'shift':>7} {'median':>8} {'p95':>8} {'inside':>8}   reference: {'median':>8} {'p95':>8}")
    for number, (pair, reference, share) in enumerate(zip(ours, theirs, covered), 1):
        print(
            f"{number:<6} {pair.shift - 1:>+7.1%} {pair.median:>7.2f}% {pair.p95:>7.2f}% {share:>7.1f}%"
            f"   {reference.median:>19.2f}% {reference.p95:>7.2f}%"
        )
    # The reference tells how quiet a pair was.
    quietest = min(range(len(ours)), key=lambda index: theirs[index].p95)
    pair = ours[quietest]
    print(f"\nkeys that differ most in the quietest pair, {quietest + 1}:")
    for key in sorted(pair.ratios, key=lambda key: -abs(pair.ratios[key] / pair.shift - 1))[:10]:
        print(f"{key:<48} {pair.ratios[key] / pair.shift:>7.3f}   reference {theirs[quietest].ratios[key]:.3f}")
    figures = common.Figures()
    figures.at_most("quietest_median", pair.median, 1.5, "%")
    figures.at_most("quietest_p95", pair.p95, 6, "%")
    figures.at_least("interval_covers_second", min(covered), 90, "%")
    worst = max(pair.p95 / reference.p95 for pair, reference in zip(ours, theirs))
    figures.at_most("p95_over_reference", worst, 0.5, "x")
    figures.finish()


if __name__ == "__main__":
    main()
