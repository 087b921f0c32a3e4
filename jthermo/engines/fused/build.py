"""Compiles the native library of the fused engine at first use, and caches it.

Nothing is compiled at installation, so the same package installs on machines without a compiler.
The library is compiled for the vectors of this machine and cached in ``$JTHERMO_CACHE`` or the
user's cache folder, under a hash of its sources, flags and compiler and a SHA-256 of its own bytes.
A cached library is loaded only if these bytes are intact and nobody but this user or root may have
written them; otherwise it is compiled again.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import shlex
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path

import jax
import jaxlib

HERE = Path(__file__).parent
SOURCES = ("ffi.cc", "dense.h")
FLAGS = ("-std=c++17", "-O3", "-fno-math-errno", "-fPIC", "-shared", "-pthread", "-w")
# From wide to narrow vectors: the flag for the compiler, and what it needs of /proc/cpuinfo.
LEVELS = {
    "-march=x86-64-v4": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx2", "fma"},
    "-march=x86-64-v3": {"avx2", "bmi1", "bmi2", "f16c", "fma", "movbe"},
}
CPUINFO = Path("/proc/cpuinfo")
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
    descriptor = _opened(path)
    try:
        # By its descriptor, so that what was checked is what is loaded.
        opened = Path(f"/proc/self/fd/{descriptor}")
        function = getattr(ctypes.CDLL(str(opened if opened.exists() else path)), TARGET)
    except (OSError, AttributeError) as error:
        raise Unavailable(f"{path} cannot be loaded ({error}); delete it") from error
    finally:
        os.close(descriptor)
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
    cache, name = folder(), f"fused-{_identity(tuple(command))}"
    for path in sorted(cache.glob(f"{name}-*.so")):
        with contextlib.suppress(Unavailable):
            os.close(_opened(path))
            return path
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            output, message = Path(scratch) / name, ""
            for variant in variants():
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
                    # others may use a cache that an administrator filled, but not write to it
                    output.chmod(0o755)
                    # a rename, so that another process never sees half a file
                    return output.replace(cache / f"{name}-{_sha256(output.read_bytes())}.so")
                message = message or done.stderr.strip()[-400:]
    except OSError as error:
        raise Unavailable(
            f"{cache} is not writable ({error.strerror}); set JTHERMO_CACHE to a folder that is"
        ) from error
    raise Unavailable(f"{shlex.join(command)} fails: {message}")


def _opened(path: Path) -> int:
    """A descriptor of a cached library, opened for reading and checked.

    Raises:
        Unavailable: others may have written it, or its bytes are not those that its name states.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{path} cannot be opened ({error.strerror}); delete it") from error
    status = os.fstat(descriptor)
    fault = ""
    if not stat.S_ISREG(status.st_mode):
        fault = "is not a file"
    elif status.st_uid not in (os.geteuid(), 0):
        fault = f"belongs to user {status.st_uid}"
    elif status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        fault = "can be written by other users"
    else:
        with open(descriptor, "rb", closefd=False) as file:
            if _sha256(file.read()) != path.stem.rpartition("-")[2]:
                fault = "is damaged"
    if fault:
        os.close(descriptor)
        raise Unavailable(f"{path} {fault}; set JTHERMO_CACHE to a folder of your own")
    return descriptor


def variants() -> tuple[tuple[str, ...], ...]:
    """Flags for the widest vectors of this machine, then none for compilers that lack those."""
    try:
        flags = set(CPUINFO.read_text("utf-8").split())
    except OSError:
        # another system
        flags = set()
    return (*((level,) for level, needed in LEVELS.items() if needed <= flags), ())


def _sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def _identity(command: tuple[str, ...]) -> str:
    """Sixteen hex digits of everything that the compiled library depends on."""
    version = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=False
    ).stdout
    texts = [(HERE / name).read_text(encoding="utf-8") for name in SOURCES]
    inputs = repr((texts, FLAGS, variants(), command, version, jaxlib.__version__))
    return _sha256(inputs.encode())
