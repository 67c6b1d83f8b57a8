"""Adds the C extension to the wheel where it can be compiled; the rest stands
in pyproject.toml."""

import os
import sys
import tempfile

from setuptools import Extension, setup
from distutils.ccompiler import new_compiler  # of setuptools
from distutils.errors import CompileError, DistutilsError
from distutils.sysconfig import customize_compiler, get_python_inc


def missing():
    """What is missing to compile it, None when nothing is."""
    if sys.implementation.name != "cpython":
        return "CPython"
    if "t" in sys.abiflags:
        return "Python with its global interpreter lock"
    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "trial.c")
        for text, what in (("int trial;\n", "C compiler"), ("#include <Python.h>\n", "Python.h")):
            with open(source, "w") as f:
                f.write(text)
            compiler = new_compiler()
            customize_compiler(compiler)
            compiler.add_include_dir(get_python_inc())
            try:
                compiler.compile([source], output_dir=directory)
            except (CompileError, DistutilsError, OSError):
                return what
    return None


lacking = missing()
if lacking is not None:
    print("the wheel is built without the C extension: there is no %s" % lacking, file=sys.stderr)

setup(
    ext_modules=[] if lacking else [Extension(
        "gatecrew_worker._speed", ["gatecrew_worker/_speed.c"], py_limited_api=True,
        extra_compile_args=["-std=c11", "-fvisibility=hidden"],
    )],
    # One file for CPython 3.8 and later.
    options={} if lacking else {"bdist_wheel": {"py_limited_api": "cp38"}},
)
