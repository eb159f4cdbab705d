"""Builds the programs of a bundle for a version of torch, and prints their folder."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bindings  # noqa: E402
import libtorch  # noqa: E402


def main():
    version = sys.argv[1]
    os.environ.update(CARGO_PROFILE_RELEASE_DEBUG="false", CARGO_PROFILE_RELEASE_STRIP="true")
    build = bindings.Build(libtorch.from_cache("cpu", version), version)
    build.prepare()
    build.cargo(
        "build", "--release", "--locked", "--package", "latlas_agent", "--package", "latlas_cli", "--bins"
    )  # fmt: skip
    print(build.target / "release")


if __name__ == "__main__":
    try:
        main()
    except (libtorch.Problem, OSError) as problem:
        sys.exit(f"gpu-bundle: {problem}")
