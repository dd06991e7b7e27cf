//! A writer for the few ONNX messages that the tests need, able to write what no ONNX library would.

/// Appends one field: a varint for [`int`], a block of bytes for [`block`].
pub fn int(out: &mut Vec<u8>, field: u32, value: u64) {
    varint(out, u64::from(field) << 3);
    varint(out, value);
}

pub fn block(out: &mut Vec<u8>, field: u32, bytes: impl AsRef<[u8]>) {
    varint(out, u64::from(field) << 3 | 2);
    varint(out, bytes.as_ref().len() as u64);
    out.extend_from_slice(bytes.as_ref());
}

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn message(build: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    build(&mut out);
    out
}

/// A model and its graph, in pieces that a test can change before they are written.
#[derive(Clone)]
pub struct Model {
    pub ir_version: u64,
    pub opsets: Vec<(&'static str, u64)>,
    pub nodes: Vec<Vec<u8>>,
    pub initializers: Vec<Vec<u8>>,
    pub inputs: Vec<Vec<u8>>,
    pub outputs: Vec<Vec<u8>>,
    /// Bytes put at the end of the graph and of the model.
    pub graph_extra: Vec<u8>,
    pub model_extra: Vec<u8>,
}

impl Model {
    pub fn encode(&self) -> Vec<u8> {
        let graph = message(|g| {
            self.nodes.iter().for_each(|n| block(g, 1, n));
            block(g, 2, "graph");
            self.initializers.iter().for_each(|t| block(g, 5, t));
            self.inputs.iter().for_each(|v| block(g, 11, v));
            self.outputs.iter().for_each(|v| block(g, 12, v));
            g.extend(&self.graph_extra);
        });
        message(|m| {
            int(m, 1, self.ir_version);
            block(m, 2, "test");
            block(m, 7, graph);
            for (domain, version) in &self.opsets {
                block(
                    m,
                    8,
                    message(|o| {
                        block(o, 1, domain);
                        int(o, 2, *version);
                    }),
                );
            }
            m.extend(&self.model_extra);
        })
    }
}

pub fn node(op: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    message(|n| {
        block(n, 1, "in");
        block(n, 2, "out");
        block(n, 3, format!("the_{op}"));
        block(n, 4, op);
        attributes.iter().for_each(|a| block(n, 5, a));
    })
}

/// A node between named values.
pub fn wired(op: &str, name: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    message(|n| {
        inputs.iter().for_each(|i| block(n, 1, i));
        block(n, 2, output);
        block(n, 3, name);
        block(n, 4, op);
        attributes.iter().for_each(|a| block(n, 5, a));
    })
}

/// A whole number as an attribute.
pub fn int_attribute(name: &str, value: u64) -> Vec<u8> {
    message(|a| {
        block(a, 1, name);
        int(a, 3, value);
        int(a, 20, 2);
    })
}

pub fn node_of_domain(op: &str, domain: &str) -> Vec<u8> {
    let mut n = node(op, &[]);
    block(&mut n, 7, domain);
    n
}

/// An attribute that holds `bytes` in the given field of `AttributeProto`.
pub fn attribute(name: &str, field: u32, bytes: impl AsRef<[u8]>) -> Vec<u8> {
    message(|a| {
        block(a, 1, name);
        block(a, field, bytes);
    })
}

/// An f32 tensor with its data inside.
pub fn inline(name: &str, dims: &[u64], raw: &[u8]) -> Vec<u8> {
    let mut t = header(name, dims, 1);
    block(&mut t, 9, raw);
    t
}

/// An f32 tensor with its data elsewhere.
pub fn external(name: &str, dims: &[u64], entries: &[(&str, &str)]) -> Vec<u8> {
    let mut t = header(name, dims, 1);
    for (key, value) in entries {
        block(
            &mut t,
            13,
            message(|e| {
                block(e, 1, key);
                block(e, 2, value);
            }),
        );
    }
    int(&mut t, 14, 1);
    t
}

pub fn header(name: &str, dims: &[u64], data_type: u64) -> Vec<u8> {
    message(|t| {
        dims.iter().for_each(|&d| int(t, 1, d));
        int(t, 2, data_type);
        block(t, 8, name);
    })
}

/// A `ValueInfoProto` from a tensor entry of the manifest.
pub fn value_info(spec: &serde_json::Value) -> Vec<u8> {
    let elem = match spec["dtype"].as_str().unwrap() {
        "f32" => 1,
        "i64" => 7,
        "f16" => 10,
        "bf16" => 16,
        other => panic!("{other}"),
    };
    let shape = message(|s| {
        for dim in spec["shape"].as_array().unwrap() {
            block(
                s,
                1,
                message(|d| match dim.as_u64() {
                    Some(n) => int(d, 1, n),
                    None => block(d, 2, dim.as_str().unwrap()),
                }),
            );
        }
    });
    let tensor = message(|t| {
        int(t, 1, elem);
        block(t, 2, shape);
    });
    message(|v| {
        block(v, 1, spec["name"].as_str().unwrap());
        block(v, 2, message(|t| block(t, 1, tensor)));
    })
}
