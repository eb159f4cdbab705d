"""Hot values against torch.utils.benchmark on the same ops and threads, interleaved."""

import common
import pytorch


def main():
    pytorch.torch.set_num_threads(1)
    keys = list(common.measure("--space", str(common.SIXTY))[0])
    hot = ("--reuse-distance", "0", "--allocator", "system")
    ratios = []
    print(f"{'key':<48} {'latlas':>10} {'torch':>10} {'ratio':>7}")
    # A few keys at a time, so that both see the same state of the machine.
    for start in range(0, len(keys), 6):
        group = keys[start : start + 6]
        before, _ = pytorch.autorange_all(group)
        measurements, _ = common.measure(*hot, *(a for key in group for a in ("--key", key)))
        after, _ = pytorch.autorange_all(group)
        for key in group:
            ours = common.point(measurements[key])["median_micros"]
            theirs = (before[key] + after[key]) / 2
            ratios.append(ours / theirs)
            print(f"{key:<48} {ours:>10.2f} {theirs:>10.2f} {ours / theirs:>7.3f}")
    spread = f"{common.quantile(ratios, 0.1):.3f} to {common.quantile(ratios, 0.9):.3f}"
    print(f"\n10th to 90th percentile of the ratios: {spread}")
    figures = common.Figures()
    figures.at_most("agreement_median_off", 100 * abs(common.median(ratios) - 1), 3, "%")
    figures.finish()


if __name__ == "__main__":
    main()
