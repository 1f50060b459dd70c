"""The Vulkan devices of the machine."""

from ctypes import byref, c_uint32
from dataclasses import dataclass

from . import _native
from ._native import call, engine


@dataclass(frozen=True)
class Device:
    """A device as the loader shows it. `missing` is the first requirement that it lacks, or empty: it can be used."""

    index: int
    name: str
    driver: str
    missing: str
    is_cpu: bool
    is_discrete: bool
    memory_bytes: int
    free_bytes: int
    subgroup_size: int


def devices():
    """All devices in the loader's order. Raises NoDevice without a loader or device."""
    count = c_uint32()
    call(engine.hadal_engine_device_count, byref(count))
    found = []
    for index in range(count.value):
        d = _native.EngineDevice()
        call(engine.hadal_engine_device_describe, index, byref(d))
        found.append(Device(index, d.name.decode(), d.driver.decode(), d.missing.decode(), bool(d.is_cpu),
                            bool(d.is_discrete), d.memory_bytes, d.free_bytes, d.subgroup_size))
    return found


def choose(device=None):
    """The device of an index or of a part of a name (any case); None: the best (discrete, then integrated, then CPU)."""
    usable = [d for d in devices() if not d.missing]
    if device is None:
        wanted = sorted(usable, key=lambda d: (d.is_cpu, not d.is_discrete, d.index))
    elif isinstance(device, int):
        wanted = [d for d in usable if d.index == device]
    else:
        wanted = [d for d in usable if str(device).lower() in d.name.lower()]
    if not wanted:
        raise _native.NoDevice(f"device: there is no usable device {device!r}" if device is not None else
                               "device: there is no usable device", "NoDevice")
    return wanted[0]
