//! Hostile bundles that ask for too much: sizes, counts, bytes.

use serde_json::{Value, json};

use super::cases::{CASE, GOLDEN, List};
use super::parts::{self, added_token, png};
use crate::bundle_support::{GRAPHS, file_entry, onnx};

pub fn dimensions(list: &mut List) {
    let values = || {
        [
            json!(0),
            json!(1 << 24),
            json!((1 << 24) + 1),
            json!(1u64 << 32),
            json!(1u64 << 63),
            json!(-1),
            json!(1.5),
            json!("3"),
        ]
    };
    for key in [
        "image_height",
        "image_width",
        "patch_size",
        "tokens_per_view",
        "prefix_width",
        "expert_width",
        "layers",
        "query_heads",
        "kv_heads",
        "head_dim",
        "vision_heads",
        "vocab_size",
        "action_horizon",
    ] {
        for value in values() {
            list.add("sizes", format!("{key} {value}"), move |d| {
                d.set(&format!("/dimensions/{key}"), value);
            });
        }
    }
    for pointer in [
        "/state/dim",
        "/state/padded_dim",
        "/action/dim",
        "/action/padded_dim",
        "/prompt/max_tokens",
        "/prefix_bucket",
    ] {
        list.manifest("sizes", pointer, values());
    }
    // The graphs' signatures say the same, as a hostile exporter would have it.
    for side in [1 << 11, 1 << 13, 1 << 16, 1 << 20, 1 << 24] {
        list.add("sizes", format!("images of {side} squared, consistently"), move |d| {
            let patch = side / 4;
            for (key, value) in [("image_height", side), ("image_width", side), ("patch_size", patch)] {
                d.set(&format!("/dimensions/{key}"), json!(value));
            }
            d.set("/graphs/vision_encoder/inputs/0/shape", json!(["views", 3, side, side]));
            parts::resign(d, "vision_encoder");
        });
    }
    for horizon in [1 << 16, 1 << 20, 1 << 24] {
        list.add("sizes", format!("a horizon of {horizon}, consistently"), move |d| {
            d.set("/dimensions/action_horizon", json!(horizon));
            let text = d.manifest["graphs"]["denoise_step"].to_string();
            let text = text
                .replace("[1,10,", &format!("[1,{horizon},"))
                .replace("[11,", &format!("[{},", horizon + 1));
            d.set("/graphs/denoise_step", serde_json::from_str(&text).unwrap());
            parts::resign(d, "denoise_step");
        });
    }
}

pub fn bombs(list: &mut List) {
    const KIND: &str = "bombs";
    let observation = || format!("{CASE}/observation.json");
    for cameras in [17, 100, 10_000] {
        list.run(KIND, format!("{cameras} frames"), &["check"], move |d| {
            d.json(&observation(), |o| {
                let frames = (0..cameras).map(|i| (format!("camera {i}"), json!("base.png")));
                o["images"] = Value::Object(frames.collect());
            });
        });
    }
    for (width, height) in
        [(22_000, 22_000), (8000, 8000), (65_000, 65_000), (1, 60_000), (u32::MAX >> 1, 1), (0, 0)]
    {
        list.run(KIND, format!("a frame of {width} x {height}"), &["check"], move |d| {
            d.files.insert(format!("{CASE}/base.png"), png(width, height));
        });
    }
    list.run(KIND, "frames of 100 megapixels together", &["check"], |d| {
        for camera in ["base", "wrist", "side"] {
            d.files.insert(format!("golden/three_cameras_10_steps/{camera}.png"), png(5792, 5792));
        }
    });
    for cases in [65, 2000] {
        list.add(KIND, format!("{cases} golden cases"), move |d| {
            d.json(GOLDEN, |golden| golden["cases"] = json!(vec![golden["cases"][0].clone(); cases]));
        });
    }
    for count in [8193, 200_000] {
        list.add(KIND, format!("{count} added tokens"), move |d| {
            let tokens: Vec<_> = (0..count).map(|i| added_token(489 + i, &format!("<{i}>"))).collect();
            d.json("tokenizer.json", |t| t["added_tokens"] = json!(tokens));
        });
    }
    list.add(KIND, "700 000 tokens", |d| {
        let more: serde_json::Map<_, _> = (0..700_000).map(|i| (format!("<{i}>"), json!(489 + i))).collect();
        d.json("tokenizer.json", |t| t["model"]["vocab"].as_object_mut().unwrap().extend(more));
    });
    for graph in GRAPHS {
        list.add(KIND, format!("19 000 dead nodes in {graph}"), move |d| {
            let node =
                |i| onnx::wired("Neg", "dead", &[&format!("dead.{}", i - 1)], &format!("dead.{i}"), &[]);
            let dead: Vec<_> = (1..19_001).map(|i| (1, node(i))).collect();
            d.extend_graph(&format!("{graph}.onnx"), &dead);
        });
        list.add(KIND, format!("19 000 tensors in {graph}"), move |d| {
            let tensor = |i| onnx::inline(&format!("dead.{i}"), &[1], &[0; 4]);
            let dead: Vec<_> = (0..19_000).map(|i| (5, tensor(i))).collect();
            d.extend_graph(&format!("{graph}.onnx"), &dead);
        });
    }
    list.add(KIND, "a graph of 40 MB", |d| d.files.get_mut("denoise_step.onnx").unwrap().resize(40 << 20, 0));
    list.add(KIND, "5000 files", |d| {
        for i in 0..5000 {
            d.set(&format!("/files/listed {i}"), file_entry(b""));
        }
    });
    for file in [GOLDEN, "tokenizer.json"] {
        for size in [5 << 20, 70 << 20] {
            list.add(KIND, format!("{file} of {size} bytes"), move |d| {
                let bytes = d.files.get_mut(file).unwrap();
                let fill = size - bytes.len().min(size);
                bytes.splice(0..0, std::iter::repeat_n(b' ', fill));
            });
        }
        list.add(KIND, format!("{file} nested 100 000 deep"), move |d| {
            d.files.insert(file.into(), parts::deep(100_000));
        });
    }
    for (name, text) in parts::bad_manifests() {
        list.add(KIND, name, move |d| d.text = Some(text(&d.manifest)));
    }
    list.manifest(
        KIND,
        "/prompt/default",
        [json!("a".repeat(17_000)), json!("\u{1F600}".repeat(4000)), json!("a".repeat(16_000))],
    );
}

pub fn counts(list: &mut List) {
    let observation = crate::common::observation_dir();
    let observation = observation.to_str().unwrap();
    for threads in ["129", "9999", "4294967296", "18446744073709551615", "18446744073709551616", "-1"] {
        let arguments = ["run", "--observation", observation, "--threads", threads];
        list.run("threads", threads, &arguments, |_| {});
    }
    let steps = [0u64, 65, 100, 10_000, 1 << 32, u64::MAX].map(|n| json!(n));
    list.manifest("bounds", "/flow/num_steps", steps.clone());
    list.json("bounds", GOLDEN, "/cases/0/num_steps", steps);
    for cameras in [0usize, 17, 64, 100] {
        list.add("bounds", format!("{cameras} cameras"), move |d| {
            let camera = |i| json!({"name": format!("camera {i}"), "required": false});
            d.set("/cameras", (0..cameras).map(camera).collect());
        });
    }
    for stride in [json!(0), json!(-1), json!(u64::MAX)] {
        list.json("bounds", GOLDEN, "/cases/0/expected/keys/stride", [stride]);
    }
    list.manifest("bounds", "/opset", [json!(0), json!(21), json!(1u64 << 32)]);
    list.manifest(
        "bounds",
        "/flow/rtc_training_max_delay",
        [json!(0), json!(1), json!(10), json!(1u64 << 40)],
    );
    list.manifest(
        "bounds",
        "/format_version",
        [json!(0), json!(2), json!("1"), json!(null), json!(1.0), json!(u64::MAX)],
    );
}
