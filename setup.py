"""Builds the Python package: python/hadal, and beside it the shared libraries that it loads by ctypes.

HADAL_PREFIX=DIR  takes the libraries from an installed prefix instead of building them:
                  cmake --install build --prefix DIR --component c (and engine, and python)
CMAKE_ARGS        more arguments for CMake
HADAL_PYTHON_BUILD=DIR  where to build; otherwise .cache/python, as build/ is CMake's own by custom
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.dist import Distribution
from wheel.bdist_wheel import bdist_wheel

ROOT = pathlib.Path(__file__).resolve().parent
VERSION = re.search(r"project\(hadal VERSION ([0-9.]+)", (ROOT / "CMakeLists.txt").read_text()).group(1)
SOVERSION = ".".join(VERSION.split(".")[:2])
LIBRARIES = [f"libhadal.so.{SOVERSION}", f"libhadal_engine.so.{SOVERSION}", "libhadal_host.so"]


def build_libraries(folder):
    """Configures, builds and installs the libraries alone; returns the prefix."""
    build, prefix = folder / "cmake", folder / "prefix"
    arguments = ["-DCMAKE_BUILD_TYPE=Release", "-DHADAL_BUILD_TESTS=OFF", "-DHADAL_BUILD_BENCH=OFF",
                 "-DHADAL_BUILD_EXAMPLES=OFF", "-DHADAL_BUILD_PYTHON=ON"]
    if (ROOT / ".sysroot" / "complete").exists():  # newer headers and shader tools (setup.sh)
        arguments.append(f"-DHADAL_SYSROOT={ROOT / '.sysroot'}")
    if shutil.which("ninja"):
        arguments += ["-G", "Ninja"]
    subprocess.run(["cmake", "-S", str(ROOT), "-B", str(build), *arguments,
                    *shlex.split(os.environ.get("CMAKE_ARGS", ""))], check=True)
    subprocess.run(["cmake", "--build", str(build), "--parallel", str(os.cpu_count() or 1), "--target", "hadal_c",
                    "hadal_engine", "hadal_python_host"], check=True)
    for component in ("c", "engine", "python"):
        subprocess.run(["cmake", "--install", str(build), "--prefix", str(prefix), "--component", component, "--strip"],
                       check=True)
    return prefix


class BuildWithLibraries(build_py):
    """The modules, and lib/ with the libraries."""

    def run(self):
        super().run()
        prefix = os.environ.get("HADAL_PREFIX")
        if prefix is None:
            temporary = pathlib.Path(self.get_finalized_command("build").build_temp).absolute()
            prefix = build_libraries(temporary)
        target = pathlib.Path(self.build_lib) / "hadal" / "lib"
        target.mkdir(parents=True, exist_ok=True)
        for name in LIBRARIES:
            found = sorted(pathlib.Path(prefix).glob(f"lib*/**/{name}"))
            if not found:
                raise SystemExit(f"hadal: {prefix} has no {name}")
            shutil.copy(found[0], target / name)  # the file that the link names, under its soname


class WheelOfAnyPython(bdist_wheel):
    """The libraries know no Python: one wheel for all of them on this platform."""

    def get_tag(self):
        return "py3", "none", super().get_tag()[2]


class WithLibraries(Distribution):
    """Not pure: it goes where compiled packages go."""

    def has_ext_modules(self):
        return True


BUILD = pathlib.Path(os.environ.get("HADAL_PYTHON_BUILD", ROOT / ".cache" / "python"))
BUILD.mkdir(parents=True, exist_ok=True)
setup(version=VERSION, options={"build": {"build_base": str(BUILD)}, "egg_info": {"egg_base": str(BUILD)}},
      distclass=WithLibraries,
      cmdclass={"build_py": BuildWithLibraries, "bdist_wheel": WheelOfAnyPython})
