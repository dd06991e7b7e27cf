"""Every way a checkpoint can be unfit: the message names the file and the key, and nothing is written."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from conftest import edit_json, edit_weights
from exporter.bundle import export
from exporter.errors import ExportError
from exporter.manifest import Options
from test_bundle import make_golden

LANGUAGE = "model.paligemma_with_expert.paligemma.model.language_model."
VISION = "model.paligemma_with_expert.paligemma.model.vision_tower.vision_model."
EXPERT = "model.paligemma_with_expert.gemma_expert.model."
VOCABULARY = "model.paligemma_with_expert.paligemma.lm_head.weight"
PRE_STATE = "policy_preprocessor_step_6_normalizer_processor.safetensors"
POST_STATE = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


def refusal(checkpoint: Path, **options) -> str:
    """The message of the export's failure, after which there must be nothing new."""
    before = set(checkpoint.parent.iterdir())
    with pytest.raises(ExportError) as caught:
        export(checkpoint, checkpoint.parent / "bundle", Options(**options))
    assert set(checkpoint.parent.iterdir()) == before
    return str(caught.value)


def assert_names(message: str, *parts: str) -> None:
    assert [part for part in parts if part not in message] == [], message


# -- config.json ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes, key", [
    ({"type": "pi0_fast"}, "type"),
    ({"type": None}, "type"),
    ({"use_peft": True}, "use_peft"),
    ({"use_visual_memory": True}, "use_visual_memory"),
    ({"n_obs_steps": 2}, "n_obs_steps"),
    ({"adapt_to_pi_aloha": True}, "adapt_to_pi_aloha"),
    ({"use_delta_joint_actions_aloha": True}, "use_delta_joint_actions_aloha"),
    ({"paligemma_variant": "gemma_7b"}, "paligemma_variant"),
    ({"action_expert_variant": "gemma_7b"}, "action_expert_variant"),
    ({"dtype": "float16"}, "dtype"),
    ({"chunk_size": 0}, "chunk_size"),
    ({"chunk_size": "50"}, "chunk_size"),
    ({"chunk_size": True}, "chunk_size"),
    ({"num_inference_steps": -1}, "num_inference_steps"),
    ({"image_resolution": [224]}, "image_resolution"),
    ({"min_period": 0.0}, "min_period"),
    ({"max_period": 0.001}, "max_period"),
    ({"max_state_dim": 4}, "input_features.observation.state.shape"),
    ({"action_feature_names": ["a", "b"]}, "action_feature_names"),
    ({"action_feature_names": [1]}, "action_feature_names"),
    ({"input_features": {"observation.state": {"type": "STATE", "shape": [6]}}}, "input_features"),
    ({"input_features": {"observation.images.x": {"shape": [3, 4, 4]}}}, "input_features.observation.images.x.type"),
    ({"output_features": {"action": {"type": "STATE", "shape": [7]}}}, "output_features.action.type"),
    ({"output_features": {"action": {"type": "ACTION", "shape": [7, 1]}}}, "output_features.action.shape"),
])
def test_config(broken, changes, key):
    edit_json(broken / "config.json", lambda config: config.update(changes))
    assert_names(refusal(broken), "config.json", f": {key}")


def test_config_is_not_json(broken):
    (broken / "config.json").write_text("{")
    assert_names(refusal(broken), "config.json", "not a JSON file")


def test_config_is_not_an_object(broken):
    (broken / "config.json").write_text("[]")
    assert_names(refusal(broken), "config.json")


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json", "policy_postprocessor.json", "model.safetensors"])
def test_missing_file(broken, name):
    (broken / name).unlink()
    assert_names(refusal(broken), name, "no such file")


def test_missing_directory(tmp_path):
    assert_names(refusal(tmp_path / "nowhere"), "nowhere", "no such directory")


def test_adapter(broken):
    (broken / "adapter_config.json").write_text("{}")
    assert_names(refusal(broken), "adapter_config.json", "merge")


# -- processors -----------------------------------------------------------------------------------------------------------


def edit_step(checkpoint: Path, pipeline: str, index: int, edit) -> None:
    edit_json(checkpoint / f"policy_{pipeline}.json", lambda content: edit(content["steps"][index]))


def test_unknown_step(broken):
    edit_step(broken, "preprocessor", 2, lambda step: step.update(registry_name="my_processor"))
    assert_names(refusal(broken), "policy_preprocessor.json", "steps[2].registry_name", "my_processor")


def test_unknown_step_after_the_model(broken):
    edit_step(broken, "postprocessor", 2, lambda step: step.update(registry_name="smoothing_processor"))
    assert_names(refusal(broken), "policy_postprocessor.json", "steps[2].registry_name", "smoothing_processor")


@pytest.mark.parametrize("pipeline, index, name", [
    ("preprocessor", 2, "pi0_new_line_processor"), ("preprocessor", 3, "tokenizer_processor"),
    ("preprocessor", 6, "normalizer_processor"), ("postprocessor", 0, "unnormalizer_processor"),
])
def test_step_left_out(broken, pipeline, index, name):
    edit_json(broken / f"policy_{pipeline}.json", lambda content: content["steps"].pop(index))
    assert_names(refusal(broken), f"policy_{pipeline}.json", "steps", name)


def test_step_twice(broken):
    edit_json(broken / "policy_preprocessor.json", lambda content: content["steps"].append(content["steps"][6]))
    assert_names(refusal(broken), "policy_preprocessor.json", "steps[7].registry_name", "twice")


def test_steps_in_another_order(broken):
    """Relative to the normalised state would be something else."""
    edit_json(broken / "policy_preprocessor.json", lambda content: content["steps"].insert(5, content["steps"].pop(6)))
    assert_names(refusal(broken), "policy_preprocessor.json", "steps[6].registry_name", "relative_actions_processor")


@pytest.mark.parametrize("index, key, value", [
    (3, "task_key", "instruction"), (3, "padding_side", "left"), (3, "padding", "none"), (3, "max_length", 0),
    (4, "float_dtype", "float16"), (6, "eps", -1.0), (0, "rename_map", {"a": 1}), (6, "normalize_observation_keys", [1]),
])
def test_step_option(broken, index, key, value):
    edit_step(broken, "preprocessor", index, lambda step: step["config"].update({key: value}))
    assert_names(refusal(broken), "policy_preprocessor.json", f"steps[{index}].config.{key}")


def test_images_normalised_by_statistics(broken):
    edit_step(broken, "preprocessor", 6, lambda step: step["config"]["norm_map"].update(VISUAL="MEAN_STD"))
    assert_names(refusal(broken), "policy_preprocessor.json", "norm_map.VISUAL")


def test_unknown_normalisation(broken):
    edit_step(broken, "postprocessor", 0, lambda step: step["config"]["norm_map"].update(ACTION="MEDIAN"))
    assert_names(refusal(broken), "policy_postprocessor.json", "norm_map.ACTION", "MEDIAN")


def test_state_not_normalised(broken):
    edit_step(broken, "preprocessor", 6, lambda step: step["config"]["features"].pop("observation.state"))
    assert_names(refusal(broken), "policy_preprocessor.json", "features.observation.state")


def test_state_file_not_named(broken):
    edit_step(broken, "preprocessor", 6, lambda step: step.pop("state_file"))
    assert_names(refusal(broken), "policy_preprocessor.json", "state_file")


def test_state_file_elsewhere(broken):
    edit_step(broken, "preprocessor", 6, lambda step: step.update(state_file="../statistics.safetensors"))
    assert_names(refusal(broken), "policy_preprocessor.json", "steps[6].state_file")


def test_state_file_missing(broken):
    (broken / POST_STATE).unlink()
    assert_names(refusal(broken), POST_STATE, "no such file")


def test_state_file_damaged(broken):
    (broken / POST_STATE).write_bytes(b"\1\2\3")
    assert_names(refusal(broken), POST_STATE)


@pytest.mark.parametrize("file, key, value, problem", [
    (PRE_STATE, "observation.state.mean", None, "missing"),
    (POST_STATE, "action.std", None, "missing"),
    (POST_STATE, "action.std", np.ones(6, np.float32), "shape"),
    (POST_STATE, "action.std", np.ones(0, np.float32), "shape"),
    (POST_STATE, "action.std", np.full(7, np.nan, np.float32), "finite"),
    (PRE_STATE, "observation.state.mean", np.full(6, np.inf, np.float32), "finite"),
    (PRE_STATE, "observation.state.mean", np.ones(6, np.int64), "dtype"),
])
def test_statistic(broken, file, key, value, problem):
    statistics = load_file(broken / file)
    if value is None:
        del statistics[key]
    else:
        statistics[key] = value
    save_file(statistics, broken / file)
    assert_names(refusal(broken), file, key, problem)


@pytest.mark.parametrize("pipeline, index", [("preprocessor", 5), ("postprocessor", 1)])
def test_only_one_side_relative(broken, pipeline, index):
    edit_step(broken, pipeline, index, lambda step: step["config"].update(enabled=True))
    assert_names(refusal(broken), "policy_preprocessor.json", "steps[5].config.enabled")


def test_relative_to_a_narrower_state(broken):
    for pipeline, index in (("preprocessor", 5), ("postprocessor", 1)):
        edit_step(broken, pipeline, index, lambda step: step["config"].update(enabled=True))
    assert_names(refusal(broken), "policy_preprocessor.json", "steps[5].config.enabled", "7 actions")


# -- tokenizer ------------------------------------------------------------------------------------------------------------


def test_tokenizer_missing(broken):
    (broken / "tokenizer/tokenizer.json").unlink()
    assert_names(refusal(broken), "tokenizer.json", "--tokenizer")


def test_tokenizer_given_but_missing(broken):
    assert_names(refusal(broken, tokenizer=broken / "other.json"), "other.json", "--tokenizer")


def test_tokenizer_is_something_else(broken):
    assert_names(refusal(broken, tokenizer=broken / "config.json"), "config.json", "model.vocab")


@pytest.mark.parametrize("place, value, words", [
    (("version",), "2.0", "version 2.0"),
    (("model", "type"), "Unigram", "model Unigram"),
    (("normalizer",), {"type": "Lowercase"}, "its normalizer"),
    (("normalizer",), None, "its normalizer"),
    (("pre_tokenizer",), {"type": "WhitespaceSplit"}, "words of its own kind"),
    (("post_processor",), {"type": "ByteLevel"}, "other than fixed tokens"),
    (("model", "ignore_merges"), True, "merges at random, or not at all"),
    (("model", "byte_fallback"), False, "unknown characters in bytes"),
    (("model", "end_of_word_suffix"), "</w>", "insides or ends of words"),
    (("added_tokens", 2, "lstrip"), True, "depends on what is around it"),
])
def test_tokenizer_of_another_kind(broken, place, value, words):
    path = broken / "tokenizer/tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    part = content
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    path.write_text(json.dumps(content), encoding="utf-8")
    assert_names(refusal(broken), "tokenizer.json", "not a tokenizer of PaliGemma's kind", words, "--tokenizer")


# -- model.safetensors ----------------------------------------------------------------------------------------------------


def change(checkpoint: Path, name: str, **fields) -> None:
    def edit(tensors):
        for field, value in fields.items():
            tensors[name][("dtype", "shape", "data").index(field)] = value

    edit_weights(checkpoint / "model.safetensors", edit)


@pytest.mark.parametrize("name", [
    LANGUAGE + "layers.1.mlp.up_proj.weight", LANGUAGE + "layers.2.self_attn.o_proj.weight", LANGUAGE + "norm.weight",
    EXPERT + "layers.0.self_attn.q_proj.weight", VISION + "post_layernorm.bias", VISION + "encoder.layers.0.mlp.fc1.weight",
    "model.state_proj.bias", "model.action_time_mlp_in.weight",
])
def test_missing_tensor(broken, name):
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.pop(name))
    assert_names(refusal(broken), "model.safetensors", name.removeprefix("model."), "missing")


def test_missing_vocabulary(broken):
    head = "model.paligemma_with_expert.paligemma.lm_head.weight"
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.pop(head))
    assert_names(refusal(broken), "model.safetensors", "embed_tokens.weight", "lm_head.weight")


@pytest.mark.parametrize("name", [
    EXPERT + "layers.0.self_attn.q_proj.bias", "model.time_mlp_extra.weight", "normalize_inputs.buffer_observation_state.mean",
])
def test_unknown_tensor(broken, name):
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.update({name: ["F32", [1], bytes(4)]}))
    assert_names(refusal(broken), "model.safetensors", name, "unknown tensor")


def test_one_tensor_under_two_names(broken):
    edit_weights(broken / "model.safetensors", lambda tensors: tensors.update({"state_proj.bias": tensors["model.state_proj.bias"]}))
    assert_names(refusal(broken), "model.safetensors", "state_proj.bias", "another name")


def test_two_vocabularies_in_doubtful_order(broken):
    """lerobot takes what comes last; a saved file has embed_tokens last."""

    def edit(tensors):
        head = tensors.pop("model.paligemma_with_expert.paligemma.lm_head.weight")
        tensors[LANGUAGE + "embed_tokens.weight"] = [head[0], head[1], bytes(len(head[2]))]
        tensors["model.paligemma_with_expert.paligemma.lm_head.weight"] = head

    edit_weights(broken / "model.safetensors", edit)
    assert_names(refusal(broken), "model.safetensors", "lm_head.weight", "embed_tokens.weight")


@pytest.mark.parametrize("dtype", ["I32", "I64", "F64", "F8_E4M3"])
def test_dtype(broken, dtype):
    size = {"I32": 4, "I64": 8, "F64": 8, "F8_E4M3": 1}[dtype]
    change(broken, "model.state_proj.bias", dtype=dtype, data=bytes(32 * size))
    assert_names(refusal(broken), "model.safetensors", "model.state_proj.bias", dtype)


@pytest.mark.parametrize("name, shape", [
    (LANGUAGE + "layers.1.self_attn.k_proj.weight", [32, 32]),
    (LANGUAGE + "layers.0.self_attn.k_proj.weight", [64, 16]),
    (VISION + "embeddings.position_embedding.weight", [48, 16]),
    (VISION + "embeddings.patch_embedding.weight", [48, 588]),
    (EXPERT + "layers.0.mlp.gate_proj.weight", [3072]),
    ("model.state_proj.weight", [16, 64]),
])
def test_shape(broken, name, shape):
    change(broken, name, shape=shape)
    assert_names(refusal(broken), "model.safetensors", name.removeprefix("model."), "shape" if len(shape) != 2 else "")


def test_resolution_that_the_positions_do_not_fit(broken):
    edit_json(broken / "config.json", lambda config: config.update(image_resolution=[70, 70]))
    assert_names(refusal(broken), "model.safetensors", "position_embedding.weight", "[70, 70]")


def test_layer_counts_differ(broken):
    def edit(tensors):
        for name in [name for name in tensors if name.startswith(EXPERT + "layers.2.")]:
            del tensors[name]

    edit_weights(broken / "model.safetensors", edit)
    assert_names(refusal(broken), "model.safetensors", "gemma_expert.model.layers", "2 layers")


def test_vision_heads(broken):
    assert_names(refusal(broken, vision_heads=7), "--vision-heads", "48")


@pytest.mark.parametrize("name", [
    LANGUAGE + "layers.1.mlp.up_proj.weight", LANGUAGE + "layers.0.input_layernorm.weight", "model.action_in_proj.weight",
    "model.paligemma_with_expert.paligemma.lm_head.weight",
])
def test_weight_that_is_not_finite(broken, name):
    def edit(tensors):
        data = tensors[name][2]
        tensors[name][2] = data[:4] + struct.pack("<f", float("nan")) + data[8:]

    edit_weights(broken / "model.safetensors", edit)
    assert_names(refusal(broken), "model.safetensors", name, "finite")


def test_weight_beyond_half_precision(broken):
    def edit(tensors):
        data = tensors[EXPERT + "layers.0.mlp.up_proj.weight"][2]
        tensors[EXPERT + "layers.0.mlp.up_proj.weight"][2] = struct.pack("<f", 70000.0) + data[4:]

    edit_weights(broken / "model.safetensors", edit)
    assert_names(refusal(broken, precision="fp16"), "layer.0.mlp.up", "float16", "--precision bf16")
    export(broken, broken.parent / "bf16", Options(precision="bf16"))


def test_token_row_beyond_half_precision(broken):
    """The rows are scaled by the square root of the width, here 8, before they are rounded."""
    def edit(tensors):
        tensors[VOCABULARY][2] = struct.pack("<f", 9000.0) + tensors[VOCABULARY][2][4:]

    edit_weights(broken / "model.safetensors", edit)
    assert_names(refusal(broken, precision="fp16"), "token_embedding", "float16")


def test_safetensors_cut_short(broken):
    path = broken / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert_names(refusal(broken), "model.safetensors", "cut short")


@pytest.mark.parametrize("content", [
    b"", b"\1\2\3", struct.pack("<Q", 1 << 60), struct.pack("<Q", 4) + b"nope", struct.pack("<Q", 2) + b"[]",
    struct.pack("<Q", 9) + b'{"a": {}}',
])
def test_not_safetensors(broken, content):
    (broken / "model.safetensors").write_bytes(content)
    assert_names(refusal(broken), "model.safetensors")


@pytest.mark.parametrize("entry, problem", [
    ({"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}, "takes 8 bytes"),
    ({"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}, "does not describe"),
    ({"dtype": "F32", "shape": [1], "data_offsets": [0]}, "does not describe"),
    ({"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}, "F31"),
    ({"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4 << 40]}, "beyond the end"),
])
def test_header_that_lies(broken, entry, problem):
    header = json.dumps({"a": entry}).encode()
    (broken / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    assert_names(refusal(broken), "model.safetensors", ": a:", problem)


# -- golden, options, output ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edit, key", [
    (lambda golden: golden.update(format_version=2), "format_version"),
    (lambda golden: golden.update(cases=[]), "cases"),
    (lambda golden: golden["cases"][0].update(noise="a/none.npy"), "cases[0].noise"),
    (lambda golden: golden["cases"][0].update(observation="../observation.json"), "cases[0].observation"),
    (lambda golden: golden["cases"][0]["expected"]["v_t"].update(file="a/none.npy"), "cases[0].expected.v_t"),
])
def test_golden(broken, edit, key):
    make_golden(broken, {"a": ["base"]})
    edit_json(broken / "golden/golden.json", edit)
    assert_names(refusal(broken), "golden.json", key)


def test_golden_of_another_robot(broken):
    make_golden(broken, {"a": ["front"]})
    assert_names(refusal(broken), "observation.json", "images.observation.images.front")


def test_required_camera_unknown(broken):
    assert_names(refusal(broken, require_cameras="front"), "--require-cameras", "front", "observation.images.base")


def test_bundle_exists(broken):
    (broken.parent / "bundle").mkdir()
    assert_names(refusal(broken), "bundle", "exists already", "--force")


def test_failed_replacement_keeps_the_old_bundle(broken):
    bundle = broken.parent / "bundle"
    bundle.mkdir()
    (bundle / "manifest.json").write_text("old")
    change(broken, "model.paligemma_with_expert.paligemma.lm_head.weight", data=struct.pack("<f", float("inf")) * 512 * 64)
    assert_names(refusal(broken, force=True), "model.safetensors", "finite")
    assert (bundle / "manifest.json").read_text() == "old"
