"""Static quantization of a model to int8 by ONNX Runtime's tool, for latencies: calibrated on random inputs."""

import logging
from pathlib import Path

import numpy
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

# Random inputs that the scales of activations are computed from.
CALIBRATIONS = 4


class RandomInputs(CalibrationDataReader):
    """Normally distributed inputs."""

    def __init__(self, shape):
        random = numpy.random.default_rng(0)
        inputs = [random.standard_normal(shape, dtype=numpy.float32) for _ in range(CALIBRATIONS)]
        self.inputs = iter([{"input": values} for values in inputs])

    def get_next(self):
        return next(self.inputs, None)


def to_int8(path, shape, symmetric):
    """Quantizes the model at `path` with QDQ operators, and gives the path of the result, which is beside it.

    Activations are unsigned, the form that ONNX Runtime runs fastest on x86; with `symmetric` they are signed and have
    no zero point, as TensorRT demands.
    """
    prepared, result = (str(Path(path).with_suffix(suffix)) for suffix in (".prepared.onnx", ".int8.onnx"))
    # The tool advises on preprocessing that is done here.
    logging.getLogger().setLevel(logging.ERROR)
    quant_pre_process(path, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        result,
        RandomInputs(shape),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"ActivationSymmetric": symmetric, "WeightSymmetric": True},
    )
    return result
