//! The manifest: every contradiction is refused, with the key that holds it.

use crate::bundle_support::{Fixture, assert_refused};
use pi0_edge::ErrorKind;
use pi0_edge::bundle::{Dim, GraphName, Manifest, Normalization, PolicyKind};
use pi0_edge::internals::MAX_MANIFEST_BYTES;
use serde_json::{Value, json};

fn parse(value: &Value) -> pi0_edge::Result<Manifest> {
    Manifest::parse(value.to_string().as_bytes())
}

fn refused(value: &Value, words: &[&str]) {
    assert_refused(parse(value), ErrorKind::Manifest, words);
}

#[test]
fn a_manifest_reads_and_writes_back() {
    let json = Fixture::new().manifest_json();
    let manifest = parse(&json).unwrap();
    assert_eq!(manifest.policy, PolicyKind::Pi0);
    assert_eq!(manifest.cameras[1].name, "observation.images.wrist");
    assert_eq!(manifest.suffix_len(), 6);
    assert_eq!(manifest.graph(GraphName::VisionEncoder).inputs[0].shape[0], Dim::Named("views".into()));
    let again = Manifest::parse(&serde_json::to_vec(&manifest).unwrap()).unwrap();
    assert_eq!(again, manifest);
}

#[test]
fn texts_that_act_on_a_terminal_are_refused() {
    for hostile in
        ["\x1b[2J\x1b]0;owned\x07", "a\u{9b}31m", "gnp.\u{202e}", "\u{2066}", "a\nPASS", "\u{2028}"]
    {
        for pointer in
            ["/cameras/0/name", "/source/checkpoint", "/exporter", "/graphs/denoise_step/inputs/0/name"]
        {
            let mut json = Fixture::new().manifest_json();
            *json.pointer_mut(pointer).unwrap() = json!(hostile);
            refused(&json, &["manifest.json: ", "a text with the character '\\"]);
        }
        let mut json = Fixture::new().manifest_json();
        json["rename"] = json!({hostile: "observation.images.wrist"});
        refused(&json, &["manifest.json: ", "a text with the character"]);
        json = Fixture::new().manifest_json();
        json[hostile] = json!(1);
        refused(&json, &["manifest.json cannot be read"]);
        json = Fixture::new().manifest_json();
        json["format_version"] = json!(hostile.repeat(100_000));
        refused(&json, &["format_version is", "(cut)"]);
    }
    let mut json = Fixture::new().manifest_json();
    json["exporter"] = json!("é".repeat(1001));
    refused(&json, &["exporter has a text of more than 1000 characters"]);
    json["exporter"] = json!("é".repeat(1000));
    json["prompt"]["default"] = json!("pick up\nthe cube");
    parse(&json).unwrap();
}

#[test]
fn newer_opsets_are_for_the_provider_they_were_made_for() {
    let mut json = Fixture::new().manifest_json();
    json["opset"] = json!(24);
    refused(&json, &["opset is 24", "1 to 20"]);
    json["target"] = json!("cuda");
    parse(&json).unwrap();
    json["opset"] = json!(25);
    refused(&json, &["opset is 25", "1 to 24"]);
}

#[test]
fn a_state_token_that_is_cached_is_the_prefills() {
    let mut json = Fixture::new().manifest_json();
    json["state_in_prefill"] = json!(true);
    refused(&json, &["graphs.prefix_prefill", "input state f32[1, 9] is missing"]);
    let graphs = &mut json["graphs"];
    let moved = {
        let inputs = graphs["denoise_step"]["inputs"].as_array_mut().unwrap();
        let at = inputs.iter().position(|input| input["name"] == "state").unwrap();
        inputs.remove(at)
    };
    let half =
        graphs["prefix_prefill"]["inputs"].as_array().unwrap().iter().find(|i| i["name"] == "rope_cos");
    let half = half.unwrap()["shape"][1].clone();
    let prefill = graphs["prefix_prefill"]["inputs"].as_array_mut().unwrap();
    prefill.push(moved);
    for name in ["state_rope_cos", "state_rope_sin"] {
        prefill.push(json!({"name": name, "dtype": "f32", "shape": [1, half]}));
    }
    for (graph, side) in [("prefix_prefill", "outputs"), ("denoise_step", "inputs")] {
        for tensor in graphs[graph][side].as_array_mut().unwrap() {
            let name = tensor["name"].as_str().unwrap().to_owned();
            if name.starts_with("present.") || name.starts_with("past_key_values.") {
                tensor["shape"][1] = json!("cache");
            } else if name.starts_with("rope_") {
                tensor["shape"][0] = json!(5);
            }
        }
    }
    assert_eq!(parse(&json).unwrap().suffix_len(), 5);
    let mut other = pi05();
    other["state_in_prefill"] = json!(true);
    refused(&other, &["state_in_prefill is true", "no state token"]);
}

fn cameras(count: usize) -> Vec<Value> {
    (0..count).map(|i| json!({"name": format!("observation.images.{i}"), "required": false})).collect()
}

#[test]
fn the_largest_counts_are_those_that_the_runtime_has_room_for() {
    let mut json = Fixture::new().manifest_json();
    json["cameras"] = json!(cameras(pi0_edge::MAX_CAMERAS));
    json["flow"]["num_steps"] = json!(pi0_edge::MAX_NUM_STEPS);
    parse(&json).unwrap();
}

/// The manifest as PI0.5 has it.
fn pi05() -> Value {
    let mut json = Fixture::new().manifest_json();
    json["policy"] = json!("pi05");
    json["prompt"]["format"] = json!("pi05_state");
    json["source"]["conventions"]["pad_state_in_prompt"] = json!(false);
    json["graphs"]["time_conditioning"]["outputs"][0]["shape"][1] = json!(150);
    let inputs = json["graphs"]["denoise_step"]["inputs"].as_array_mut().unwrap();
    inputs.retain(|input| input["name"] != "state");
    for input in inputs {
        match input["name"].as_str().unwrap() {
            "time_table" => input["shape"][1] = json!(150),
            "rope_cos" | "rope_sin" => input["shape"][0] = json!(5),
            _ => {}
        }
    }
    json
}

#[test]
fn pi05_has_no_state_token_and_a_row_of_modulations() {
    let json = pi05();
    let manifest = parse(&json).unwrap();
    assert_eq!((manifest.suffix_len(), manifest.time_row_len()), (5, 150));
    assert_eq!(serde_json::to_value(&manifest).unwrap()["source"], json["source"]);
    let mut padded = pi05();
    padded["prompt"]["format"] = json!("pi05_padded_state");
    refused(&padded, &["source.conventions.pad_state_in_prompt", "contradicts"]);
    padded["source"]["conventions"]["pad_state_in_prompt"] = json!(true);
    parse(&padded).unwrap();

    for (place, value, words) in [
        ("/prompt/format", json!("append_newline"), ["prompt.format", "Pi05 does not use"]),
        ("/source/conventions/pad_state_in_prompt", json!(true), ["pad_state_in_prompt", "contradicts"]),
        ("/source/conventions/pad_state_in_prompt", json!(null), ["pad_state_in_prompt", "contradicts"]),
        ("/graphs/time_conditioning/outputs/0/shape/1", json!(140), ["time_table", "150"]),
    ] {
        let mut json = pi05();
        *json.pointer_mut(place).unwrap() = value;
        refused(&json, &words);
    }
    let mut json = pi05();
    let inputs = json["graphs"]["denoise_step"]["inputs"].as_array_mut().unwrap();
    inputs.push(json!({"name": "state", "dtype": "f32", "shape": [1, 9]}));
    refused(&json, &["graphs.denoise_step", "input state f32[1, 9] is not expected"]);
    let mut json = Fixture::new().manifest_json();
    json["source"]["conventions"]["pad_state_in_prompt"] = json!(false);
    refused(&json, &["pad_state_in_prompt", "contradicts"]);
}

#[test]
fn statistics_read_back_to_the_same_f32() {
    let mut json = Fixture::new().manifest_json();
    let exact = [0.1f32, 1.0 / 3.0, 1.175_494_4e-38];
    json["state"]["normalization"]["mean"] = json!(exact.map(f64::from));
    let Normalization::MeanStd { mean, .. } = parse(&json).unwrap().state.normalization else { panic!() };
    assert_eq!(mean, exact);
}

#[test]
fn another_version_is_refused_for_its_version() {
    for version in [json!(2), json!(0), json!("1"), json!(1.5), json!(null)] {
        let mut json = Fixture::new().manifest_json();
        json["format_version"] = version;
        json["a_field_of_the_future"] = json!({"x": 1});
        refused(&json, &["manifest.json: format_version is"]);
    }
    let mut json = Fixture::new().manifest_json();
    json.as_object_mut().unwrap().shift_remove("format_version");
    refused(&json, &["format_version is missing"]);
}

#[test]
fn unknown_and_missing_fields_are_refused_everywhere() {
    for place in [
        "",
        "/source",
        "/source/conventions",
        "/dimensions",
        "/cameras/0",
        "/image",
        "/state",
        "/state/normalization",
        "/action",
        "/action/normalization",
        "/prompt",
        "/flow",
        "/rope",
        "/token_embedding",
        "/graphs",
        "/graphs/denoise_step",
        "/graphs/denoise_step/inputs/0",
        "/files/tokenizer.json",
    ] {
        let mut json = Fixture::new().manifest_json();
        json.pointer_mut(place).unwrap()["surprise"] = json!(1);
        refused(&json, &["layout of format_version 1", "unknown field `surprise`"]);

        let whole = Fixture::new().manifest_json();
        for key in whole.pointer(place).unwrap().as_object().unwrap().keys() {
            let mut json = whole.clone();
            json.pointer_mut(place).unwrap().as_object_mut().unwrap().shift_remove(key);
            let words = if key == "format_version" { "is missing" } else { "missing field" };
            refused(&json, &[words, key]);
        }
    }
}

#[test]
fn contradictions_are_refused_with_their_key() {
    let long = "x".repeat(20_000);
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("/policy", json!("pi9"), &["unknown variant `pi9`"]),
        ("/precision", json!("fp12"), &["unknown variant `fp12`"]),
        ("/target", json!("npu"), &["unknown variant `npu`"]),
        ("/opset", json!(21), &["opset is 21", "1 to 20"]),
        ("/opset", json!(0), &["opset is 0"]),
        ("/source/model_sha256", json!("AB"), &["source.model_sha256", "64 lowercase"]),
        ("/source/conventions/letterbox_pad", json!(-3.0), &["image.pad_value is -1", "letterbox_pad is -3"]),
        ("/dimensions/layers", json!(0), &["dimensions.layers is 0"]),
        ("/dimensions/layers", json!(100_000), &["dimensions.layers is 100000", "1 to 64"]),
        ("/dimensions/layers", json!(3), &["graphs.prefix_prefill", "present.2.key", "is missing"]),
        ("/dimensions/prefix_mlp", json!(1u64 << 40), &["dimensions.prefix_mlp is 1099511627776"]),
        ("/dimensions/prefix_mlp", json!(-4), &["invalid value"]),
        ("/dimensions/tokens_per_view", json!(7), &["tokens_per_view is 7", "2x3 patches of 14"]),
        ("/dimensions/kv_heads", json!(2), &["kv_heads is 2", "only 1"]),
        ("/dimensions/head_dim", json!(7), &["head_dim is 7", "odd"]),
        ("/dimensions/expert_width", json!(9), &["expert_width is 9", "odd"]),
        ("/dimensions/vision_heads", json!(5), &["vision_width is 12", "vision_heads 5"]),
        (
            "/dimensions/action_horizon",
            json!(6),
            &["graphs.denoise_step", "x_t f32[1, 5, 7]", "x_t f32[1, 6, 7]"],
        ),
        ("/dimensions/vocab_size", json!(17), &["token_embedding is [16, 8]", "[17, 8]"]),
        ("/cameras", json!([]), &["number of cameras is 0"]),
        ("/cameras", json!(cameras(17)), &["number of cameras is 17", "1 to 16"]),
        ("/cameras/1/name", json!("observation.images.base"), &["cameras[1].name", "used twice"]),
        ("/cameras/1/name", json!(""), &["cameras[1].name is empty"]),
        ("/rename", json!({"a": ""}), &["rename maps"]),
        ("/image/resize", json!("bicubic"), &["unknown variant `bicubic`"]),
        ("/image/pad_value", json!(1e39), &["image.pad_value is not finite"]),
        ("/state/dim", json!(0), &["state.dim is 0"]),
        ("/state/dim", json!(10), &["state.padded_dim is 9, less than dim 10"]),
        ("/state/padded_dim", json!(8), &["graphs.denoise_step", "state f32[1, 8]"]),
        ("/state/names", json!(["a"]), &["state.names has 1 entries", "has 3"]),
        ("/state/normalization/mean", json!([1, 2]), &["state.normalization.mean has 2 entries", "has 3"]),
        ("/state/normalization/mean", json!([1, 1e39, 3]), &["mean[1] is inf", "finite"]),
        ("/state/normalization/std", json!([1, 1, -0.5]), &["std[2] is -0.5", "positive"]),
        (
            "/state/normalization",
            json!({"mode": "mean_std", "eps": 0, "mean": [0, 0, 0], "std": [1, 0, 1]}),
            &["std[1]"],
        ),
        ("/state/normalization/eps", json!(-1e-8), &["state.normalization.eps"]),
        ("/state/normalization/mode", json!("decimal"), &["unknown variant `decimal`"]),
        ("/state/normalization", json!({"mode": "identity"}), &["missing field `eps`"]),
        ("/action/normalization/max", json!([1, -1]), &["normalization.min[1] is 0, above max[1] = -1"]),
        (
            "/action/normalization",
            json!({"mode": "quantiles", "eps": 0, "q01": [0, 1], "q99": [1, 1]}),
            &["action.normalization.q99[1]", "q01[1]", "span 0"],
        ),
        (
            "/action/normalization",
            json!({"mode": "quantile10", "eps": 1e-8, "q10": [-3e38, 0], "q90": [3e38, 1]}),
            &["action.normalization.q90[0]", "span inf"],
        ),
        (
            "/state/normalization",
            json!({"mode": "z_score", "eps": 1e-6, "mean": [0, 0, 0], "std": [1, -1e-7, 1]}),
            &["state.normalization.std holds a negative value"],
        ),
        (
            "/state/normalization",
            json!({"mode": "z_score", "eps": 0, "mean": [0, 0, 0], "std": [1, 0, 1]}),
            &["state.normalization.std[1]", "not positive"],
        ),
        (
            "/action/normalization",
            json!({"mode": "quantile_range", "eps": 1e-6, "q01": [0, 2], "q99": [1, 1]}),
            &["action.normalization.q01[1] is 2, above q99[1] = 1"],
        ),
        ("/action/relative_mask", json!([true]), &["action.relative_mask has 1 entries"]),
        (
            "/action/limits",
            json!({"min": [0, 1], "max": [1, 0]}),
            &["action.limits.min[1] is 1, above max[1]"],
        ),
        ("/action/limits", json!({"min": [0, 0], "max": [1]}), &["action.limits.max has 1 entries"]),
        ("/prompt/max_tokens", json!(0), &["prompt.max_tokens is 0"]),
        ("/prompt/default", json!(""), &["prompt.default is empty"]),
        ("/prompt/default", json!(long), &["prompt.default has 20000 bytes"]),
        ("/prompt/tokenizer", json!("../tokenizer.json"), &["prompt.tokenizer", "plain names"]),
        ("/prompt/tokenizer", json!("absent.json"), &["prompt.tokenizer", "not in files"]),
        ("/flow/num_steps", json!(0), &["flow.num_steps is 0"]),
        ("/flow/num_steps", json!(65), &["flow.num_steps is 65", "1 to 64"]),
        ("/state/padded_dim", json!(5000), &["state.padded_dim is 5000", "1 to 4096"]),
        ("/prompt/max_tokens", json!(16_000), &["MiB for one inference", "at most 1024"]),
        ("/prompt/max_tokens", json!(20_000), &["prompt.max_tokens is 20000", "1 to 16384"]),
        ("/flow/convention", json!("noise_at_zero"), &["unknown variant `noise_at_zero`"]),
        ("/flow/min_period", json!(4.0), &["flow has periods 4 to 4"]),
        ("/flow/min_period", json!(0.0), &["min_period"]),
        ("/rope/theta", json!(-1.0), &["rope.theta is -1"]),
        ("/rope/inv_freq", json!("f64"), &["unknown variant `f64`"]),
        ("/token_embedding/dtype", json!("f16"), &["token_embedding.dtype is f16", "are f32"]),
        ("/token_embedding/width", json!(9), &["token_embedding is [16, 9]"]),
        ("/token_embedding/file", json!("tokenizer.json"), &["files[\"tokenizer.json\"].size", "512 bytes"]),
        ("/golden", json!("golden/absent.json"), &["golden is", "not in files"]),
        ("/graphs/vision_encoder/file", json!("tokenizer.json"), &["does not end with .onnx"]),
        ("/graphs/vision_encoder/file", json!("denoise_step.onnx"), &["another graph uses"]),
        ("/graphs/vision_encoder/file", json!("sub/v.onnx"), &["graphs.vision_encoder.file", "not in files"]),
        (
            "/graphs/denoise_step/inputs/1/dtype",
            json!("f32"),
            &["input is step f32[1], expected step i64[1]"],
        ),
        ("/graphs/denoise_step/inputs/4/name", json!("states"), &["input states f32[1, 9] is not expected"]),
        ("/graphs/denoise_step/inputs/1/name", json!("x_t"), &["graphs.denoise_step", "input"]),
        ("/graphs/vision_encoder/inputs/0/shape/0", json!("batch"), &["pixel_values f32[batch, 3, 28, 42]"]),
        ("/graphs/vision_encoder/outputs", json!([]), &["output image_embeds", "is missing"]),
        ("/files/tokenizer.json/sha256", json!("0".repeat(63)), &["files[\"tokenizer.json\"].sha256"]),
        ("/files/tokenizer.json/size", json!(-1), &["invalid value"]),
    ];
    // Fields that only some bundles have.
    for (place, key, value, words) in [
        ("/state", "normalized_dim", json!(2), ["state.normalized_dim is 2", "from dim 3 to padded_dim 9"]),
        ("/state", "normalized_dim", json!(10), ["state.normalized_dim is 10", "from dim 3 to padded_dim 9"]),
        ("/state", "normalized_dim", json!(4), ["state.normalization.mean has 3 entries", "has 4"]),
        ("", "adapt_to_pi", json!(true), ["adapt_to_pi is true", "state and action have 3 and 2 entries"]),
    ] {
        let mut json = Fixture::new().manifest_json();
        json.pointer_mut(place).unwrap()[key] = value;
        refused(&json, &words);
    }
    for (key, value, words) in [
        ("times", json!("rounded"), ["unknown variant `rounded`", "format_version 1"]),
        ("rtc_training_max_delay", json!(2), ["flow.rtc_training_max_delay is 2", "Pi0 is not trained"]),
    ] {
        let mut json = Fixture::new().manifest_json();
        json["flow"][key] = value;
        refused(&json, &words);
    }
    for (place, value, words) in cases {
        let mut json = Fixture::new().manifest_json();
        *json.pointer_mut(place).unwrap() = value;
        let text = format!("{place}: {words:?}");
        assert!(parse(&json).is_err(), "accepted: {text}");
        refused(&json, words);
    }
}

#[test]
fn a_relative_mask_must_find_its_state() {
    let mut json = Fixture::new().manifest_json();
    json["action"]["relative_mask"] = json!([false, true]);
    json["state"]["dim"] = json!(1);
    json["state"]["normalization"] = json!({"mode": "identity", "eps": 1e-8});
    refused(&json, &["relative_mask is true at 1", "only 1 entries"]);
}

#[test]
fn files_that_belong_to_no_graph_are_refused() {
    for path in ["extra.onnx", "extra.onnx.data", "golden/weights.data"] {
        let mut json = Fixture::new().manifest_json();
        json["files"][path] = crate::bundle_support::file_entry(b"");
        refused(&json, &[path, "belongs to no graph"]);
    }
}

#[test]
fn keys_given_twice_are_refused() {
    let text = Fixture::new().manifest_json().to_string();
    let tokenizer = &text[text.find("\"tokenizer.json\":{").unwrap()..];
    let entry = &tokenizer[..=tokenizer.find('}').unwrap()];
    for (from, to) in [
        (entry.to_string(), format!("{entry},{entry}")),
        ("\"policy\":\"pi0\"".into(), "\"policy\":\"pi0\",\"policy\":\"pi05\"".into()),
    ] {
        let twice = text.replacen(&from, &to, 1);
        assert_ne!(twice, text);
        let error = Manifest::parse(twice.as_bytes()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Manifest);
        assert!(error.to_string().contains("twice") || error.to_string().contains("duplicate"), "{error}");
    }
}

#[test]
fn what_is_not_a_manifest_is_refused() {
    let deep = "[".repeat(100_000);
    let nan = Fixture::new().manifest_json().to_string().replacen("[0.5,-1.0,2.0]", "[NaN,-1.0,2.0]", 1);
    assert!(nan.contains("NaN"));
    for text in ["", "{", "[]", "null", "{\"format_version\": 1}", deep.as_str(), nan.as_str()] {
        assert_refused(Manifest::parse(text.as_bytes()), ErrorKind::Manifest, &["manifest.json"]);
    }
    let big = vec![b' '; MAX_MANIFEST_BYTES as usize + 1];
    assert_refused(Manifest::parse(&big), ErrorKind::Manifest, &["more than the 4194304"]);

    let written = Fixture::new().write();
    std::fs::write(written.path("manifest.json"), &big).unwrap();
    assert_refused(written.open(), ErrorKind::Manifest, &["manifest.json", "more than 4194304"]);
}

#[test]
fn a_half_precision_policy_has_half_precision_where_the_contract_says() {
    for (precision, dtype) in [("fp16", "f16"), ("bf16", "bf16")] {
        let mut json = Fixture::new().manifest_json();
        json["precision"] = json!(precision);
        refused(&json, &["token_embedding.dtype"]);
        json["token_embedding"]["dtype"] = json!(dtype);
        json["files"]["token_embedding.bin"]["size"] = json!(16 * 8 * 2);
        refused(&json, &["graphs.vision_encoder", &format!("image_embeds {dtype}")]);
        json["graphs"]["vision_encoder"]["outputs"][0]["dtype"] = json!(dtype);
        json["graphs"]["prefix_prefill"]["inputs"][0]["dtype"] = json!(dtype);
        for i in 0..4 {
            json["graphs"]["prefix_prefill"]["outputs"][i]["dtype"] = json!(dtype);
            json["graphs"]["denoise_step"]["inputs"][9 + i]["dtype"] = json!(dtype);
        }
        parse(&json).unwrap();
    }
}
