"""The structures of _native.py beside the C headers: a C compiler says where every member lies."""

import ctypes
import os
import pathlib
import subprocess
import tempfile
import unittest

from hadal import _native

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Where the headers are, and Vulkan's beside them.
INCLUDES = [ROOT / "capi/include", ROOT / "capi/engine/include", ROOT / "python/host",
            *os.environ.get("HADAL_TEST_INCLUDES", "").split(":")]
KERNELS = {"Quantize": "fp8_quantize", "Gemm": "fp8_gemm", "Grouped": "fp8_grouped_gemm", "Tiles": "moe_tiles",
           "Decode": "mla_decode", "Prefill": "mla_prefill"}
C_NAMES = {"ErrorStruct": "hadal_error", "Range": "hadal_range", "GroupedTiling": "hadal_grouped_tiling",
           "HostMemory": "hadal_host_memory", "TokenizerFacts": "hadal_tokenizer_facts", "Chat": "hadal_chat",
           "EngineDevice": "hadal_engine_device", "EngineOptions": "hadal_engine_options",
           "EngineMemory": "hadal_engine_memory", "EngineFacts": "hadal_engine_facts",
           "WarmUpOptions": "hadal_engine_warm_up_options", "LogitBias": "hadal_logit_bias",
           "TokenLogprob": "hadal_token_logprob", "EngineRequest": "hadal_engine_request",
           "EngineToken": "hadal_engine_token", "EngineStats": "hadal_engine_stats",
           **{f"{name}Desc": f"hadal_{kernel}_desc" for name, kernel in KERNELS.items()},
           **{f"{name}Args": f"hadal_{kernel}_args" for name, kernel in KERNELS.items()}}


def mirrored():
    """Every structure of _native.py, by its name."""
    return {name: value for name, value in vars(_native).items()
            if isinstance(value, type) and issubclass(value, ctypes.Structure) and hasattr(value, "_fields_")}


class Layout(unittest.TestCase):
    def test_every_structure_is_compared(self):
        self.assertEqual(set(mirrored()), set(C_NAMES))

    def test_members_lie_where_the_headers_have_them(self):
        lines = ["#include <hadal/hadal_engine.h>", "#include <host.h>", "#include <stddef.h>", "#include <stdio.h>",
                 "int main(void) {"]
        expected = []
        for name, structure in mirrored().items():
            c_name = C_NAMES[name]
            lines.append(f'  printf("{c_name} %zu\\n", sizeof({c_name}));')
            expected.append(f"{c_name} {ctypes.sizeof(structure)}")
            for member, *_ in structure._fields_:
                place = getattr(structure, member)
                lines.append(f'  printf("{c_name}.{member} %zu %zu\\n", offsetof({c_name}, {member}), '
                             f"sizeof((({c_name}*)0)->{member}));")
                expected.append(f"{c_name}.{member} {place.offset} {place.size}")
        lines += ["  return 0;", "}", ""]
        with tempfile.TemporaryDirectory() as folder:
            source, program = pathlib.Path(folder) / "layout.c", pathlib.Path(folder) / "layout"
            source.write_text("\n".join(lines))
            includes = [f"-I{path}" for path in INCLUDES if str(path)]
            subprocess.run(["cc", "-std=c99", *includes, str(source), "-o", str(program)], check=True)
            said = subprocess.run([str(program)], check=True, capture_output=True, text=True).stdout
        self.assertEqual(said.splitlines(), expected)


if __name__ == "__main__":
    unittest.main()
