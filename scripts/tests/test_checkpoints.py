"""The checkpoints people have that are not as lerobot 0.6 or openpi saves them: taken with the same numbers, or told what to do."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import edit_json, edit_weights
from exporter.bundle import export
from exporter.golden_inputs import model_state, view
from exporter.manifest import Options
from exporter.synthetic.spec import make_spec
from exporter.synthetic.tokenizer import write_tokenizer
from make_checkpoint import make_checkpoint
from test_errors import POST_STATE, PRE_STATE, assert_names, edit_step, refusal
from test_openpi import Notes

PALIGEMMA = "google/paligemma-3b-pt-224"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 14005618584\n"


def exported(checkpoint: Path, **options) -> tuple[dict, str]:
    """The manifest, and all that was said."""
    notes, bundle = Notes(), checkpoint.parent / "bundle"
    export(checkpoint, bundle, Options(force=True, **options), notes)
    return json.loads((bundle / "manifest.json").read_text()), "\n".join(notes.said)


def numbers(manifest: dict) -> dict:
    """What of a manifest says what is computed: everything but the checkpoint's own hash."""
    return {key: value for key, value in manifest.items() if key != "source"}


@pytest.fixture(scope="module")
def wanted(tiny, tmp_path_factory) -> dict:
    """The manifest of the tiny checkpoint as it is."""
    return numbers(exported(shutil.copytree(tiny, tmp_path_factory.mktemp("plain") / "checkpoint"))[0])


# -- weights --------------------------------------------------------------------------------------------------------------


def test_float16(broken, tiny):
    """Every float16 is a float32."""
    rounded = {name: values.astype(np.float16) for name, values in load_file(tiny / "model.safetensors").items()}
    manifests = []
    for kind in (np.float16, np.float32):
        save_file({name: values.astype(kind) for name, values in rounded.items()}, broken / "model.safetensors")
        manifests.append(numbers(exported(broken)[0]))
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize("place", ["model._orig_mod.", "_orig_mod.model.", "_orig_mod."])
def test_a_compiled_modules_names(broken, wanted, place):
    def edit(tensors):
        for name in list(tensors):
            tensors[place + name.removeprefix("model.")] = tensors.pop(name)

    edit_weights(broken / "model.safetensors", edit)
    assert numbers(exported(broken)[0]) == wanted


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "policy_preprocessor.json", POST_STATE, "tokenizer/tokenizer.json"])
def test_git_lfs_pointer(broken, name):
    (broken / name).write_bytes(POINTER)
    assert_names(refusal(broken), name, "git-LFS pointer in place of the file of 14005.6 MB", "lfs pull")


# -- config.json ----------------------------------------------------------------------------------------------------------


def test_widths_of_the_base_model(broken, wanted):
    """A base model trained further keeps its features in config.json; the data's statistics have the robot's widths."""

    def widen(config):
        config["input_features"]["observation.state"]["shape"] = [32]
        config["output_features"]["action"]["shape"] = [32]

    edit_json(broken / "config.json", widen)
    manifest, said = exported(broken)
    assert numbers(manifest) == wanted
    assert "observation.state has 32 entries there, and the statistics are of 6; exported with 6" in said
    assert "action has 32 entries there, and the statistics are of 7" in said


@pytest.mark.parametrize("changes, problem", [
    ({"max_state_dim": 5}, "observation.state"), ({"max_action_dim": 6}, "action"), ({"action_feature_names": ["a"]}, "1 names for 7 actions"),
])
def test_widths_that_do_not_fit(broken, changes, problem):
    def narrow(config):
        config.update(changes)
        config["input_features"]["observation.state"]["shape"] = config["output_features"]["action"]["shape"] = [4]

    edit_json(broken / "config.json", narrow)
    assert_names(refusal(broken), "config.json", problem)


def test_a_state_wider_than_the_padding_is_text_in_pi05s_prompt(tmp_path):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy="pi05", state_dim=30))
    edit_json(tmp_path / "checkpoint/config.json", lambda config: config.update(max_state_dim=16))
    state = exported(tmp_path / "checkpoint")[0]["state"]
    assert (state["dim"], state["padded_dim"]) == (30, 30)


def test_num_steps_of_old(broken):
    edit_json(broken / "config.json", lambda config: config.update(num_steps=5))
    assert_names(refusal(broken), "num_steps", "is 5, and num_inference_steps is 10")
    edit_json(broken / "config.json", lambda config: config.pop("num_inference_steps"))
    manifest, said = exported(broken)
    assert manifest["flow"]["num_steps"] == 5 and "num_steps is what lerobot 0.3 and older called num_inference_steps" in said


def test_keys_of_a_fork(broken, wanted):
    edit_json(broken / "config.json", lambda config: config.update(state_cond=True, use_knowledge_insulation=True))
    assert_names(refusal(broken), "config.json: state_cond, use_knowledge_insulation: not known", "--ignore-keys state_cond,use_know")
    assert_names(refusal(broken, ignore_keys="state_cond"), "config.json: use_knowledge_insulation: not known", "--ignore-keys state_cond,use_")
    assert numbers(exported(broken, ignore_keys="state_cond,use_knowledge_insulation")[0]) == wanted


@pytest.mark.parametrize("edit, key", [
    (lambda content: content["steps"][3]["config"].update(chat_template="x"), "steps[3].config.chat_template"),
    (lambda content: content["steps"][3].update(when="always"), "steps[3].when"), (lambda content: content.update(version=2), "version"),
])
def test_unknown_keys_of_the_processors(broken, wanted, edit, key):
    edit_json(broken / "policy_preprocessor.json", edit)
    assert_names(refusal(broken), f"policy_preprocessor.json: {key}: not known", "--ignore-keys")
    assert numbers(exported(broken, ignore_keys=key.rpartition(".")[2])[0]) == wanted


def test_byte_order_mark(broken, wanted):
    for name in ("config.json", "policy_preprocessor.json"):
        (broken / name).write_bytes(b"\xef\xbb\xbf" + (broken / name).read_bytes())
    assert numbers(exported(broken)[0]) == wanted


# -- statistics -----------------------------------------------------------------------------------------------------------


def edit_statistics(checkpoint: Path, edit) -> None:
    for file in (PRE_STATE, POST_STATE):
        save_file({name: edit(name, values) for name, values in load_file(checkpoint / file).items()}, checkpoint / file)


def test_statistics_one_by_n(broken, wanted):
    edit_statistics(broken, lambda name, values: values[None] if name.startswith(("observation.state", "action")) else values)
    assert numbers(exported(broken)[0]) == wanted


def test_one_number_for_all_entries(broken):
    edit_statistics(broken, lambda name, values: values[:1] if name.startswith("observation.state") else values)
    assert_names(refusal(broken), PRE_STATE, "observation.state.std", "has shape [1], expected [6]")


# transformers had PaliGemma's parts elsewhere then.
FORMERLY = {
    "paligemma.model.language_model.": "paligemma.language_model.model.", "paligemma.lm_head.": "paligemma.language_model.lm_head.",
    "paligemma.model.vision_tower.": "paligemma.vision_tower.", "paligemma.model.multi_modal_projector.": "paligemma.multi_modal_projector.",
}


@pytest.fixture
def old(broken) -> Path:
    """As lerobot 0.3 saved it: code and not files around the model, statistics among the weights, other names."""
    statistics = load_file(broken / PRE_STATE)
    places = {"normalize_inputs": "observation.state", "normalize_targets": "action", "unnormalize_outputs": "action"}

    def edit(tensors):
        for name in list(tensors):
            former = next((name.replace(new, old) for new, old in FORMERLY.items() if new in name), name)
            tensors[former] = tensors.pop(name)
        for place, feature in places.items():
            for name in ("mean", "std"):
                values = statistics[f"{feature}.{name}"]
                tensors[f"{place}.buffer_{feature.replace('.', '_')}.{name}"] = ["F32", [len(values)], values.tobytes()]

    edit_weights(broken / "model.safetensors", edit)
    for path in broken.glob("policy_p*"):
        path.unlink()

    def rename(config):
        width_first = config.pop("image_resolution")[::-1]
        config.update(
            resize_imgs_with_padding=width_first, num_steps=config.pop("num_inference_steps"), proj_width=1024, use_cache=True,
            attention_implementation="eager", train_state_proj=True, adapt_to_pi_aloha=False, use_delta_joint_actions_aloha=False,
        )

    edit_json(broken / "config.json", rename)
    return broken


def test_lerobot_before_its_processor_files(old, wanted):
    manifest, said = exported(old)
    found = numbers(manifest)
    # It put images at the bottom right, did not cut prompts, and did not relate action names to the state.
    assert found.pop("image") == wanted["image"] | {"pad_side": "top_left"}
    assert found.pop("prompt") == {key: value for key, value in wanted["prompt"].items() if key != "truncation"}
    assert found == {key: value for key, value in wanted.items() if key not in ("image", "prompt")}
    assert "saved by lerobot 0.3 or older" in said and "0.4.4" not in said


def test_what_of_old_checkpoints_cannot_be_told(old):
    edit_json(old / "config.json", lambda config: config.update(adapt_to_pi_aloha=True))
    assert_names(refusal(old), "adapt_to_pi_aloha")
    edit_json(old / "config.json", lambda config: config.update(adapt_to_pi_aloha=False, old_option=1))
    assert_names(refusal(old), "config.json: old_option: not known")


def test_neither_processor_files_nor_statistics_among_the_weights(broken):
    for path in broken.glob("policy_p*"):
        path.unlink()
    assert_names(refusal(broken), "policy_preprocessor.json: no such file", "model.safetensors holds no statistics")


def test_statistics_in_both_places(broken):
    buffers = {f"normalize_inputs.buffer_observation_state.{name}": ["F32", [6], bytes(24)] for name in ("mean", "std")}
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.update(buffers))
    assert_names(refusal(broken), "normalize_inputs.buffer_observation_state.mean: unknown tensor", "remove one of the two")


# -- prompts --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", [True, False])
def test_prompts_are_cut_as_the_tokenizer_step_says(broken, truncation):
    edit_step(broken, "preprocessor", 3, lambda step: step["config"].update(truncation=truncation))
    assert exported(broken)[0]["prompt"].get("truncation", False) == truncation


# -- directories ----------------------------------------------------------------------------------------------------------


def test_the_directory_above(broken):
    broken.rename(broken.parent / "pretrained_model")
    run = broken.parent.parent / "run"
    broken.parent.rename(run)
    assert_names(refusal(run), "run: the policy is one directory deeper; give", "pretrained_model")


@pytest.mark.parametrize("inside", ["params/_METADATA", "_METADATA"])
def test_jax(tmp_path, inside):
    file = tmp_path / "5000" / inside
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    assert_names(refusal(tmp_path / "5000"), "as JAX saves it", "examples/convert_jax_model_to_pytorch.py --checkpoint_dir", "--norm-stats")


# -- tokenizer ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def without_tokenizer(broken, tmp_path, monkeypatch) -> Path:
    """A checkpoint that names PaliGemma's tokenizer and does not have it, and a user who has no cache."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME", "OPENPI_DATA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.rmtree(broken / "tokenizer")
    edit_step(broken, "preprocessor", 3, lambda step: step["config"].update(tokenizer_name=PALIGEMMA))
    return broken


def snapshot(hub: Path, revision: str) -> Path:
    directory = hub / f"models--{PALIGEMMA.replace('/', '--')}/snapshots" / revision
    write_tokenizer(directory)
    return directory / "tokenizer.json"


@pytest.mark.parametrize("variable, hub", [
    (None, "home/.cache/huggingface/hub"), ("XDG_CACHE_HOME", "x/huggingface/hub"), ("HF_HOME", "x/hub"), ("HF_HUB_CACHE", "x"),
])
def test_tokenizer_in_hugging_faces_cache(without_tokenizer, wanted, tmp_path, monkeypatch, variable, hub):
    if variable:
        monkeypatch.setenv(variable, str(tmp_path / "x"))
    path = snapshot(tmp_path / hub, "abc")
    manifest, said = exported(without_tokenizer)
    assert numbers(manifest) == wanted and f"taken from {path}" in said


def test_the_main_branch_of_several(without_tokenizer, tmp_path):
    hub = tmp_path / "home/.cache/huggingface/hub"
    first, second = snapshot(hub, "first"), snapshot(hub, "second")
    os.utime(first, (1, 1))
    assert f"taken from {second}" in exported(without_tokenizer)[1]
    (first.parents[2] / "refs").mkdir()
    (first.parents[2] / "refs/main").write_text("first")
    assert f"taken from {first}" in exported(without_tokenizer)[1]


def test_tokenizer_of_another_directory(without_tokenizer, wanted, tmp_path):
    write_tokenizer(tmp_path / "elsewhere")
    edit_step(without_tokenizer, "preprocessor", 3, lambda step: step["config"].update(tokenizer_name=str(tmp_path / "elsewhere")))
    assert numbers(exported(without_tokenizer)[0]) == wanted


def test_how_to_get_the_gated_tokenizer(without_tokenizer):
    assert_names(refusal(without_tokenizer), "tokenizer.json: no such file", f"hf download {PALIGEMMA}", "accept its licence", "--tokenizer")


# -- openpi ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def openpi(tmp_path) -> Path:
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy="pi05", format="openpi", seed=1))
    return tmp_path / "checkpoint"


def test_all_of_openpis_configuration(openpi):
    more = {"pi05": True, "max_token_len": 256, "discrete_state_input": False, "dtype": "bfloat16", "pytorch_compile_mode": "default"}
    edit_json(openpi / "config.json", lambda config: config.update(more, written_by="us"))
    manifest, said = exported(openpi)
    assert (manifest["prompt"]["max_tokens"], manifest["prompt"]["format"]) == (256, "cleaned_newline")
    assert "--state-in-prompt" not in said and "config.json: written_by: not known to openpi" in said


@pytest.mark.parametrize("content, told, problem", [
    ({"max_token_len": 256}, {"max_tokens": 200}, "--max-tokens: 200 contradicts"),
    ({"max_token_len": 0}, {}, "config.json: max_token_len: is 0"),
    ({"discrete_state_input": False}, {"state_in_prompt": True}, "--state-in-prompt: True contradicts"),
    ({"pi05": False}, {}, "config.json: pi05: is False, and the weights are a pi05 policy's"),
])
def test_contradictions(openpi, content, told, problem):
    edit_json(openpi / "config.json", lambda config: config.update(content))
    assert_names(refusal(openpi, **told), problem)


def test_statistics_beside_the_checkpoint(openpi, tmp_path):
    """openpi's training leaves config.json out, and its assets are in another directory."""
    wanted = numbers(exported(openpi)[0])
    (openpi / "config.json").unlink()
    (openpi / "assets").rename(tmp_path / "my_config")
    assert_names(refusal(openpi, action_horizon=10, force=True), "holds no norm_stats.json", "--norm-stats", "assets/CONFIG_NAME")
    assert numbers(exported(openpi, action_horizon=10, norm_stats=tmp_path / "my_config")[0]) == wanted
    shutil.copytree(tmp_path / "my_config/arm", tmp_path / "my_config/other")
    assert_names(refusal(openpi, action_horizon=10, norm_stats=tmp_path / "my_config", force=True), "several robots: arm, other")


def test_openpis_own_tokenizer(openpi, tmp_path, monkeypatch):
    """Where openpi downloads it to; the file itself is made in test_sentencepiece.py."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "none"))
    monkeypatch.setenv("OPENPI_DATA_HOME", str(tmp_path / "openpi"))
    shutil.rmtree(openpi / "tokenizer")
    model = tmp_path / "openpi/big_vision/paligemma_tokenizer.model"
    model.parent.mkdir(parents=True)
    model.write_bytes(b"\xff")
    assert_names(refusal(openpi), f"{model}: not a sentencepiece model")


def pad_statistics(checkpoint: Path, width: int) -> None:
    def pad(content):
        for feature in content["norm_stats"].values():
            for values in feature.values():
                values.extend([0.0] * (width - len(values)))

    edit_json(checkpoint / "assets/arm/norm_stats.json", pad)


def test_a_state_padded_in_training_is_so_in_the_prompt(tmp_path):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", policy="pi05", format="openpi", state_dim=7))
    pad_statistics(tmp_path / "checkpoint", 24)
    assert_names(refusal(tmp_path / "checkpoint", action_dim=7), "the last 17 of 24 values", "--state-dim", "the prompt keeps all of them")
    manifest, said = exported(tmp_path / "checkpoint", state_dim=7, action_dim=7)
    state = manifest["state"]
    assert (state["dim"], state["normalized_dim"], len(state["normalization"]["q01"]), state["padded_dim"]) == (7, 24, 24, 32)
    assert "the prompt holds 24 values of the state, padded as in training; the robot gives 7" in said
    # Where it is not in the prompt, and where a part of real values is taken, there is nothing to keep.
    for told in ({"state_dim": 7, "state_in_prompt": False}, {"state_dim": 5}):
        state = exported(tmp_path / "checkpoint", action_dim=7, **told)[0]["state"]
        assert "normalized_dim" not in state and len(state["normalization"]["q01"]) == state["dim"] == told["state_dim"]


@pytest.mark.parametrize("told", [None, True, False])
def test_aloha(tmp_path, told):
    make_checkpoint(tmp_path / "checkpoint", make_spec("tiny", format="openpi", state_dim=14, action_dim=14))
    manifest, said = exported(tmp_path / "checkpoint", adapt_to_pi=told)
    assert manifest.get("adapt_to_pi", False) == bool(told)
    assert ("choose with --adapt-to-pi or --no-adapt-to-pi" in said) == (told is None)


def test_what_is_not_aloha(openpi):
    assert_names(refusal(openpi, adapt_to_pi=True), "--adapt-to-pi: ALOHA has 14 values of state and action; here are 6 and 7")


# -- the range scan's own preprocessing --------------------------------------------------------------------------------------


def test_bars_at_the_top_and_the_left():
    rule = {"resize": "bilinear", "antialias": False, "pad_value": -1.0, "pad_side": "top_left"}
    manifest = {"image": rule, "dimensions": {"image_height": 56, "image_width": 56}}
    pixels = view(np.full((14, 28, 3), 255, np.uint8), manifest)
    assert (pixels[:, :28] == -1).all() and (pixels[:, 28:] == 1).all()


def test_the_models_state():
    zeros = {"mode": "quantile_range", "eps": 1e-6, "q01": [0.0] * 4, "q99": [2.0, 4.0, 0.0, 0.0]}
    feature = {"dim": 2, "normalized_dim": 4, "padded_dim": 6, "normalization": zeros}
    assert np.allclose(model_state(np.float32([1, 1]), {"state": feature}), [0, -0.5, -1, -1, 0, 0], atol=1e-6)
    feature = {"dim": 14, "padded_dim": 16, "normalization": {"mode": "identity", "eps": 1e-8}}
    arm = [0.5, -0.5, -0.5, 0.5, 0.5, 0.5, -0.14005592]
    got = model_state(np.full(14, 0.5, np.float32), {"state": feature, "adapt_to_pi": True})
    assert np.allclose(got, [*arm, *arm, 0, 0], atol=1e-6)
