"""Requests made up from the OpenAPI document, by callers of each role: answers are what the document says."""

import json
import os
import random
import subprocess
import sys
import venv
from pathlib import Path

import common

SCHEMATHESIS = "4.32.5"
# The most requests for each operation, phase and role.
EXAMPLES = 20
CHECKS = [
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
]
SPACE = """
name: few
grids:
  - {ops: [Conv1x1], resolution: [4], c_in: [4], c_out: [4, 8], stride: [1]}
"""


def schemathesis():
    """The program, in a virtual environment below target/, which is created if it is missing."""
    home = common.ROOT / f"target/schemathesis-{SCHEMATHESIS}"
    if not (home / "bin/schemathesis").exists():
        venv.create(home, with_pip=True)
        install = [home / "bin/pip", "install", "--quiet", f"schemathesis=={SCHEMATHESIS}"]
        subprocess.run(install, check=True)
    return home / "bin/schemathesis"


def tokens(coordinator, folder):
    """One token of each role. The farm then has a box and a table."""
    held = {role: coordinator.token(role) for role in ("enroll", "researcher", "admin")}
    address = {"LATLAS_COORDINATOR": coordinator.url}

    def run(*command, **variables):
        command = [common.BIN / command[0], *command[1:]]
        done = subprocess.run(command, env={**os.environ, **address, **variables}, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{command[0]} ended with {done.returncode}: {done.stderr}")

    agent = ["latlas-agent", "run", "--once", "--busy-limit", "100", "--state", folder / "box"]
    run(*agent, LATLAS_ENROLL_TOKEN=held["enroll"])
    hardware_id = json.loads(common.run("latlas-agent", "probe", "--json"))["hardware_id"]
    space = folder / "few.yaml"
    space.write_text(SPACE)
    run("latlas", "profile", "--hardware", hardware_id, "--space", space, LATLAS_TOKEN=held["researcher"])
    run(*agent)
    held["agent"] = json.loads((folder / "box/identity.json").read_text())["credential"]
    return held


def test(program, coordinator, role, token, seed, folder):
    """The number of requests made as one caller, and the number of wrong answers."""
    report = folder / f"{role}.json"
    command = [program, "run", f"{coordinator.url}/openapi.json", "--no-color", "--continue-on-failure"]
    command += ["--checks", ",".join(CHECKS), "--max-examples", EXAMPLES, "--seed", seed, "--warnings", "off"]
    command += ["--report", "json", "--report-json-path", report]
    # A long poll lasts half a minute, and a stream as long as its request.
    command += ["--request-timeout", 60, "--exclude-path-regex", "/events$"]
    if token:
        command += ["--header", f"Authorization: Bearer {token}"]
    # The tool stores its findings in its working directory.
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder)
    if not report.exists():
        sys.exit(f"schemathesis ended with {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}")
    counts = json.loads(report.read_text())["test_cases"]
    wrong = counts["with_failures"] + counts["errored"]
    print(f"{role}: {counts['generated']} requests, {wrong} answered wrongly", flush=True)
    if wrong or done.returncode:
        print(done.stdout)
    return counts["generated"], max(wrong, int(done.returncode != 0))


def main():
    program = schemathesis()
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    with common.disk_folder() as folder:
        folder = Path(folder)
        coordinator = common.Coordinator(folder / "data")
        held = tokens(coordinator, folder)
        # An admin comes last, since one may revoke the tokens of the others and its own.
        roles = ["nobody", "enroll", "researcher", "agent", "admin"]
        counts = [test(program, coordinator, role, held.get(role), seed, folder) for role in roles]
        coordinator.stop()
    figures = common.Figures()
    figures.at_least("requests", sum(requests for requests, _ in counts), 1000)
    figures.at_most("wrong_answers", sum(wrong for _, wrong in counts), 0)
    figures.finish()


if __name__ == "__main__":
    main()
