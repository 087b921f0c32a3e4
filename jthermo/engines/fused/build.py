"""Compiles the native library of the fused engine at first use, and caches it.

Nothing is compiled at installation, so the same package installs on machines without a compiler.
The library is cached in ``$JTHERMO_CACHE`` or the user's cache folder, under a hash of its sources,
flags and compiler.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

HERE = Path(__file__).parent
SOURCES = ("ffi.cc", "dense.h")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-w")
# The second variant is for compilers and linkers that cannot select a function by processor when
# the library is loaded.
VARIANTS = ((), ("-DJTHERMO_NO_CLONES",))
TARGET = "jthermo_advance"


class Unavailable(Exception):
    """The library cannot be compiled or loaded on this machine; the message says why."""


def compiler() -> list[str] | None:
    """The command of the C++ compiler: ``$CXX``, else c++, g++ or clang++; None without one."""
    for command in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    return None


@functools.cache
def load() -> Path:
    """Compile the library if it is not cached, and register it with JAX.

    Raises:
        Unavailable: there is no compiler, or compiling or loading fails.
    """
    path = _built()
    try:
        function = getattr(ctypes.CDLL(str(path)), TARGET)
    except (OSError, AttributeError) as error:
        raise Unavailable(f"{path} cannot be loaded ({error}); delete it") from error
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(function), platform="cpu")
    return path


def folder() -> Path:
    """The folder of compiled libraries."""
    if own := os.environ.get("JTHERMO_CACHE"):
        return Path(own)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jthermo"
    except RuntimeError:
        raise Unavailable("there is no home directory; set JTHERMO_CACHE to a folder") from None


def _built() -> Path:
    command = compiler()
    if command is None:
        raise Unavailable("there is no C++ compiler (apt-get install g++)")
    path = folder() / f"fused-{_identity(tuple(command))}.so"
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
            output, message = Path(scratch) / path.name, ""
            for variant in VARIANTS:
                words = [
                    *command,
                    *FLAGS,
                    *variant,
                    f"-I{jax.ffi.include_dir()}",
                    str(HERE / SOURCES[0]),
                ]
                done = subprocess.run(
                    [*words, "-o", str(output)], capture_output=True, text=True, check=False
                )
                if done.returncode == 0:
                    # a rename, so that another process never sees half a file
                    output.replace(path)
                    return path
                message = message or done.stderr.strip()[-400:]
    except OSError as error:
        raise Unavailable(
            f"{path.parent} is not writable ({error.strerror}); "
            "set JTHERMO_CACHE to a folder that is"
        ) from error
    raise Unavailable(f"{shlex.join(command)} fails: {message}")


def _identity(command: tuple[str, ...]) -> str:
    """Sixteen hex digits of everything that the compiled library depends on."""
    version = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=False
    ).stdout
    texts = [(HERE / name).read_text(encoding="utf-8") for name in SOURCES]
    inputs = repr((texts, FLAGS, VARIANTS, command, version, jaxlib.__version__))
    return hashlib.sha256(inputs.encode()).hexdigest()[:16]
