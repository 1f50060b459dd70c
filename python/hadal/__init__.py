"""hadal: DeepSeek-V3's kernels and an engine for its family on any Vulkan device, with NumPy arrays in and out.

    with hadal.Context() as gpu:                       # kernels
        codes, scales = gpu.fp8_quantize(x)
        y = gpu.fp8_gemm(codes, scales, weight, weight_scales)

    with hadal.Engine("path/to/checkpoint") as engine: # text
        print(engine.generate("Once upon a time").text)
"""

from ._native import (Cancelled, DeviceLost, Error, FileError, InvalidArgument, NoDevice, OutOfMemory, Unsupported,
                      kernels as _kernels)
from .devices import Device, devices
from .engine import Engine, Generation, Token
from .kernels import Context
from .text import Tokenizer

_version = _kernels.hadal_version()
__version__ = f"{_version >> 22 & 0x7f}.{_version >> 12 & 0x3ff}.{_version & 0xfff}"

__all__ = ["Cancelled", "Context", "Device", "DeviceLost", "Engine", "Error", "FileError", "Generation",
           "InvalidArgument", "NoDevice", "OutOfMemory", "Token", "Tokenizer", "Unsupported", "devices"]
