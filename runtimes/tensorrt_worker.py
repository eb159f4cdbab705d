"""A worker of latlas-agent for TensorRT 8.6 and 10, in f32, f16 and int8: docs/runtimes.md.

It was never run: it is written to NVIDIA's documentation of TensorRT's Python API. It needs tensorrt, cuda-python and
numpy, and for int8 onnx and onnxruntime, which quantize.
"""

import time

import numpy
import tensorrt

try:
    from cuda.bindings import runtime as cudart
except ImportError:  # Older releases of cuda-python.
    from cuda import cudart

import latlas_worker
from latlas_worker import Refused

LOGGER = tensorrt.Logger(tensorrt.Logger.WARNING)
# Bytes that are overwritten to clear the GPU's cache: more than the cache of any GPU.
LARGEST_CACHE = 256 << 20


def checked(result):
    """The values of a call of the CUDA runtime."""
    error, *values = result
    if error != cudart.cudaError_t.cudaSuccess:
        _, words = cudart.cudaGetErrorString(error)
        raise Refused(f"CUDA: {words.decode()}")
    return values[0] if len(values) == 1 else values


class Engine(latlas_worker.Model):
    """An engine with a random input on the GPU."""

    def __init__(self, plan, stream):
        self.stream, self.buffers = stream, {}
        runtime = tensorrt.Runtime(LOGGER)
        self.engine = runtime.deserialize_cuda_engine(plan)
        if self.engine is None:
            raise Refused("TensorRT cannot load the engine that it built; its log says why")
        self.context = self.engine.create_execution_context()
        shapes = {name: tuple(self.engine.get_tensor_shape(name)) for name in ("input", "output")}
        for name, shape in shapes.items():
            if self.engine.get_tensor_dtype(name) != tensorrt.float32:
                raise Refused(f"the engine's `{name}` is not float32")
            size = 4 * int(numpy.prod(shape))
            self.buffers[name] = (checked(cudart.cudaMalloc(size)), size)
            self.context.set_tensor_address(name, int(self.buffers[name][0]))
        values = numpy.random.default_rng(0).standard_normal(shapes["input"], dtype=numpy.float32)
        self.values = numpy.ascontiguousarray(values)
        self.upload()
        self.begin, self.end = checked(cudart.cudaEventCreate()), checked(cudart.cudaEventCreate())
        self.call()
        output = numpy.empty(shapes["output"], dtype=numpy.float32)
        kind = cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        address, size = self.buffers["output"]
        checked(cudart.cudaMemcpyAsync(output.ctypes.data, address, size, kind, stream))
        self.wait()
        if not numpy.isfinite(output).all():
            raise Refused("its output has values that are not finite")

    def upload(self):
        address, size = self.buffers["input"]
        kind = cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        checked(cudart.cudaMemcpyAsync(address, self.values.ctypes.data, size, kind, self.stream))

    def produce(self):
        numpy.negative(self.values, out=self.values)
        self.upload()
        self.wait()

    def call(self):
        if not self.context.execute_async_v3(int(self.stream)):
            raise Refused("TensorRT could not issue the call; its log says why")

    def timed_call(self):
        checked(cudart.cudaEventRecord(self.begin, self.stream))
        start = time.perf_counter_ns()
        self.call()
        issuing = time.perf_counter_ns() - start
        checked(cudart.cudaEventRecord(self.end, self.stream))
        self.wait()
        return 1e3 * checked(cudart.cudaEventElapsedTime(self.begin, self.end)), issuing / 1e3

    def wait(self):
        checked(cudart.cudaStreamSynchronize(self.stream))

    def __del__(self):
        for address, _ in self.buffers.values():
            cudart.cudaFree(address)


class TensorRt(latlas_worker.Runtime):
    name = "tensorrt"
    version = tensorrt.__version__
    devices = ("cuda",)
    dtypes = ("f32", "f16", "int8")

    def start(self, device, dtype, threads):
        self.dtype = dtype
        index = int(device.partition(":")[2] or 0)
        checked(cudart.cudaSetDevice(index))
        self.stream = checked(cudart.cudaStreamCreate())
        self.cache = checked(cudart.cudaMalloc(LARGEST_CACHE))

    def prepare(self, path):
        if self.dtype == "int8":
            import onnxruntime  # noqa: PLC0415
            from quantize import to_int8  # noqa: PLC0415

            shape = onnxruntime.InferenceSession(path).get_inputs()[0].shape
            path = to_int8(path, shape, symmetric=True)
        builder = tensorrt.Builder(LOGGER)
        # Since TensorRT 10 every network is explicit, and the flag means nothing.
        explicit = 1 << int(tensorrt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        network = builder.create_network(explicit)
        parser = tensorrt.OnnxParser(network, LOGGER)
        # It also finds weights in a second file.
        if not parser.parse_from_file(path):
            errors = "; ".join(str(parser.get_error(index)) for index in range(parser.num_errors))
            raise Refused(f"TensorRT cannot read the graph: {errors}")
        config = builder.create_builder_config()
        config.set_memory_pool_limit(tensorrt.MemoryPoolType.WORKSPACE, 1 << 30)
        if self.dtype in ("f16", "int8"):
            config.set_flag(tensorrt.BuilderFlag.FP16)
        if self.dtype == "int8":
            config.set_flag(tensorrt.BuilderFlag.INT8)
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            raise Refused("TensorRT cannot build an engine of the graph; its log says why")
        return Engine(plan, self.stream)

    def evict(self, size):
        # Writing fills the GPU's cache as reading does, and needs no kernel.
        checked(cudart.cudaMemsetAsync(self.cache, 0, min(size, LARGEST_CACHE), self.stream))
        checked(cudart.cudaStreamSynchronize(self.stream))


if __name__ == "__main__":
    latlas_worker.serve(TensorRt())
