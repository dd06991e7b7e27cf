//! A bundle in memory, to be spoiled and written with the hashes that it then has.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::bundle_support::{file_entry, onnx};

/// A change to a bundle once it is written.
type Afterwards = Box<dyn FnOnce(&Path, &Path)>;

pub struct Draft {
    pub manifest: Value,
    pub files: BTreeMap<String, Vec<u8>>,
    /// Takes the place of the manifest's text.
    pub text: Option<Vec<u8>>,
    afterwards: Vec<Afterwards>,
}

impl Draft {
    /// Reads a whole bundle.
    pub fn read(bundle: &Path) -> Self {
        fn collect(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
            for entry in directory.read_dir().unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
                match entry.path() {
                    path if path.is_dir() => collect(&path, &format!("{name}/"), files),
                    path => _ = files.insert(name, std::fs::read(path).unwrap()),
                }
            }
        }
        let mut files = BTreeMap::new();
        collect(bundle, "", &mut files);
        let manifest = serde_json::from_slice(&files.remove("manifest.json").unwrap()).unwrap();
        Draft { manifest, files, text: None, afterwards: Vec::new() }
    }

    /// Puts `value` at `pointer` of the manifest.
    pub fn set(&mut self, pointer: &str, value: Value) {
        put(&mut self.manifest, pointer, value);
    }

    /// Changes the JSON file `name`.
    pub fn json(&mut self, name: &str, change: impl FnOnce(&mut Value)) {
        let bytes = self.files.get_mut(name).unwrap();
        let mut value = serde_json::from_slice(bytes).unwrap();
        change(&mut value);
        *bytes = value.to_string().into_bytes();
    }

    /// Adds the messages to the graph of the file `name`, each as the field with its number.
    pub fn extend_graph(&mut self, name: &str, messages: &[(u32, Vec<u8>)]) {
        let bytes = self.files.get_mut(name).unwrap();
        let mut graph = None;
        let mut rest = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let begin = at;
            let tag = varint(bytes, &mut at);
            match tag & 7 {
                0 => _ = varint(bytes, &mut at),
                2 => {
                    let length = varint(bytes, &mut at) as usize;
                    at += length;
                    if tag >> 3 == 7 {
                        graph = Some(bytes[at - length..at].to_vec());
                        continue;
                    }
                }
                kind => panic!("wire type {kind}"),
            }
            rest.extend_from_slice(&bytes[begin..at]);
        }
        let mut graph = graph.expect("a graph");
        messages.iter().for_each(|(field, message)| onnx::block(&mut graph, *field, message));
        onnx::block(&mut rest, 7, graph);
        *bytes = rest;
    }

    /// Has `change` done to the bundle's directory when it is written; its second path is a directory outside, where
    /// nothing may be read.
    pub fn afterwards(&mut self, change: impl FnOnce(&Path, &Path) + 'static) {
        self.afterwards.push(Box::new(change));
    }

    /// Writes the bundle to `directory`: every file with its size and hash, unless the manifest was told otherwise.
    pub fn write(mut self, directory: &Path, outside: &Path) {
        let mut table = serde_json::Map::new();
        for (name, bytes) in &self.files {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
            table.insert(name.clone(), file_entry(bytes));
        }
        if let Some(listed) = self.manifest["files"].as_object_mut() {
            // Entries that the change added stay as they are.
            listed.retain(|name, _| !table.contains_key(name) && name.starts_with("listed "));
            let added = std::mem::take(listed).into_iter().map(|(name, entry)| (name[7..].to_owned(), entry));
            *listed = table.into_iter().chain(added).collect();
        }
        let text = self.text.unwrap_or_else(|| self.manifest.to_string().into_bytes());
        std::fs::write(directory.join("manifest.json"), text).unwrap();
        self.afterwards.into_iter().for_each(|change| change(directory, outside));
    }
}

/// Puts `value` at `pointer`, whose last part may be new.
pub fn put(root: &mut Value, pointer: &str, value: Value) {
    if let Some(place) = root.pointer_mut(pointer) {
        *place = value;
        return;
    }
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    root.pointer_mut(parent).unwrap()[key.replace("~1", "/").replace("~0", "~")] = value;
}

fn varint(bytes: &[u8], at: &mut usize) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let byte = bytes[*at];
        *at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}
