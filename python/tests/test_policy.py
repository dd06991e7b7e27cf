"""Chunks from Python: the recorded ones of lerobot, and everything that must be refused."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import threading

import numpy as np
import pytest

from conftest import recorded
from pi0_edge import Pi0Error, Policy, RtcConfig, Status
from pi0_edge._library import load


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_actions_are_those_that_lerobot_computed(kind):
    case = recorded(kind)
    with Policy.load(str(case.bundle)) as policy:
        actions = policy.infer(case.images, case.state, case.prompt, noise=case.noise, num_steps=case.num_steps)
        assert policy.timing().total_ns > policy.timing().denoise_ns > 0
    assert actions.dtype == np.float32
    np.testing.assert_allclose(actions, case.actions, atol=1e-5)


def test_what_a_policy_tells_of_itself(shared_policy):
    info = shared_policy.info
    assert (info.state_dim, info.action_dim, info.padded_action_dim, info.action_horizon) == (6, 7, 32, 10)
    assert [tuple(camera) for camera in shared_policy.cameras] == [
        ("observation.images.base", True), ("observation.images.wrist", True), ("observation.images.side", False),
    ]
    assert "action_horizon=10" in repr(info) and info.as_dict()["num_steps"] == 10


def test_the_same_seed_gives_the_same_actions_in_place(shared_policy, case):
    out = np.zeros((10, 7), np.float32)
    assert shared_policy.infer(case.images, case.state, case.prompt, seed=3, out=out) is out
    again = shared_policy.infer(case.images, case.state, case.prompt, seed=3)
    other = shared_policy.infer(case.images, case.state, case.prompt, seed=2**64 - 1)
    np.testing.assert_array_equal(out, again)
    assert np.abs(out - other).max() > 1e-3


def test_layouts_that_are_not_contiguous_are_copied(shared_policy, case):
    wanted = shared_policy.infer(case.images, case.state, case.prompt)
    images = {name: np.asfortranarray(np.pad(image, ((2, 3), (5, 7), (0, 0))))[2:-3, 5:-7] for name, image in case.images.items()}
    assert not any(image.flags.c_contiguous for image in images.values())
    state = np.repeat(case.state.astype(np.float64), 2)[::2]
    np.testing.assert_array_equal(shared_policy.infer(images, state, case.prompt), wanted)
    np.testing.assert_array_equal(shared_policy.infer(images, case.state.tolist(), case.prompt), wanted)


def test_guidance_pulls_towards_the_chunk_before(shared_policy, case):
    previous = np.full((4, 7), 0.5, np.float32)
    free = shared_policy.infer(case.images, case.state, case.prompt, noise=case.noise)
    rtc = RtcConfig(schedule="ones", execution_horizon=4)
    guided = shared_policy.infer(case.images, case.state, case.prompt, noise=case.noise, previous=previous, inference_delay=2, rtc=rtc)
    assert np.abs(guided[:4] - 0.5).max() < np.abs(free[:4] - 0.5).max()


def refused(case, **changes):
    return {"images": case.images, "state": case.state, "prompt": case.prompt, **changes}


IMAGE = "observation.images.base"


@pytest.mark.parametrize("changes, error, words", [
    (lambda c: {"images": {IMAGE: c.images[IMAGE].astype(np.float32)}}, TypeError, "dtype float32; a numpy array of uint8"),
    (lambda c: {"images": {IMAGE: c.images[IMAGE].tolist()}}, TypeError, "list; a numpy array of uint8"),
    (lambda c: {"images": {IMAGE: c.images[IMAGE].transpose(2, 0, 1)}}, ValueError, r"\(height, width, 3\)"),
    (lambda c: {"images": {IMAGE: c.images[IMAGE][..., 0]}}, ValueError, "is taken"),
    (lambda c: {"images": {**c.images, "nose": c.images[IMAGE]}}, Pi0Error, "nose"),
    (lambda c: {"images": {**c.images, "no\0se": c.images[IMAGE]}}, ValueError, "NUL"),
    (lambda c: {"images": {**c.images, IMAGE: c.images[IMAGE][:0]}}, Pi0Error, "ERR_"),
    (lambda c: {"images": {}}, Pi0Error, "observation.images.base"),
    (lambda c: {"state": c.state[:5]}, ValueError, r"state: shape \(5,\); \(6,\) is taken"),
    (lambda c: {"state": c.state.astype(complex)}, TypeError, "complex"),
    (lambda c: {"state": ["1"] * 6}, TypeError, "real numbers"),
    (lambda c: {"state": c.state * np.nan}, Pi0Error, "NON_FINITE"),
    (lambda c: {"prompt": "pick\0up"}, ValueError, "NUL"),
    (lambda c: {"noise": c.noise[:3]}, ValueError, r"noise: shape \(3, 32\); \(10, 32\)"),
    (lambda c: {"noise": c.noise, "seed": 1}, ValueError, "give one"),
    (lambda c: {"previous": np.zeros((0, 7))}, ValueError, r"\(n, 7\)"),
    (lambda c: {"previous": np.zeros((11, 7))}, Pi0Error, "ERR_"),
    (lambda c: {"num_steps": 1000}, Pi0Error, "ERR_ARGUMENT"),
    (lambda c: {"num_steps": 0}, ValueError, "num_steps"),
    (lambda c: {"seed": 2**64}, ValueError, "seed"),
    (lambda c: {"seed": 0.5}, TypeError, "int"),
    (lambda c: {"inference_delay": -1}, ValueError, "inference_delay"),
    (lambda c: {"out": np.zeros((10, 7))}, TypeError, "float64"),
    (lambda c: {"out": np.zeros((7, 10), np.float32).T}, ValueError, "without gaps"),
    (lambda c: {"out": np.broadcast_to(np.float32(0), (10, 7))}, ValueError, "writeable"),
])
def test_what_does_not_fit_is_refused_in_words(shared_policy, case, changes, error, words):
    with pytest.raises(error, match=words):
        shared_policy.infer(**refused(case, **changes(case)))
    assert np.isfinite(shared_policy.infer(**refused(case))).all()


def test_errors_have_a_status_and_words(tmp_path):
    with pytest.raises(Pi0Error) as raised:
        Policy.load(tmp_path / "nowhere")
    assert raised.value.status is Status.ERR_IO or raised.value.status is Status.ERR_MANIFEST
    assert "nowhere" in str(raised.value) and raised.value.status.name in str(raised.value)
    assert copy.copy(raised.value).status == pickle.loads(pickle.dumps(raised.value)).status == raised.value.status


def test_use_after_close(policy, case):
    assert not policy.closed
    policy.close()
    policy.close()
    assert policy.closed
    for call in (policy.timing, lambda: policy.infer(case.images, case.state)):
        with pytest.raises(Pi0Error) as raised:
            call()
        assert raised.value.status is Status.ERR_HANDLE


def test_a_policy_is_freed_when_nobody_holds_it(case):
    cycle = [Policy.load(case.bundle, threads=1, verify="size")]
    cycle.append(cycle)
    finalizer, handle = cycle[0]._finalizer, cycle[0]._handle
    del cycle
    gc.collect()
    assert not finalizer.alive and load().pi0_policy_free(handle) == Status.ERR_HANDLE


def test_no_copies(policy):
    for attempt in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="a handle of this process"):
            attempt(policy)


def test_several_threads_get_chunks_or_busy(policy, case):
    wanted = policy.infer(case.images, case.state, case.prompt, seed=5)
    outcomes: list[str] = []

    def work():
        for _ in range(20):
            try:
                np.testing.assert_array_equal(policy.infer(case.images, case.state, case.prompt, seed=5), wanted)
                outcomes.append("computed")
            except Pi0Error as error:
                outcomes.append(error.status.name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    closing = None
    try:
        policy.close()
    except Pi0Error as error:
        closing = error.status
    for thread in threads:
        thread.join()
    assert closing in (None, Status.ERR_BUSY) and len(outcomes) == 80
    assert set(outcomes) <= {"computed", "ERR_BUSY"} | ({"ERR_HANDLE"} if closing is None else set())
    assert closing is None or "computed" in outcomes


def test_the_child_of_a_fork_is_refused(policy, case):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            policy.infer(case.images, case.state)
        except Pi0Error as error:
            status = 0 if error.status is Status.ERR_FORKED else 2
        try:
            policy.close()
        except BaseException:
            status = 3
        os._exit(status)
    assert os.waitpid(child, 0)[1] == 0
    assert policy.infer(case.images, case.state, case.prompt).shape == (10, 7)
