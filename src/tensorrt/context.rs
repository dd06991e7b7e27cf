//! A graph's EP context model: an ONNX file with one node, which names a finished engine.
//!
//! ONNX Runtime calls the node `EPContext`. The file does not hold the graph itself, which is what makes it certain
//! that a session made from it builds nothing: a missing or unreadable engine can only be an error.

use std::collections::BTreeMap;

use crate::bundle::wire::{once, walk};
use crate::bundle::{Dim, Dtype, FileEntry, GraphSpec, TensorSpec};

/// Checks that `model`, the bytes of a context model, has one node and that the node's engine is one of `files`;
/// returns the engine's name.
///
/// # Errors
/// The words say what it is instead.
pub fn check_context_model(model: &[u8], files: &BTreeMap<String, FileEntry>) -> Result<String, String> {
    let mut graph = None;
    walk(model, |field| match field.number {
        7 => once(&mut graph, field.bytes()?, "the graph"),
        _ => Ok(()),
    })?;
    let mut nodes = Vec::new();
    walk(graph.ok_or("it has no graph")?, |field| match field.number {
        1 => {
            nodes.push(field.bytes()?);
            Ok(())
        }
        5 | 15 => Err("it holds weights, so a part of the graph is outside of the engine".into()),
        _ => Ok(()),
    })?;
    let [node] = nodes[..] else {
        return Err(format!(
            "it has {} nodes where one engine should stand for the whole graph",
            nodes.len()
        ));
    };
    let engine = engine_of(node)?;
    match files.get(&engine) {
        Some(entry) if entry.size > 0 => Ok(engine),
        Some(_) => Err(format!("its engine {engine} is empty")),
        None => Err(format!("its engine {engine:?} is not a file of this set")),
    }
}

/// Returns the context model of a graph whose engine is the file `engine` beside it, as ONNX Runtime's TensorRT provider
/// would write it.
pub fn context_model(spec: &GraphSpec, engine: &str) -> Vec<u8> {
    const STRING: u64 = 3;
    const INT: u64 = 2;
    let text = |number, text: &str| block(number, text.as_bytes());
    let int = |name: &str, value| block(5, &[text(1, name), varint(3, value), varint(20, INT)].concat());
    let string =
        |name: &str, value: &str| block(5, &[text(1, name), text(4, value), varint(20, STRING)].concat());
    let names = |number, tensors: &[TensorSpec]| -> Vec<u8> {
        tensors.iter().flat_map(|t| text(number, &t.name)).collect()
    };
    let node = [
        names(1, &spec.inputs),
        names(2, &spec.outputs),
        text(3, "engine"),
        text(4, "EPContext"),
        int("main_context", 1),
        int("embed_mode", 0),
        string("ep_cache_context", engine),
        string("source", "TensorrtExecutionProvider"),
        text(7, "com.microsoft"),
    ];
    let values = |number, tensors: &[TensorSpec]| -> Vec<u8> {
        tensors.iter().flat_map(|t| block(number, &value_info(t))).collect()
    };
    let graph =
        [block(1, &node.concat()), text(2, "engine"), values(11, &spec.inputs), values(12, &spec.outputs)];
    let opset = |domain: &str, version| block(8, &[text(1, domain), varint(2, version)].concat());
    [varint(1, 10), block(7, &graph.concat()), opset("", 20), opset("com.microsoft", 1)].concat()
}

fn value_info(tensor: &TensorSpec) -> Vec<u8> {
    let element = match tensor.dtype {
        Dtype::F32 => 1,
        Dtype::I64 => 7,
        Dtype::F16 => 10,
        Dtype::Bf16 => 16,
    };
    let dim = |dim: &Dim| match dim {
        Dim::Fixed(n) => block(1, &varint(1, *n as u64)),
        Dim::Named(name) => block(1, &block(2, name.as_bytes())),
    };
    let shape: Vec<u8> = tensor.shape.iter().flat_map(dim).collect();
    let kind = block(1, &[varint(1, element), block(2, &shape)].concat());
    [block(1, tensor.name.as_bytes()), block(2, &kind)].concat()
}

/// A field of bytes, text or message type.
fn block(number: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![number << 3 | 2], number_of(bytes.len() as u64), bytes.to_vec()].concat()
}

/// A field of integer type.
fn varint(number: u8, value: u64) -> Vec<u8> {
    // A tag of two bytes from field 16 on.
    [number_of(u64::from(number) << 3), number_of(value)].concat()
}

fn number_of(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value > 127 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn engine_of(node: &[u8]) -> Result<String, String> {
    let (mut op, mut domain) = (None, None);
    let (mut embedded, mut engine) = (None, None);
    walk(node, |field| match field.number {
        4 => once(&mut op, field.text()?, "the operator"),
        5 => {
            let (mut name, mut number, mut text) = (None, None, None);
            walk(field.bytes()?, |part| match part.number {
                1 => once(&mut name, part.text()?, "an attribute's name"),
                3 => once(&mut number, part.varint()?, "an attribute's number"),
                4 => once(&mut text, part.bytes()?, "an attribute's text"),
                _ => Ok(()),
            })?;
            match name {
                // A field left out is zero.
                Some("embed_mode") => once(&mut embedded, number.unwrap_or(0), "embed_mode"),
                Some("ep_cache_context") => once(&mut engine, text.unwrap_or_default(), "the engine"),
                _ => Ok(()),
            }
        }
        7 => once(&mut domain, field.text()?, "the operator's domain"),
        _ => Ok(()),
    })?;
    if (domain, op) != (Some("com.microsoft"), Some("EPContext")) {
        return Err(format!("its node is a {}, not an engine", op.unwrap_or("nameless operator")));
    }
    if embedded != Some(0) {
        return Err("its engine is inside the file instead of beside it".into());
    }
    String::from_utf8(engine.unwrap_or_default().to_vec()).map_err(|_| "its engine's name is no text".into())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    use super::block as field;

    fn attribute(name: &str, value: &[u8]) -> Vec<u8> {
        field(5, &[field(1, name.as_bytes()), value.to_vec()].concat())
    }

    fn node(op: &str, embed_mode: u8, engine: &str) -> Vec<u8> {
        let mode = attribute("embed_mode", &[3 << 3, embed_mode]);
        let engine = attribute("ep_cache_context", &field(4, engine.as_bytes()));
        field(1, &[field(4, op.as_bytes()), mode, engine, field(7, b"com.microsoft")].concat())
    }

    /// A context model for `engine` as ONNX Runtime writes one.
    pub(in crate::tensorrt) fn one_node(engine: &str) -> Vec<u8> {
        field(7, &node("EPContext", 0, engine))
    }

    fn files(size: u64) -> BTreeMap<String, FileEntry> {
        BTreeMap::from([("a.engine".to_owned(), FileEntry { size, sha256: String::new() })])
    }

    #[test]
    fn one_made_from_a_signature_passes() {
        let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/models/pi0-tiny/manifest.json");
        let manifest = crate::bundle::Manifest::read(manifest.as_ref()).unwrap();
        for graph in crate::bundle::GraphName::ALL {
            let model = context_model(manifest.graph(graph), "a.engine");
            assert_eq!(check_context_model(&model, &files(1)).as_deref(), Ok("a.engine"));
        }
    }

    #[test]
    fn one_node_that_names_a_file_of_the_set_passes() {
        assert_eq!(check_context_model(&one_node("a.engine"), &files(1)).as_deref(), Ok("a.engine"));
    }

    #[test]
    fn anything_else_does_not() {
        let engine = node("EPContext", 0, "a.engine");
        let cases: [(Vec<u8>, &str); 8] = [
            (field(7, &[engine.clone(), engine.clone()].concat()), "2 nodes"),
            (field(7, &[engine.clone(), field(5, b"")].concat()), "weights"),
            (field(7, b""), "0 nodes"),
            (field(7, &node("MatMul", 0, "a.engine")), "MatMul"),
            (field(7, &node("EPContext", 1, "a.engine")), "inside the file"),
            (one_node("../a.engine"), "not a file of this set"),
            (one_node("/tmp/a.engine"), "not a file of this set"),
            (b"text".to_vec(), ""),
        ];
        for (model, words) in cases {
            let error = check_context_model(&model, &files(1)).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        assert!(check_context_model(&one_node("a.engine"), &files(0)).unwrap_err().contains("empty"));
    }
}
