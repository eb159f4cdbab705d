"""A worker of latlas-agent for ONNX Runtime on a processor, in f32 and int8: docs/runtimes.md.

It needs onnxruntime and numpy, and for int8 onnx.
"""

import platform

import numpy
import onnxruntime

import latlas_worker
from latlas_worker import Refused

PROVIDER = "CPUExecutionProvider"


class Session(latlas_worker.Model):
    """A model with a random input."""

    def __init__(self, path, options):
        self.session = onnxruntime.InferenceSession(path, options, providers=[PROVIDER])
        shape, output = self.session.get_inputs()[0].shape, self.session.get_outputs()[0].shape
        self.values = numpy.random.default_rng(0).standard_normal(shape, dtype=numpy.float32)
        # The fastest way to call a session from Python. The input shares its memory with the array.
        self.binding = self.session.io_binding()
        self.binding.bind_ortvalue_input("input", onnxruntime.OrtValue.ortvalue_from_numpy(self.values))
        self.output = onnxruntime.OrtValue.ortvalue_from_shape_and_type(output, numpy.float32)
        self.binding.bind_ortvalue_output("output", self.output)
        self.call()
        if not numpy.isfinite(self.output.numpy()).all():
            raise Refused("its output has values that are not finite")

    def produce(self):
        numpy.negative(self.values, out=self.values)

    def call(self):
        self.session.run_with_iobinding(self.binding)


class OnnxRuntime(latlas_worker.Runtime):
    name = "onnxruntime"
    version = onnxruntime.__version__
    devices = ("cpu",)
    dtypes = ("f32", "int8")

    def facts(self):
        return {"providers": PROVIDER, "python": platform.python_version(), "numpy": numpy.__version__}

    def start(self, device, dtype, threads):
        self.dtype = dtype
        self.options = onnxruntime.SessionOptions()
        self.options.intra_op_num_threads = threads
        self.options.inter_op_num_threads = 1
        # Of sessions of the quantizer too.
        onnxruntime.set_default_logger_severity(3)
        if dtype == "int8":
            # Without it, int8 is refused before anything is measured.
            import quantize  # noqa: F401, PLC0415

    def prepare(self, path):
        if self.dtype == "int8":
            from quantize import to_int8  # noqa: PLC0415

            shape = onnxruntime.InferenceSession(path, self.options).get_inputs()[0].shape
            path = to_int8(path, shape, symmetric=False)
        return Session(path, self.options)

    def evict(self, size):
        self.memory.read(size)


if __name__ == "__main__":
    latlas_worker.serve(OnnxRuntime())
