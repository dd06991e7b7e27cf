"""Guided chunks: what is written satisfies the formula that the denoise graph computes."""

import json

import numpy as np
import pytest
import reference_script


@pytest.fixture(scope="module")
def guided(tiny, tmp_path_factory):
    home = tmp_path_factory.mktemp("rtc")
    arguments = ["--output", str(home / "golden"), "--rtc", str(home / "rtc"), "--cases", "two_cameras_4_steps"]
    assert reference_script.main([str(tiny), *arguments]) == 0
    return home / "rtc", json.loads((home / "rtc" / "rtc.json").read_text())


@pytest.mark.parametrize("schedule", ["zeros", "ones", "linear", "exp"])
def test_guidance_is_the_graph_s_formula(guided, schedule):
    home, described = guided
    arrays = {name: np.load(home / file).astype(np.float64) for name, file in described["schedules"][schedule].items()}
    x_t = np.load(home / described["noise"]).astype(np.float64)
    previous, left = np.zeros_like(x_t), np.load(home / described["prev_actions"])
    previous[: left.shape[0], : left.shape[1]] = left
    weights = arrays["prefix_weights"][:, None]
    assert weights[0] == 1 and (weights[described["execution_horizon"] :] == 0).all()

    for step in range(described["num_steps"]):
        time, v_t = 1 - step / described["num_steps"], arrays["v_t"][step]
        v_t = v_t - arrays["guidance"][step] * weights * (previous - (x_t - time * v_t))
        np.testing.assert_allclose(arrays["v_t_guided"][step], v_t, atol=2e-5)
        x_t = x_t - v_t / described["num_steps"]
    np.testing.assert_allclose(arrays["actions_normalized"], x_t, atol=2e-5)


def test_the_policy_is_left_unguided(tiny):
    """Golden data written after a guided run are those of the plain policy."""
    from reference import observations, rtc
    from reference.loading import Reference
    from reference.recording import batch_of, record

    reference = Reference(tiny)
    case = observations.made_up(reference, seed=0)[1]
    before = record(reference, case).actions
    with pytest.raises(RuntimeError):
        # A leftover of the wrong width fails in the middle of the guided run.
        batch = batch_of(reference, case)
        import torch

        left = torch.zeros(4, 99)
        rtc.guided(reference, case, batch, torch.from_numpy(case.noise)[None], left, rtc.RTCAttentionSchedule.EXP, 1, 3)
    assert np.array_equal(record(reference, case).actions, before)
