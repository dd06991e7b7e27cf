//! The hostile bundles: what is wrong with each, as a change to a good one. The same list every time.

use std::path::Path;

use serde_json::{Value, json};

use super::draft::{Draft, put};
use super::parts::{self, png};
use super::{amounts, contents};
use crate::bundle_support::{file_entry, onnx};

/// The use that is made of a bundle.
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
    amounts::dimensions(&mut list);
    amounts::bombs(&mut list);
    contents::nodes(&mut list);
    contents::texts(&mut list);
    amounts::counts(&mut list);
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
    type Change = fn(&mut Vec<u8>);
    let changes: [(&str, Change); 7] = [
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
        [json!(null), json!({"type": "Hostile"}), json!(vec!["x"; 1000])],
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
