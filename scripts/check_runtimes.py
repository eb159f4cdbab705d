"""Measures with the shipped worker of ONNX Runtime, in f32 and int8: the agent, the graphs and the worker together.

    check_runtimes.py LATLAS_AGENT

The Python that runs it needs onnx, onnxruntime and numpy. No latency is judged, only that there are some.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

WORKER = Path(__file__).resolve().parent.parent / "runtimes" / "onnxruntime_worker.py"
KEYS = [
    "Conv3x3:n1-h8-w8-i8-o8-s1",
    "MBConv3_3x3_SE:n1-h8-w8-i8-o8-s2",
    "TransformerEncoder:n1-h17-w1-i64-o64-s1",
]
NETWORK = "demo_mobile"


def measurements(agent, dtype, folder):
    """The measurements of a run."""
    runtimes = Path(folder) / "runtimes.toml"
    command = json.dumps([sys.executable, str(WORKER)])
    runtimes.write_text(f"[runtime.onnxruntime]\ncommand = {command}\n", encoding="utf-8")
    arguments = [agent, "bench", "--runtime", "onnxruntime", "--dtype", dtype, "--network", NETWORK]
    for key in KEYS:
        arguments += ["--key", key]
    environment = {**os.environ, "LATLAS_RUNTIMES": str(runtimes), "XDG_STATE_HOME": folder}
    ran = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(ran.stderr)
    return [json.loads(line) for line in ran.stdout.splitlines()]


def problems(dtype, rows):
    """What is wrong with the measurements."""
    if len(rows) != len(KEYS) + 1:
        yield f"{len(rows)} rows instead of {len(KEYS) + 1}"
    for row in rows:
        config = row["run_config"]
        if (config["runtime"], config["dtype"]) != ("onnxruntime", dtype):
            yield f"the run config is {config}"
        if row["latency"] is None:
            yield f"{row['subject']}: {row['reason']}"
        elif not all(point["quiet_micros"] > 0 for point in row["latency"]["curve"]):
            yield f"{row['subject']}: a latency is not positive"


def main(agent):
    failed = 0
    for dtype in ("f32", "int8"):
        with tempfile.TemporaryDirectory() as folder:
            try:
                found = list(problems(dtype, measurements(agent, dtype, folder)))
            except RuntimeError as error:
                found = [str(error)]
        failed += bool(found)
        for problem in found:
            print(f"{dtype}: {problem}")
    print(f"test result: {'FAILED' if failed else 'ok'}. {2 - failed} passed; {failed} failed; 0 ignored")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
