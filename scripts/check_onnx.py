"""Checks exported ONNX files: they are valid, and ONNX Runtime computes what libtorch computes.

    check_onnx.py FOLDER

The folder comes from `cargo run -p latlas_lowering --example onnx_cases -- FOLDER`. Outputs may differ by 1e-4 of the
largest one. It needs onnx, onnxruntime and numpy.
"""

import json
import sys
from pathlib import Path

import numpy
import onnx
import onnxruntime

TOLERANCE = 1e-4


def difference(folder):
    """The largest difference of the outputs of a case, as a share of the largest output."""
    path = str(Path(folder) / "model.onnx")
    onnx.checker.check_model(path, full_check=True)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given, wanted = numpy.load(f"{folder}/input.npy"), numpy.load(f"{folder}/output.npy")
    (found,) = session.run(["output"], {"input": given})
    if found.shape != wanted.shape:
        raise ValueError(f"the output has the shape {found.shape}, and not {wanted.shape}")
    if not (numpy.isfinite(found).all() and numpy.isfinite(wanted).all()):
        raise ValueError("an output is not finite")
    worst = float(numpy.abs(found - wanted).max())
    largest = float(numpy.abs(wanted).max())
    return worst / largest if largest > 0 else worst


def main(folder):
    cases = json.loads((Path(folder) / "cases.json").read_text(encoding="utf-8"))
    failed, worst = 0, 0.0
    for case in cases:
        try:
            share = difference(case["folder"])
        except Exception as error:  # noqa: BLE001: each failure is reported, whatever it is
            failed += 1
            print(f"{case['name']}: {type(error).__name__}: {error}")
            continue
        worst = max(worst, share)
        if share > TOLERANCE:
            failed += 1
            print(f"{case['name']}: differs by {share:.2e} of the largest output")
    if not cases:
        sys.exit("there are no cases")
    print(f"onnxruntime {onnxruntime.__version__}: the largest difference is {worst:.1e}")
    result = "FAILED" if failed else "ok"
    print(f"test result: {result}. {len(cases) - failed} passed; {failed} failed; 0 ignored")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
