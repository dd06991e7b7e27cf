"""Structures, numbers and functions, compared with what a C compiler makes of the header."""

from __future__ import annotations

import ctypes
import dataclasses
import inspect
import re
import shutil
import subprocess

import pytest

from conftest import ROOT
from pi0_edge import EventKind, Flag, Policy, RtcConfig, RuntimeConfig, Status, ThreadConfig, UNKNOWN, _abi, _config
from pi0_edge._library import load

HEADER = ROOT / "crates/pi0-edge-c/include/pi0_edge.h"
TEXT = re.sub(r"/\*.*?\*/", "", HEADER.read_text(), flags=re.S)
STRUCTS = {
    "pi0_policy_options": _abi.PolicyOptions, "pi0_error": _abi.ErrorText, "pi0_info": _abi.Info, "pi0_image": _abi.Image,
    "pi0_camera_frame": _abi.CCameraFrame,
    "pi0_observation": _abi.Observation, "pi0_rtc_config": _abi.CRtcConfig, "pi0_infer_options": _abi.InferOptions,
    "pi0_timing": _abi.Timing, "pi0_thread_config": _abi.CThreadConfig, "pi0_limits": _abi.CLimits, "pi0_event": _abi.CEvent,
    "pi0_runtime_config": _abi.CRuntimeConfig, "pi0_realtime": _abi.Realtime, "pi0_latency": _abi.Latency,
    "pi0_stats": _abi.Stats, "pi0_published": _abi.Published, "pi0_reading": _abi.CReading,
}
NOT_WRAPPED = {
    "pi0_observation_writer_frame",  # a pointer into a slot, which no array could be kept from outliving
    "pi0_observation_writer_set_frame",  # pi0_observation_writer_convert_frame does the same, and says why not
    "pi0_log_set_callback", "pi0_log_set_fd",
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, tuple[int, int]]:
    """The offset and the size of every field, and the size of every structure, as the C compiler has them."""
    compiler = shutil.which("cc") or pytest.skip("there is no C compiler (cc): the layouts were NOT checked")
    asked = [(name, "(size_t)0", f"sizeof(struct {name})") for name in STRUCTS]
    asked += [
        (f"{name}.{field}", f"offsetof(struct {name}, {field})", f"sizeof(((struct {name}*)0)->{field})")
        for name, struct in STRUCTS.items() for field, _ in struct._fields_
    ]
    lines = "\n".join(f'printf("{what} %zu %zu\\n", {offset}, {size});' for what, offset, size in asked)
    directory = tmp_path_factory.mktemp("layout")
    source = directory / "layout.c"
    source.write_text(f'#include <stdio.h>\n#include "{HEADER}"\nint main(void) {{\n{lines}\nreturn 0;\n}}\n')
    subprocess.run([compiler, source, "-o", directory / "layout"], check=True)
    printed = subprocess.run([directory / "layout"], check=True, capture_output=True, text=True).stdout
    return {what: (int(offset), int(size)) for what, offset, size in map(str.split, printed.splitlines())}


def test_every_structure_is_laid_out_as_c_has_it(compiled):
    ours = {name: (0, ctypes.sizeof(struct)) for name, struct in STRUCTS.items()}
    for name, struct in STRUCTS.items():
        for field, _ in struct._fields_:
            ours[f"{name}.{field}"] = (getattr(struct, field).offset, getattr(struct, field).size)
    assert ours == compiled


def test_every_field_and_structure_of_the_header_is_there():
    found = dict(re.findall(r"typedef struct (pi0_\w+) \{(.*?)\}", TEXT, flags=re.S))
    assert set(found) == set(STRUCTS)
    for name, body in found.items():
        assert re.findall(r"(\w+)(?:\[\w+\])?;", body) == [field for field, _ in STRUCTS[name]._fields_], name


def test_every_number_of_the_header_has_its_name():
    numbers = {name: value for name, value in re.findall(r"#define PI0_(\w+) (-?\d+|UINT64_MAX)$", TEXT, flags=re.M)}
    ours = {status.name: status.value for status in Status}
    ours |= {f"FLAG_{flag.name}": flag.value for flag in Flag} | {f"EVENT_{kind.name}": kind.value for kind in EventKind}
    prefixes = {
        "provider": "PROVIDER", "device_memory": "DEVICE_MEMORY", "verify": "VERIFY", "weights": "WEIGHTS",
        "interpolation": "INTERPOLATION", "splice": "SPLICE", "on_underrun": "UNDERRUN", "replan": "REPLAN",
        "realtime": "REALTIME", "lock_memory": "LOCK", "schedule": "RTC", "format": "PIXELS", "yuv": "YUV",
    }
    for setting, words in _config.WORDS.items():
        ours |= {f"{prefixes[setting]}_{word.upper()}": number for number, word in enumerate(words)}
    others = {"ERROR_SIZE": 1024, "EVENT_MESSAGE_SIZE": 512, "KIND_PI0": 0, "KIND_PI05": 1, "VERSION_MAJOR": 0}
    others |= {"VERSION_MINOR": 1, "VERSION_PATCH": 0, "UNKNOWN": UNKNOWN}
    others |= {f"PHASE_{word}": n for n, word in enumerate(["STARTING", "READY", "FAILED", "STOPPED"])}
    others |= {f"LOG_{word}": n for n, word in enumerate(["OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"])}
    known = {name: UNKNOWN if value == "UINT64_MAX" else int(value) for name, value in numbers.items()}
    assert known == ours | others


def test_every_function_takes_as_many_arguments_as_in_c():
    declared = dict(re.findall(r"^pi0_status (pi0_\w+)\((.*?)\);", TEXT, flags=re.M | re.S))
    ours = _abi.FUNCTIONS | _abi.SHORT_FUNCTIONS
    wanted = {name: arguments.split(",") for name, arguments in declared.items() if name not in {"pi0_status_str"} | NOT_WRAPPED}
    assert set(wanted) == set(ours)
    pointers = (ctypes.c_void_p, ctypes.c_char_p)
    for name, arguments in wanted.items():
        shape = ["*" if "*" in argument else argument.split()[0] for argument in arguments]
        sizes = {"uint32_t": ctypes.c_uint32, "uint64_t": ctypes.c_uint64, "size_t": ctypes.c_size_t}
        for c, python in zip(shape, ours[name], strict=True):
            assert (python in pointers or hasattr(python, "contents")) if c == "*" else python is sizes[c], name


@pytest.mark.parametrize("ours, function, struct", [
    (RuntimeConfig()._c(_abi.Info(), []), "pi0_runtime_config_default", _abi.CRuntimeConfig),
    (RtcConfig()._c(), "pi0_rtc_config_default", _abi.CRtcConfig),
    (ThreadConfig()._c([]), "pi0_thread_config_default", _abi.CThreadConfig),
    (_abi.PolicyOptions(verify=_config.number("verify", inspect.signature(Policy.load).parameters["verify"].default)), "pi0_policy_options_default", _abi.PolicyOptions),
    (_abi.InferOptions(), "pi0_infer_options_default", _abi.InferOptions),
])
def test_defaults_are_the_library_s(ours, function, struct):
    theirs = struct()
    assert getattr(load(), function)(ctypes.byref(theirs), ctypes.sizeof(theirs)) == 0
    assert ours.as_dict() == theirs.as_dict()


def test_settings_that_do_not_fit_their_field_are_refused():
    with pytest.raises(ValueError, match="seed: -1 is out of range"):
        _abi.InferOptions(seed=-1)
    with pytest.raises(ValueError, match="max_errors"):
        RuntimeConfig(max_errors=2**32)._c(_abi.Info(), [])
    with pytest.raises(ValueError, match="on_underrun: 'drop'; one of hold, ramp, flag_only"):
        RuntimeConfig(on_underrun="drop")._c(_abi.Info(), [])


def test_every_setting_is_passed_on():
    fields = {field.name for field in dataclasses.fields(RuntimeConfig)}
    rest = {"struct_size", "step_limits_len", "event_callback", "event_user", "event_fd", "reserved", "reserved_splice"}
    assert fields == {name for name, _ in _abi.CRuntimeConfig._fields_} - rest
