//! The hostile bundles: what is wrong with each, as a change to a good one. The same list every time.

use std::path::Path;

use serde_json::{Value, json};

use super::contents;
use super::draft::{Draft, put};
use super::parts::{self, added_token, png};
use crate::bundle_support::{file_entry, onnx};

/// What is done with a bundle.
pub enum Trial {
    /// It is loaded, its golden data read, and a chunk computed.
    Library,
    /// The program's verb is called on it, with these arguments.
    Program(Vec<String>),
}

pub struct Case {
    pub kind: &'static str,
    pub name: String,
    pub change: Box<dyn FnOnce(&mut Draft)>,
    pub trial: Trial,
}

pub const GOLDEN: &str = "golden/golden.json";
pub const CASE: &str = "golden/two_cameras_10_steps";
const GRAPHS: [&str; 4] = ["vision_encoder", "prefix_prefill", "time_conditioning", "denoise_step"];

pub struct List(Vec<Case>);

impl List {
    pub fn add(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        change: impl FnOnce(&mut Draft) + 'static,
    ) {
        self.0.push(Case { kind, name: name.into(), change: Box::new(change), trial: Trial::Library });
    }

    /// As [`add`](Self::add), for the program.
    pub fn run(
        &mut self,
        kind: &'static str,
        name: impl Into<String>,
        arguments: &[&str],
        change: impl FnOnce(&mut Draft) + 'static,
    ) {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        let trial = Trial::Program(arguments);
        self.0.push(Case { kind, name: name.into(), change: Box::new(change), trial });
    }

    /// Each value at a place of the manifest.
    pub fn manifest(
        &mut self,
        kind: &'static str,
        pointer: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) {
        for value in values {
            let name = format!("manifest {pointer} {:.40}", value.to_string());
            self.add(kind, name, move |d| d.set(pointer, value));
        }
    }

    /// Each value at a place of a JSON file.
    pub fn json(
        &mut self,
        kind: &'static str,
        file: &'static str,
        pointer: &'static str,
        values: impl IntoIterator<Item = Value>,
    ) {
        for value in values {
            let name = format!("{file} {pointer} {:.40}", value.to_string());
            self.add(kind, name, move |d| d.json(file, |json| put(json, pointer, value)));
        }
    }
}

/// Lists all cases.
pub fn all() -> Vec<Case> {
    let mut list = List(Vec::new());
    files_that_are_not_as_listed(&mut list);
    files_that_are_no_such_files(&mut list);
    paths(&mut list);
    contents::tokenizers(&mut list);
    contents::arrays(&mut list);
    dimensions(&mut list);
    bombs(&mut list);
    contents::nodes(&mut list);
    contents::texts(&mut list);
    counts(&mut list);
    oddities(&mut list);
    list.0
}

/// The files that are there once in every bundle, and those of one golden case.
fn some_files() -> Vec<String> {
    let all = Draft::read(&crate::common::tiny()).files;
    all.into_keys().filter(|name| !name.contains('/') || name == GOLDEN || name.starts_with(CASE)).collect()
}

fn files_that_are_not_as_listed(list: &mut List) {
    type Change = fn(&Path, &Path);
    let changes: [(&str, Change); 8] = [
        ("cut in half", |path, _| {
            let file = std::fs::File::options().write(true).open(path).unwrap();
            file.set_len(file.metadata().unwrap().len() / 2).unwrap();
        }),
        ("emptied", |path, _| std::fs::write(path, b"").unwrap()),
        ("a byte longer", |path, _| crate::bundle_support::tamper(path, |bytes| bytes.push(0))),
        ("another byte", |path, _| {
            crate::bundle_support::tamper(path, |bytes| *bytes.last_mut().unwrap() ^= 1);
        }),
        ("deleted", |path, _| std::fs::remove_file(path).unwrap()),
        ("a link to its like", |path, outside| {
            let target = outside.join("moved");
            std::fs::rename(path, &target).unwrap();
            std::os::unix::fs::symlink(target, path).unwrap();
        }),
        ("a directory", |path, _| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
        ("a pipe", |path, _| {
            std::fs::remove_file(path).unwrap();
            parts::pipe(path);
        }),
    ];
    for file in some_files() {
        for (what, change) in changes {
            let file = file.clone();
            list.add("files not as listed", format!("{file}: {what}"), move |d| {
                d.afterwards(move |bundle, outside| change(&bundle.join(file), outside));
            });
        }
    }
}

fn files_that_are_no_such_files(list: &mut List) {
    let changes: [(&str, fn(&mut Vec<u8>)); 7] = [
        ("cut in half", |b| b.truncate(b.len() / 2)),
        ("empty", Vec::clear),
        ("a byte short", |b| b.truncate(b.len() - 1)),
        ("twice", |b| b.extend_from_within(..)),
        ("zeros", |b| b.fill(0)),
        ("ones", |b| b.fill(0xff)),
        ("backwards", |b| b.reverse()),
    ];
    for file in some_files().into_iter().filter(|f| !f.ends_with(".data") && !f.ends_with("observation.json"))
    {
        for (what, change) in changes {
            // These are a table, a picture or an array again.
            let shape_only = file.ends_with(".bin") || file.ends_with(".npy") || file.ends_with(".png");
            if shape_only && !matches!(what, "cut in half" | "empty" | "a byte short" | "twice") {
                continue;
            }
            let (name, golden) = (file.clone(), file.ends_with(".png"));
            let change = move |d: &mut Draft| change(d.files.get_mut(&name).unwrap());
            match golden {
                true => list.run("sealed wrecks", format!("{file}: {what}"), &["check"], change),
                false => list.add("sealed wrecks", format!("{file}: {what}"), change),
            }
        }
    }
}

/// Paths that lead outside or to what is no file. What they need is put there by [`surroundings`].
const PATHS: &[&str] = &[
    "OUTSIDE/base.png",
    "../../../outside/base.png",
    "../../outside/base.png",
    "../outside/base.png",
    "/etc/passwd",
    "/dev/zero",
    "/proc/self/environ",
    "two_cameras_10_steps/../../../outside/base.png",
    "./base.png",
    ".//base.png",
    "",
    ".",
    "..",
    "/",
    "unlisted.png",
    "link.png",
    "linked/base.png",
    "pipe",
    "directory",
    "base.png\0",
    "base.png\n",
    "..\\..\\outside\\base.png",
    "file:///etc/passwd",
    "%2e%2e/base.png",
    "~/base.png",
];

/// Puts things beside the frames of the golden case, and at the bundle's top, that are not to be followed.
fn surroundings(bundle: &Path, outside: &Path) {
    for place in [bundle.join(CASE), bundle.join("golden"), bundle.to_owned()] {
        std::fs::write(place.join("unlisted.png"), png(4, 4)).unwrap();
        std::os::unix::fs::symlink(outside.join("base.png"), place.join("link.png")).unwrap();
        std::os::unix::fs::symlink(outside, place.join("linked")).unwrap();
        parts::pipe(&place.join("pipe"));
        std::fs::create_dir(place.join("directory")).unwrap();
    }
}

fn paths(list: &mut List) {
    for &path in PATHS.iter().chain([&*parts::LONG]) {
        let name = format!("{:.40}", path.escape_debug().to_string());
        // The place outside has no name before the bundle is written: the file is edited then, and its hash put right.
        let edit = move |file: String, pointer: &'static str| {
            move |d: &mut Draft| {
                d.afterwards(move |bundle, outside| {
                    surroundings(bundle, outside);
                    let path = path.replace("OUTSIDE", outside.to_str().unwrap());
                    parts::reseal(bundle, &file, |json| put(json, pointer, json!(path)));
                });
            }
        };
        let observation = format!("{CASE}/observation.json");
        list.run(
            "paths",
            format!("frame {name}"),
            &["check"],
            edit(observation, "/images/observation.images.base"),
        );
        for pointer in [
            "/cases/0/observation",
            "/cases/0/noise",
            "/cases/0/expected/keys/file",
            "/cases/0/expected/actions/file",
        ] {
            list.add("paths", format!("{pointer} {name}"), edit(GOLDEN.into(), pointer));
        }
        for pointer in
            ["/prompt/tokenizer", "/token_embedding/file", "/golden", "/graphs/vision_encoder/file"]
        {
            list.add("paths", format!("{pointer} {name}"), move |d| {
                d.set(pointer, json!(path));
                d.afterwards(surroundings);
            });
        }
        list.add("paths", format!("listed {name}"), move |d| {
            d.set(
                &format!("/files/listed {}", path.replace('~', "~0").replace('/', "~1")),
                file_entry(&png(4, 4)),
            );
            d.afterwards(surroundings);
        });
    }
    let data = "vision_encoder.onnx";
    for location in
        ["../outside/base.png", "/etc/passwd", "denoise_step.onnx.data", "link.png", "", "*/_ORT_MEM_ADDR_/*"]
    {
        list.add("paths", format!("weights at {location}"), move |d| {
            let tensor = onnx::external("hostile", &[1], &[("location", location)]);
            d.extend_graph(data, &[(5, tensor)]);
            d.afterwards(surroundings);
        });
    }
}

fn dimensions(list: &mut List) {
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

fn bombs(list: &mut List) {
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
        list.add(KIND, format!("40 MB in {graph}"), move |d| {
            d.files.get_mut(&format!("{graph}.onnx")).unwrap().resize(40 << 20, 0);
        });
    }
    list.add(KIND, "5000 files", |d| {
        for i in 0..5000 {
            d.set(&format!("/files/listed {i}"), file_entry(b""));
        }
    });
    for file in [GOLDEN, "tokenizer.json"] {
        for size in [5 << 20, 140 << 20] {
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

fn counts(list: &mut List) {
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

/// Strange, and no reason to refuse anything.
fn oddities(list: &mut List) {
    const KIND: &str = "harmless oddities";
    for key in ["prefix_mlp", "expert_mlp", "vision_mlp", "vision_layers"] {
        list.manifest(KIND, parts::leak(format!("/dimensions/{key}")), [json!(1), json!(7)]);
    }
    list.manifest(KIND, "/source/checkpoint", [json!(""), json!("caf\u{e9} \u{1F916}")]);
    list.manifest(KIND, "/golden", [json!(null)]);
    list.json(
        KIND,
        "tokenizer.json",
        "/decoder",
        [json!(null), json!({"type": "Hostile"}), json!(["x"; 1000])],
    );
    list.json(KIND, "tokenizer.json", "/truncation", [json!({"max_length": 0}), json!(null)]);
    for file in ["README.md", "notes/a.txt", "golden/more.npy"] {
        list.add(KIND, format!("{file} beside the others"), move |d| {
            d.afterwards(move |bundle, _| {
                let path = bundle.join(file);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, b"notes").unwrap();
            });
        });
        list.add(KIND, format!("{file} listed as well"), move |d| {
            _ = d.files.insert(file.into(), b"notes".to_vec())
        });
    }
    list.add(KIND, "a tokenizer with much white space", |d| {
        d.files.get_mut("tokenizer.json").unwrap().extend([b' '; 100_000]);
    });
    list.add(KIND, "a pipe beside the others", |d| {
        d.afterwards(|bundle, _| parts::pipe(&bundle.join("pipe")))
    });
    list.run(KIND, "an untouched bundle is checked", &["check"], |_| {});
    list.run(KIND, "an untouched bundle is inspected", &["inspect"], |_| {});
}
