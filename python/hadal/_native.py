"""hadal's C ABI by ctypes: the libraries, the structures of hadal.h and hadal_engine.h, errors.

Private. Names and order of members are those of the headers, which say what they mean.
"""

import ctypes
import glob
import os
from ctypes import (CFUNCTYPE, POINTER, Structure, byref, c_char, c_char_p, c_double, c_float, c_int, c_int32, c_size_t,
                    c_uint32, c_uint64, c_void_p, sizeof)

_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "lib")


def _load(name):
    # setup.py puts one of each there, under its soname.
    found = glob.glob(os.path.join(glob.escape(_FOLDER), f"{name}.so*"))
    try:
        return ctypes.CDLL(found[0] if found else os.path.join(_FOLDER, f"{name}.so"))
    except OSError as error:
        raise ImportError(f"hadal: {name} cannot be loaded: {error}") from None


kernels = _load("libhadal")
engine = _load("libhadal_engine")
host = _load("libhadal_host")


# ---- errors ---------------------------------------------------------------------------------------------------------


class Error(Exception):
    """What hadal refused or could not do. `status` is hadal's name of the kind; the message names the argument."""

    def __init__(self, message, status="Internal"):
        super().__init__(message)
        self.status = status


class InvalidArgument(Error, ValueError):
    """An argument breaks a rule."""


class Unsupported(Error, NotImplementedError):
    """A right request that this device, model or build cannot serve."""


class OutOfMemory(Error, MemoryError):
    """Of the host or of the device."""


class NoDevice(Error):
    """No Vulkan device, or not the one that was asked for."""


class DeviceLost(Error):
    """The device is gone: make everything on it again."""


class FileError(Error, OSError):
    """A file cannot be read, or its content breaks its format."""


class Cancelled(Error):
    """A callback asked to stop."""


_KINDS = {1: InvalidArgument, 2: Unsupported, 3: OutOfMemory, 4: OutOfMemory, 5: NoDevice, 6: DeviceLost,
          8: FileError, 9: FileError, 10: Cancelled}


class ErrorStruct(Structure):
    _fields_ = [("struct_size", c_size_t), ("status", c_int32), ("message", c_char * 500)]


def make_error(status, message):
    """The exception of a status."""
    name = kernels.hadal_status_name(status).decode()
    return _KINDS.get(status, Error)(message, name)


def call(function, *arguments):
    """Calls a function that returns a status and takes a hadal_error last; raises what it says."""
    error = ErrorStruct(sizeof(ErrorStruct))
    status = function(*arguments, byref(error))
    if status != 0:
        raise make_error(status, error.message.decode("utf-8", "replace"))


class Sized(Structure):
    """A structure that begins with its size; all else is zero."""

    def __init__(self, **members):
        super().__init__(struct_size=sizeof(type(self)), **members)


def _sized(name, *fields):
    return type(name, (Sized,), {"_fields_": [("struct_size", c_size_t), *fields]})


def _u32(names):
    return [(name, c_uint32) for name in names.split()]


def _ranges(names):
    return [(name, Range) for name in names.split()]


# ---- hadal.h --------------------------------------------------------------------------------------------------------


class Range(Structure):
    _fields_ = [("address", c_uint64), ("buffer", c_void_p), ("offset", c_uint64), ("bytes", c_uint64)]


GroupedTiling = _sized("GroupedTiling", *_u32("tile_m groups_x max_tiles"))

QuantizeDesc = _sized("QuantizeDesc", *_u32("rows k x_stride q_stride scale_stride scale_format scale_type"))
QuantizeArgs = _sized("QuantizeArgs", *_u32("rows"), *_ranges("x q scale"))

GemmDesc = _sized("GemmDesc", *_u32("m n k a_stride a_scale_stride b_stride b_scale_stride d_stride d_type a_scale_type "
                                    "b_scale_type b_scale_rows flags"))
GemmArgs = _sized("GemmArgs", *_u32("m"), *_ranges("a a_scale b b_scale d"))

GroupedDesc = _sized("GroupedDesc", *_u32("rows tokens experts n k expected_rows a_stride a_scale_stride b_stride "
                                          "b_scale_stride d_stride d_type a_scale_type b_scale_type b_scale_rows flags"))
GroupedArgs = _sized("GroupedArgs", *_u32("rows tokens"), *_ranges("a a_scale a_rows expert_table tiles indirect d"))

TilesDesc = _sized("TilesDesc", *_u32("experts rows m_max tile_m command_count"), ("groups_x", c_uint32 * 4))
TilesArgs = _sized("TilesArgs", *_ranges("segments tiles commands"))

DecodeDesc = _sized("DecodeDesc", *_u32("tokens heads rank rope q_len max_kv_len cache_rows q_latent_row_stride "
                                        "q_latent_head_stride q_pe_row_stride q_pe_head_stride row_stride table_stride "
                                        "o_row_stride o_head_stride"), ("scale", c_float),
                    *_u32("cache_format o_type flags"))
DecodeArgs = _sized("DecodeArgs", *_u32("tokens max_kv_len"),
                    *_ranges("q_latent q_pe cache block_tables kv_lens o lse scratch"))

PrefillDesc = _sized("PrefillDesc", *_u32("q_len heads nope rope v q_row_stride q_head_stride kv_row_stride k_pe_stride "
                                          "o_row_stride o_head_stride"), ("scale", c_float),
                     *_u32("batch max_q_len flags"))
PrefillArgs = _sized("PrefillArgs", *_u32("q_len q_begin kv_begin kv_rows flags sequence_count"),
                     *_ranges("q kv k_pe o state scratch sequences"))

kernels.hadal_version.restype = c_uint32
kernels.hadal_status_name.restype = c_char_p
kernels.hadal_status_name.argtypes = [c_int32]
kernels.hadal_plan_destroy.argtypes = [c_void_p]
kernels.hadal_plan_destroy.restype = None
kernels.hadal_plan_scratch_bytes.argtypes = [c_void_p]
kernels.hadal_plan_scratch_bytes.restype = c_uint64
kernels.hadal_plan_description.argtypes = [c_void_p]
kernels.hadal_plan_description.restype = c_char_p
kernels.hadal_barrier_record.argtypes = [c_void_p, c_void_p, c_void_p]
kernels.hadal_grouped_gemm_tiling.argtypes = [c_void_p, c_void_p, c_void_p]
for _kernel in "fp8_quantize fp8_gemm fp8_grouped_gemm moe_tiles mla_decode mla_prefill".split():
    getattr(kernels, f"hadal_{_kernel}_plan").argtypes = [c_void_p] * 4
    getattr(kernels, f"hadal_{_kernel}_record").argtypes = [c_void_p] * 4


# ---- host.h ---------------------------------------------------------------------------------------------------------


class HostMemory(Structure):
    _fields_ = [("mapped", c_void_p), ("address", c_uint64), ("buffer", c_void_p), ("memory", c_void_p),
                ("bytes", c_uint64)]


host.hadal_host_open.argtypes = [c_uint32, c_void_p, c_void_p]
host.hadal_host_close.argtypes = [c_void_p]
host.hadal_host_close.restype = None
host.hadal_host_context.argtypes = [c_void_p]
host.hadal_host_context.restype = c_void_p
host.hadal_host_allocate.argtypes = [c_void_p, c_uint64, c_void_p, c_void_p]
host.hadal_host_free.argtypes = [c_void_p, c_void_p]
host.hadal_host_free.restype = None
host.hadal_host_begin.argtypes = [c_void_p, c_void_p, c_void_p]
host.hadal_host_submit.argtypes = [c_void_p, c_void_p]


# ---- hadal_engine.h -------------------------------------------------------------------------------------------------

TokenizerFacts = _sized("TokenizerFacts", *_u32("vocab_size bos_id eos_id has_chat_template"))
Chat = _sized("Chat", ("messages", c_char_p), ("tools", c_char_p), ("variables", c_char_p), *_u32("flags"))
EngineDevice = _sized("EngineDevice", ("name", c_char * 256), ("driver", c_char * 256), ("missing", c_char * 256),
                      *_u32("is_cpu is_discrete"), ("memory_bytes", c_uint64), ("free_bytes", c_uint64),
                      *_u32("subgroup_size"))

PROGRESS = CFUNCTYPE(c_int, c_void_p, c_uint64, c_uint64)
MASK = CFUNCTYPE(c_int, c_void_p, POINTER(c_uint32), c_size_t, POINTER(c_uint32), c_size_t)
CANCELLED = CFUNCTYPE(c_int, c_void_p)

EngineOptions = _sized(
    "EngineOptions", ("model_dir", c_char_p), ("context", c_void_p), ("queue", c_void_p), ("lock_queue", c_void_p),
    ("unlock_queue", c_void_p), ("queue_user", c_void_p), ("device", c_char_p), ("cache_dir", c_char_p),
    ("log", c_void_p), ("log_user", c_void_p), *_u32("max_context max_requests max_rows max_chunk cache_pages"),
    ("cache_bytes", c_uint64), *_u32("cache_format"), ("swap_bytes", c_uint64), ("read_ahead_bytes", c_uint64),
    *_u32("flags draft_source draft_depth"), ("step_seconds", c_double), *_u32("aging_steps"), ("progress", PROGRESS),
    ("progress_user", c_void_p))
EngineMemory = _sized(
    "EngineMemory", ("free_bytes", c_uint64), ("largest_buffer_bytes", c_uint64), ("weights_bytes", c_uint64),
    ("workspace_bytes", c_uint64), ("page_bytes", c_uint64),
    *_u32("page_tokens context pages most_pages longest_context"))
EngineFacts = _sized(
    "EngineFacts", ("device_name", c_char_p), ("driver", c_char_p), ("device_bytes", c_uint64),
    ("weights_bytes", c_uint64), ("cache_bytes", c_uint64),
    *_u32("cache_pages page_tokens max_context max_requests max_rows max_chunk"), ("architecture", c_char_p),
    *_u32("layers mtp_layers vocab_size bos_id"), ("eos_ids", POINTER(c_uint32)), ("eos_count", c_size_t))


WarmUpOptions = _sized("WarmUpOptions", *_u32("threads prefill_tokens"), ("cancelled", CANCELLED), ("user", c_void_p))


class LogitBias(Structure):
    _fields_ = [("id", c_uint32), ("value", c_float)]


class TokenLogprob(Structure):
    _fields_ = [("id", c_uint32), ("logprob", c_float)]


EngineRequest = _sized(
    "EngineRequest", ("prompt", POINTER(c_uint32)), ("prompt_tokens", c_size_t), ("text", c_char_p),
    ("text_bytes", c_size_t), *_u32("max_new_tokens"), ("temperature", c_float), *_u32("top_k"), ("top_p", c_float),
    ("min_p", c_float), ("seed", c_uint64), ("repetition_penalty", c_float), ("presence_penalty", c_float),
    ("frequency_penalty", c_float), ("logit_bias", POINTER(LogitBias)), ("logit_bias_count", c_size_t),
    *_u32("top_logprobs flags"), ("mask", MASK), ("mask_user", c_void_p), ("stop_ids", POINTER(c_uint32)),
    ("stop_ids_count", c_size_t), ("stop", POINTER(c_char_p)), ("stop_count", c_size_t),
    ("timeout_seconds", c_double), ("priority", c_int32))
EngineToken = _sized(
    "EngineToken", ("request", c_uint64), *_u32("has_token id"), ("text", c_void_p), ("text_bytes", c_size_t),
    *_u32("finish"), ("status", c_int32), ("message", c_char_p), *_u32("has_logprob"), ("logprob", c_float),
    ("top", POINTER(TokenLogprob)), ("top_count", c_size_t))
EngineStats = _sized(
    "EngineStats", *_u32("waiting running pages pages_free pages_cached pages_used"),
    *[(name, c_uint64) for name in (
        "wanted_pages matched_pages evicted_pages reused_tokens preemptions swapped_out_pages swapped_in_pages steps "
        "prefilled_tokens decoded_tokens decoded_requests verified_drafts accepted_drafts failed_requests").split()],
    *[(name, c_double) for name in "prefill_seconds decode_seconds step_seconds wait_seconds".split()])

NO_TOKEN = 0xffffffff
for _name, _arguments in {
        "tokenizer_load": [c_char_p, c_void_p, c_void_p],
        "tokenizer_describe": [c_void_p, c_void_p, c_void_p],
        "tokenizer_encode": [c_void_p, c_char_p, c_size_t, c_uint32, c_void_p, c_void_p, c_void_p],
        "tokenizer_decode": [c_void_p, c_void_p, c_size_t, c_uint32, c_void_p, c_void_p, c_void_p],
        "tokenizer_id": [c_void_p, c_char_p, c_void_p, c_void_p],
        "tokenizer_chat": [c_void_p, c_void_p, c_void_p, c_void_p, c_void_p],
        "engine_device_count": [c_void_p, c_void_p],
        "engine_device_describe": [c_uint32, c_void_p, c_void_p],
        "engine_plan": [c_void_p, c_void_p, c_void_p],
        "engine_load": [c_void_p, c_void_p, c_void_p],
        "engine_describe": [c_void_p, c_void_p, c_void_p],
        "engine_warm_up": [c_void_p, c_void_p, c_void_p],
        "engine_add": [c_void_p, c_void_p, c_void_p, c_void_p],
        "engine_check": [c_void_p, c_void_p, c_void_p],
        "engine_cancel": [c_void_p, c_uint64, c_void_p],
        "engine_step": [c_void_p, c_void_p, c_void_p, c_void_p],
        "engine_export": [c_void_p, c_uint64, c_void_p, c_void_p, c_void_p],
        "engine_import": [c_void_p, c_char_p, c_size_t, MASK, c_void_p, c_void_p, c_void_p],
        "engine_statistics": [c_void_p, c_void_p, c_void_p]}.items():
    getattr(engine, f"hadal_{_name}").argtypes = _arguments
engine.hadal_tokenizer_destroy.argtypes = [c_void_p]
engine.hadal_tokenizer_destroy.restype = None
engine.hadal_engine_destroy.argtypes = [c_void_p]
engine.hadal_engine_destroy.restype = None
engine.hadal_engine_tokenizer.argtypes = [c_void_p]
engine.hadal_engine_tokenizer.restype = c_void_p
engine.hadal_engine_idle.argtypes = [c_void_p]
engine.hadal_engine_idle.restype = c_uint32
engine.hadal_engine_version.restype = c_uint32
