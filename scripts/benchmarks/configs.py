"""Accuracy under run configs that stand in for other processors: nothing in the code knows them apart."""

import random
import tempfile
from pathlib import Path

import common
from accuracy import accuracy, bench, keys_of, line, network_micros, pooled

# Other kernels, sizes of elements, caches and costs of memory than the usual run config has.
CONFIGS = {
    "threads-2": ["--threads", "2"],
    "channels_last": ["--memory-format", "channels_last"],
    "bf16": ["--dtype", "bf16"],
    "allocator-system": ["--allocator", "system"],
}
NETWORKS = 24


def one_config(folder, name, options, arch):
    """What a table of this run config says of itself, and how far the same networks are apart when measured again."""
    keys = [word for key in keys_of("--arch", str(arch)) for word in ("--key", key)]
    print(f"\n{name}: {NETWORKS} random networks, {len(keys) // 2} rows")
    first = bench(folder / f"{name}.ndjson", *options, *keys, "--arch", str(arch))
    truth = network_micros(first)
    again = bench(folder / "again.ndjson", *options, "--arch", str(arch))
    later = network_micros(again)
    floor = [abs(later[network] / truth[network] - 1) for network in truth if network in later]
    found = accuracy(folder, f"table-{name}", pooled(first, again))
    line("the rows alone", found["overall"])
    (five,) = [entry["summary"] for entry in found["calibrated"] if entry["fitted_on"] == 5]
    line("calibrated on 5, judged on the rest", five)
    print(
        f"  half widths: {100 * found['overall']['half_width']:.1f}% and {100 * five['half_width']:.1f}%; "
        f"measured again: MAPE {100 * sum(floor) / len(floor):.1f}%"
    )
    return found["overall"], five, floor


def mean(summaries, figure):
    return 100 * sum(summary[figure] for summary in summaries) / len(summaries)


def main():
    folder = Path(tempfile.mkdtemp())
    seed = random.SystemRandom().randrange(1 << 32)
    arch = folder / "drawn.ndjson"
    arch.write_text(
        common.run("latlas", "networks", "draw", "--family", "mobilenet", "--count", str(NETWORKS), "--seed", str(seed))
    )
    print(f"seed {seed}")
    found = [one_config(folder, name, options, arch) for name, options in CONFIGS.items()]
    alone, five = ([one[place] for one in found] for place in (0, 1))
    floor = [error for one in found for error in one[2]]
    again = 100 * sum(floor) / len(floor)
    print(f"\nall run configs: measured again MAPE {again:.2f}%")
    figures = common.Figures()
    figures.at_most("calibrated_5_outside_10", 100 - mean(five, "within_10"), 3, "%")
    figures.at_most("calibrated_5_mape", mean(five, "mape"), round(max(3, 1.2 * again), 2), "%")
    figures.at_least("rows_alone_within_10", mean(alone, "within_10"), 95, "%")
    figures.at_most("rows_alone_mape", mean(alone, "mape"), round(max(4, 1.5 * again), 2), "%")
    for name, summaries, widest in [("calibrated_5", five, 8), ("rows_alone", alone, 12)]:
        figures.at_least(f"{name}_covered", mean(summaries, "covered"), 90, "%")
        figures.at_most(f"{name}_half_width", mean(summaries, "half_width"), widest, "%")
    figures.finish()


if __name__ == "__main__":
    main()
