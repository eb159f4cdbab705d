"""The agent built and tested for other versions of libtorch, and a small space measured with each."""

import json
import re
import subprocess
import sys

import common

sys.path.insert(0, str(common.ROOT / "scripts"))

import bindings  # noqa: E402
import libtorch  # noqa: E402

# The torch of JetPack 5.1, 6.1, and of 6 today; that of gpu-bundle; and that of Cargo.lock.
VERSIONS = ("2.1.2", "2.5.1", "2.8.0", "2.11.0", libtorch.VERSION)
SPACE = "quick"


def tests(build):
    """Passed and failed tests of the agent and of what it runs ops with."""
    done = subprocess.run(
        ["cargo", "test", "--locked", "--no-fail-fast", "-p", "latlas_agent", "-p", "latlas_lowering", *build.options],
        cwd=build.copy, env=build.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    counts = re.findall(r"^test result: \w+\. (\d+) passed; (\d+) failed", done.stdout, re.MULTILINE)
    passed, failed = (sum(int(count[place]) for count in counts) for place in (0, 1))
    if done.returncode:
        print(done.stdout[-4000:])
    return passed, max(failed, int(done.returncode != 0))


def rows(build):
    """Measured rows of a small space, how many there should be, and the version that they name."""
    agent = build.target / "debug/latlas-agent"
    if not agent.is_file():
        return 0, 0, set()
    done = subprocess.run([agent, "bench", "--space", SPACE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    measurements = [json.loads(line) for line in done.stdout.splitlines()]
    versions = {m["run_config"]["runtime_version"] for m in measurements}
    return sum(m["latency"] is not None for m in measurements), len(measurements), versions


def main():
    figures = common.Figures()
    print(f"{'torch':<8} {'tch':<8} {'cut':>4} {'tests':>6} {'failed':>6} {'rows':>5}")
    for version in VERSIONS:
        build = bindings.Build(libtorch.from_cache("cpu", version), version)
        build.prepare()
        cut = build.home / "torch-sys" / bindings.REMOVED
        without = len(cut.read_text().splitlines()) if cut.is_file() else 0
        passed, failed = tests(build)
        measured, asked, versions = rows(build)
        print(f"{version:<8} {build.tch:<8} {without:>4} {passed:>6} {failed:>6} {measured:>5}", flush=True)
        figures.at_most(f"torch_{version}_tests_failed", failed, 0)
        figures.at_least(f"torch_{version}_tests_passed", passed, 100)
        figures.at_least(f"torch_{version}_rows", 100 * measured / max(asked, 1), 100, "%")
        named = versions == {version}
        figures.add(f"torch_{version}_is_named_by_rows", float(named), "=1", named, "")
    figures.finish()


if __name__ == "__main__":
    main()
