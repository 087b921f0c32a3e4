"""The native library of the fused engine: compiled where it is first used, kept by what it was made from.

Nothing is built at installation, so a machine without a compiler installs and runs the same package. The file is kept
in ``$JTHERMO_CACHE`` or the user's cache folder under a hash of sources, headers, flags and compiler.
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
# a compiler or a linker that can't choose a function when the library is loaded builds the plain one
VARIANTS = ((), ("-DJTHERMO_NO_CLONES",))
TARGET = "jthermo_advance"


class Unavailable(Exception):
    """Why the library can't be had on this machine."""


def compiler() -> list[str] | None:
    """The C++ compiler's command: ``$CXX``, else the first of c++, g++ and clang++ that is there."""
    for command in (os.environ.get("CXX", ""), "c++", "g++", "clang++"):
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return words
    return None


@functools.cache
def load() -> Path:
    """Build the library where that has not been done, and make it known to JAX.

    Raises:
        Unavailable: no compiler, or it refuses.
    """
    path = _built()
    try:
        function = getattr(ctypes.CDLL(str(path)), TARGET)
    except (OSError, AttributeError) as error:
        raise Unavailable(f"{path} can't be loaded ({error}); remove it") from error
    jax.ffi.register_ffi_target(TARGET, jax.ffi.pycapsule(function), platform="cpu")
    return path


def folder() -> Path:
    """Where built libraries are kept."""
    own = os.environ.get("JTHERMO_CACHE")
    return (
        Path(own)
        if own
        else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jthermo"
    )


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
            made, said = Path(scratch) / path.name, ""
            for variant in VARIANTS:
                words = [
                    *command,
                    *FLAGS,
                    *variant,
                    f"-I{jax.ffi.include_dir()}",
                    str(HERE / SOURCES[0]),
                ]
                done = subprocess.run(
                    [*words, "-o", str(made)], capture_output=True, text=True, check=False
                )
                if done.returncode == 0:
                    made.replace(
                        path
                    )  # whole or not at all, whoever else builds it at the same time
                    return path
                said = said or done.stderr.strip()[-400:]
    except OSError as error:
        raise Unavailable(
            f"{path.parent} can't be written ({error.strerror}); set JTHERMO_CACHE to a folder that can"
        ) from error
    raise Unavailable(f"{shlex.join(command)} fails: {said}")


def _identity(command: tuple[str, ...]) -> str:
    """Sixteen hex digits of all that the library is made from."""
    version = subprocess.run(
        [*command, "--version"], capture_output=True, text=True, check=False
    ).stdout
    texts = [(HERE / name).read_text() for name in SOURCES]
    made = repr((texts, FLAGS, VARIANTS, command, version, jaxlib.__version__))
    return hashlib.sha256(made.encode()).hexdigest()[:16]
