"""The real-time runtime from Python: its life, its threads, its events, and what must be refused."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from conftest import PACKAGE
from pi0_edge import CameraFrame, EventKind, Flag, Limits, Pi0Error, Policy, Published, RtcConfig, Runtime, RuntimeConfig, Status, ThreadConfig

QUIET = ThreadConfig(realtime="off", lock_memory="off")
CONFIG = RuntimeConfig(
    prompt="open the drawer", control_period_ns=10_000_000, replan_remaining=5, thread=QUIET, max_age_ns=20_000_000_000,
    hold_after_ns=30_000_000_000, max_frame_width=640, max_frame_height=480,
)
WAIT_S = 60  # never reached unless something is wrong


@pytest.fixture
def runtime(policy):
    with Runtime.start(policy, CONFIG) as runtime:
        yield runtime


def until(condition, what):
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        if (value := condition()) is not None:
            return value
        time.sleep(0.005)
    raise AssertionError(f"waited {WAIT_S} s for {what}")


def first_action(runtime, case):
    runtime.writer.publish(case.images, case.state, time.monotonic_ns())
    return until(lambda: (r := runtime.controller.read()).status is Status.OK and r or None, "an action")


def test_an_observation_becomes_actions(policy, case):
    with Runtime.start(policy, CONFIG) as runtime:
        assert policy.closed and runtime.info.action_horizon == 10
        empty = runtime.controller.read()
        assert (empty.status, empty.action) == (Status.EMPTY, None)
        reading = first_action(runtime, case)
        assert reading.action.shape == (7,) and np.isfinite(reading.action).all()
        assert reading.chunk >= 1 and 0 < reading.age_ns < WAIT_S * 10**9
        out = np.zeros(7, np.float32)
        assert runtime.controller.read(out).action is out
        stats = runtime.stats()
        assert stats.chunks_published >= 1 and stats.chunk.count >= 1 and stats.reads_ok >= 2
        assert stats.as_dict()["chunk"]["count"] >= 1
        assert runtime.realtime().missing_count == 0
        runtime.stop()
        stopped = runtime.controller.read()
        assert stopped.status is Status.HOLD and Flag.STOPPED in stopped.flags
    for call in (runtime.stats, runtime.controller.read, lambda: runtime.writer.publish(case.images, case.state, 0)):
        with pytest.raises(Pi0Error) as raised:
            call()
        assert raised.value.status is Status.ERR_HANDLE
    runtime.close()


def test_rows_that_are_apart_are_read_in_place(runtime, case):
    wide = {name: np.pad(image, ((0, 0), (3, 4), (0, 0)))[:, 3:-4] for name, image in case.images.items()}
    assert not any(image.flags.c_contiguous for image in wide.values())
    assert isinstance(runtime.writer.publish(wide, case.state, time.monotonic_ns()), Published)
    mirrored = {name: image[::-1, ::-1] for name, image in case.images.items()}
    runtime.writer.publish(mirrored, case.state, time.monotonic_ns())


def test_frames_go_in_as_cameras_have_them(runtime, case):
    (first, image), (second, _) = case.images.items()
    height, width = image.shape[:2]
    yuyv = np.random.default_rng(1).integers(0, 256, (height, width, 2), np.uint8)
    images = {first: CameraFrame(image[:, ::-1].copy()[..., ::-1].copy(), "bgr"), second: CameraFrame(yuyv, "yuyv")}
    assert isinstance(runtime.writer.publish(images, case.state, time.monotonic_ns()), Published)
    for wrong, error, words in [
        (CameraFrame(yuyv[:, :-1].copy(), "yuyv"), Pi0Error, f"{first}, {width - 1} x {height} pixels: .*a side is odd"),
        (CameraFrame(yuyv[:, ::2], "yuyv"), ValueError, "side by side"),
        (CameraFrame(yuyv, "nv12"), ValueError, r"\(height, width\) is taken"),
        (CameraFrame(yuyv[..., 0].copy(), "nv12"), TypeError, "chroma: NoneType"),
        (CameraFrame(yuyv, "yuyv", chroma=yuyv), ValueError, "no chroma"),
        (CameraFrame(yuyv, "yuy2"), ValueError, "format: 'yuy2'; one of rgb, bgr"),
        (CameraFrame(yuyv.astype(np.float32), "yuyv"), TypeError, "dtype float32"),
    ]:
        with pytest.raises(error, match=words):
            runtime.writer.publish({**images, first: wrong}, case.state, time.monotonic_ns())


def test_every_layout_becomes_rgb():
    rgb = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    four = np.dstack([rgb, np.full((4, 6), 9, np.uint8)])
    for pixels, layout in [(rgb, "rgb"), (rgb[..., ::-1].copy(), "bgr"), (four, "rgba"), (np.ascontiguousarray(four[..., [2, 1, 0, 3]]), "bgra")]:
        np.testing.assert_array_equal(CameraFrame(pixels, layout).to_rgb(), rgb)
    grey = np.pad(rgb[..., 0], ((0, 0), (0, 5)))[:, :6]
    np.testing.assert_array_equal(CameraFrame(grey, "grey").to_rgb(), np.dstack([rgb[..., 0]] * 3))
    # Red of BT.709, and of BT.601 in full range.
    for yuv, (y, u, v) in [("bt709_limited", (63, 102, 240)), ("bt601_full", (76, 85, 255))]:
        luma, chroma = np.full((4, 6), y, np.uint8), np.full((2, 6), u, np.uint8)
        chroma[:, 1::2] = v
        red = CameraFrame(luma, "nv12", chroma, yuv).to_rgb()
        assert red.shape == (4, 6, 3) and abs(red.astype(int) - [255, 0, 0]).max() <= 2


def test_the_reference_is_the_action_until_there_is_a_chunk(runtime):
    runtime.controller.set_reference(np.arange(7))
    runtime.controller.set_step_limits([np.inf] * 7)
    runtime.controller.set_state([0.0] + [np.nan] * 6)
    runtime.controller.clear_trip()
    np.testing.assert_array_equal(runtime.controller.read().action, np.arange(7, dtype=np.float32))
    with pytest.raises(Pi0Error, match="ERR_NON_FINITE"):
        runtime.controller.set_reference([np.nan] * 7)
    with pytest.raises(Pi0Error, match="ERR_NON_FINITE"):
        runtime.controller.set_state([np.nan] * 7)
    with pytest.raises(ValueError, match=r"\(7,\)"):
        runtime.controller.set_step_limits([1.0] * 6)
    with pytest.raises(Pi0Error, match="ERR_ARGUMENT"):
        runtime.controller.set_step_limits([0.0] * 7)


def in_thread(call):
    outcome = []

    def work():
        try:
            outcome.append(call())
        except Pi0Error as error:
            outcome.append(error.status)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return outcome[0]


def test_each_side_belongs_to_one_thread(runtime, case):
    publish = lambda: runtime.writer.publish(case.images, case.state, time.monotonic_ns())  # noqa: E731
    runtime.controller.read()
    publish()
    assert in_thread(runtime.controller.read) is Status.ERR_THREAD
    assert in_thread(publish) is Status.ERR_THREAD
    assert in_thread(runtime.stats).reads == 1
    assert in_thread(lambda: (runtime.controller.attach(), runtime.controller.read())[1]).tick >= 0
    assert in_thread(lambda: (runtime.writer.attach(), publish())[1]).overwrote in (0, 1)
    with pytest.raises(Pi0Error, match="ERR_THREAD"):
        runtime.controller.read()


@pytest.mark.parametrize("changes, error, words", [
    (lambda c, now: {"captured_ns": now + 10**15}, Pi0Error, "ERR_FUTURE"),
    (lambda c, now: {"captured_ns": now - 10**10}, Pi0Error, "ERR_ORDER"),
    (lambda c, now: {"captured_ns": -1}, ValueError, "captured_ns"),
    (lambda c, now: {"state": c.state[:2]}, ValueError, "state"),
    (lambda c, now: {"images": {"nose": np.zeros((8, 8, 3), np.uint8)}}, Pi0Error, "camera nose"),
    (lambda c, now: {"images": {"observation.images.base": np.zeros((8, 8, 4), np.uint8)}}, ValueError, "RGB"),
    (lambda c, now: {"images": {"observation.images.base": np.zeros((480, 641, 3), np.uint8)}}, Pi0Error, "base, 641 x 480 pixels"),
])
def test_observations_that_do_not_fit_are_refused_in_words(runtime, case, changes, error, words):
    now = time.monotonic_ns()
    runtime.writer.publish(case.images, case.state, now)
    with pytest.raises(error, match=words):
        runtime.writer.publish(**{"images": case.images, "state": case.state, "captured_ns": now, **changes(case, now)})
    assert runtime.stats().observations_published == 1


def test_events_by_asking(runtime, case):
    assert runtime.next_event() is None
    first_action(runtime, case)
    event = runtime.next_event(WAIT_S * 10**9)
    assert event.kind is EventKind.CHUNK and event.chunk == 1 and event.duration_ns > 0


def test_a_callback_that_raises_gets_the_next_event_too(policy, case, caplog):
    events = []

    def on_event(event):
        events.append((event.kind, threading.current_thread().name))
        raise RuntimeError("the program's own mistake")

    with Runtime.start(policy, CONFIG, on_event=on_event) as runtime:
        with pytest.raises(ValueError, match="on_event gets"):
            runtime.next_event()
        first_action(runtime, case)
        runtime.set_num_steps(7)  # begun anew
        runtime.writer.publish(case.images, case.state, time.monotonic_ns())
        runtime.set_prompt("x" * 20_000)  # does not fit the policy's tokens, or is cut: either way no crash
        until(lambda: len(events) >= 2 or None, "two events")
    assert {kind for kind, _ in events} >= {EventKind.CHUNK} and {name for _, name in events} == {"pi0-events"}
    assert "the program's own mistake" in caplog.text


def test_an_episode_begins_with_an_observation_of_its_own(runtime, case):
    first_action(runtime, case)
    runtime.begin_episode()
    assert runtime.controller.read().status is Status.EMPTY
    first_action(runtime, case)


def test_a_policy_comes_back_and_is_started_again(policy, case):
    wanted = policy.infer(case.images, case.state, case.prompt, noise=case.noise)
    with Runtime.start(policy, CONFIG) as runtime:
        first_action(runtime, case)
        taken = runtime.take_policy()
        assert runtime.controller.read().status is Status.HOLD and runtime.stats().chunks_published >= 1
        with pytest.raises(Pi0Error, match="ERR_STATE"):
            runtime.take_policy()
    np.testing.assert_array_equal(taken.infer(case.images, case.state, case.prompt, noise=case.noise), wanted)
    with Runtime.start(taken, CONFIG) as runtime:
        first_action(runtime, case)


def test_a_bad_observation_is_told_once_and_the_next_is_used(runtime, case):
    runtime.writer.publish(case.images, case.state * np.nan, time.monotonic_ns())
    event = runtime.next_event(WAIT_S * 10**9)
    assert event.kind is EventKind.OBSERVATION_REFUSED and event.message
    assert runtime.stats().observations_unusable == 1
    first_action(runtime, case)


def test_settings_while_it_runs(runtime, tmp_path):
    runtime.set_prompt("open the drawer")
    runtime.set_rtc(RtcConfig(execution_horizon=5))
    runtime.set_rtc(None)
    runtime.set_limits(Limits([-9] * 7, [9] * 7))
    runtime.set_limits(None)
    runtime.write_flight_record(tmp_path / "flight.json")
    assert (tmp_path / "flight.json").read_text().startswith("{")
    assert runtime.notify_systemd() is False
    with pytest.raises(ValueError, match="num_steps"):
        runtime.set_num_steps(0)
    with pytest.raises(ValueError, match="limits.max"):
        runtime.set_limits(Limits([-9] * 7, [9] * 6))
    with pytest.raises(Pi0Error, match="ERR_IO"):
        runtime.write_flight_record(tmp_path / "no/flight.json")


def test_a_start_that_fails_says_why(policy, case):
    with pytest.raises(ValueError, match="step_limits"):
        Runtime.start(policy, RuntimeConfig(step_limits=[1.0]))
    assert not policy.closed
    with pytest.raises(Pi0Error, match="ERR_ARGUMENT"):
        Runtime.start(policy, RuntimeConfig(prompt="go", control_period_ns=0))
    assert policy.closed
    with pytest.raises(Pi0Error, match="ERR_HANDLE"):
        Runtime.start(policy)


def test_a_runtime_that_nobody_holds_is_stopped(case):
    runtime = Runtime.start(Policy.load(case.bundle, threads=1, verify="size"), CONFIG, on_event=print)
    writer, controller = runtime.writer, runtime.controller
    del runtime
    gc.collect()
    assert not any(thread.name == "pi0-events" for thread in threading.enumerate())
    assert controller.read().status in (Status.HOLD, Status.EMPTY)
    with pytest.raises(Pi0Error, match="ERR_RUNTIME"):
        writer.publish(case.images, case.state, time.monotonic_ns())


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit", "os.kill(os.getpid(), 2)", "child = os.fork() or sys.exit(0); os.wait()"])
def test_a_program_that_ends_with_everything_running_ends_well(case, ending):
    program = f"""
import os, sys, time
sys.path.insert(0, {str(PACKAGE)!r})
from pi0_edge import *
import numpy as np
runtime = Runtime.start(Policy.load({str(case.bundle)!r}, threads=1, verify="size"),
                        RuntimeConfig(prompt="go", replan="period", thread=ThreadConfig(realtime="off", lock_memory="off")), on_event=lambda e: None)
other = Policy.load({str(case.bundle)!r}, threads=1, verify="size")
image = np.zeros((56, 56, 3), np.uint8)
runtime.writer.publish({{c.name: image for c in other.cameras}}, np.zeros(6), time.monotonic_ns())
try:
    {ending}
except KeyboardInterrupt:
    sys.exit(0)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=WAIT_S)
    assert (ended.returncode, ended.stderr) == (0, "")
