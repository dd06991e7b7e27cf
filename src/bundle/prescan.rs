//! A look through an `.onnx` file before ONNX Runtime sees it.
//!
//! ONNX is a large format and most known ways to abuse a model file lie in parts that our graphs have no use for:
//! paths to outside files, nested graphs, functions, sparse tensors, exotic operators. So this is a list of what is
//! allowed; all else is refused, with the file, the node and the rule.

use std::collections::HashMap;

use super::graphs::{Dim, GraphSpec, TensorSpec, compare_tensors};
use super::manifest::{Dtype, Target};
use super::node_rules::{Node, NodeRules};
use super::tensor_rules::{Inline, check_attribute, check_initializer};
use super::wire::{Field, Fields, once, walk};
use crate::error::{Error, Result};

/// The operators that the exporter emits, over all policies, precisions and targets. An operator is added here together
/// with the exporter code that needs it; those that can make a large tensor of a few bytes (Expand, Tile, Range,
/// ConstantOfShape) had better not be.
const OPS: &[&str] = &[
    "Add",
    "Attention",
    "Cast",
    "Concat",
    "Conv",
    "Div",
    "DynamicQuantizeLinear",
    "Gather",
    "Gelu",
    "Gemm",
    "LayerNormalization",
    "Less",
    "MatMul",
    "Mul",
    "Neg",
    "Pow",
    "ReduceMean",
    "Reshape",
    "Sigmoid",
    "SimplifiedLayerNormalization",
    "Slice",
    "Softmax",
    "Split",
    "Sqrt",
    "Sub",
    "Transpose",
    "Where",
];

/// Further operators of graphs made for TensorRT, which repeat one key head for every query head, and round by scales that
/// were measured.
const TENSORRT_OPS: &[&str] = &["DequantizeLinear", "Expand", "QuantizeLinear", "Shape"];

/// ONNX Runtime's own operator set, for graphs that only it will ever run.
const CONTRIB_DOMAIN: &str = "com.microsoft";
/// Of it: the products with quantised weights, and what the CUDA provider runs as one kernel.
const CONTRIB_OPS: &[&str] = &[
    "FastGelu",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "MultiHeadAttention",
    "RotaryEmbedding",
    "SkipLayerNormalization",
    "SkipSimplifiedLayerNormalization",
];

/// Most bytes of an `.onnx` file; the weights are beside it.
pub(super) const MAX_GRAPH_BYTES: u64 = 32 << 20;
/// Nodes of a graph, and its tensors. Loading takes time that grows faster than their number.
const MAX_NODES: usize = 4096;
const MAX_INITIALIZERS: usize = 4096;
const MAX_NODE_EDGES: usize = 1_024;
const MAX_NODE_ATTRIBUTES: usize = 64;
const MAX_RANK: usize = 8;

/// The rules that a graph file is held against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The graph's entry in the manifest.
    pub spec: &'a GraphSpec,
    /// The only opset of the default domain that the file may import.
    pub opset: u32,
    /// The target of the bundle.
    pub target: Target,
    /// Size of the graph's external weights file, if the bundle has one.
    pub data_size: Option<u64>,
}

/// Walks the bytes of an `.onnx` file and checks them against `rules`.
///
/// # Errors
///
/// [`ErrorKind::Integrity`](crate::ErrorKind::Integrity), naming the file, the place in it and the rule it breaks.
pub fn prescan(bytes: &[u8], rules: &Rules<'_>) -> Result<()> {
    if bytes.len() as u64 > MAX_GRAPH_BYTES {
        return Err(refused(
            rules,
            format!("it has {} bytes, at most {MAX_GRAPH_BYTES} are allowed", bytes.len()),
        ));
    }
    scan_model(bytes, rules).map_err(|what| refused(rules, what))
}

fn refused(rules: &Rules<'_>, what: String) -> Error {
    err!(Integrity, "{} is refused: {what}", rules.spec.file)
}

fn scan_model(bytes: &[u8], rules: &Rules<'_>) -> Result<(), String> {
    let (mut graph, mut ir_version) = (None, None);
    let mut opsets: HashMap<&str, u64> = HashMap::new();
    walk(bytes, |field| match field.number {
        1 => once(&mut ir_version, field.varint()?, "ir_version"),
        7 => once(&mut graph, field.bytes()?, "graph"),
        8 => {
            let (domain, version) = opset_import(field.bytes()?)?;
            match opsets.insert(domain, version) {
                Some(_) => Err(format!("the operator set {domain:?} is imported twice")),
                None => Ok(()),
            }
        }
        // Producer name and version, domain, model version, doc string, metadata: read by nobody.
        2..=6 | 14 => Ok(()),
        20 => Err("it has training information".into()),
        25 => Err("it has functions, which are not allowed".into()),
        n => Err(format!("the model has the unknown field {n}")),
    })?;
    // Before 4, every initializer was also an input, and the signature could not be compared.
    if ir_version.is_none_or(|v| v < 4) {
        return Err(format!("its ir_version is {}, at least 4 is needed", ir_version.unwrap_or(0)));
    }
    check_opsets(&opsets, rules)?;
    let contrib = opsets.contains_key(CONTRIB_DOMAIN);
    scan_graph(graph.ok_or("it has no graph")?, rules, &|domain, op| match domain {
        "" => OPS.contains(&op) || (rules.target == Target::Tensorrt && TENSORRT_OPS.contains(&op)),
        CONTRIB_DOMAIN => contrib && CONTRIB_OPS.contains(&op),
        _ => false,
    })
}

fn opset_import(bytes: &[u8]) -> Result<(&str, u64), String> {
    let (mut domain, mut version) = (None, None);
    walk(bytes, |field| match field.number {
        1 => once(&mut domain, field.text()?, "an operator set's domain"),
        2 => once(&mut version, field.varint()?, "an operator set's version"),
        n => Err(format!("an operator set has the unknown field {n}")),
    })?;
    Ok((default_domain(domain.unwrap_or("")), version.unwrap_or(0)))
}

/// ONNX has two names for its default domain.
fn default_domain(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

fn check_opsets(opsets: &HashMap<&str, u64>, rules: &Rules<'_>) -> Result<(), String> {
    for (&domain, &version) in opsets {
        match domain {
            "" if version == u64::from(rules.opset) => {}
            "" => return Err(format!("it imports opset {version}, the manifest says {}", rules.opset)),
            CONTRIB_DOMAIN if !matches!(rules.target, Target::Cpu | Target::Cuda) => {
                return Err(format!("it imports {CONTRIB_DOMAIN}, which the bundle's target cannot run"));
            }
            CONTRIB_DOMAIN if version == 1 => {}
            _ => return Err(format!("it imports version {version} of the operator set {domain:?}")),
        }
    }
    if opsets.contains_key("") { Ok(()) } else { Err("it does not import the default operator set".into()) }
}

/// Says of a domain and an operator whether a node may have it.
type Allowed<'a> = &'a dyn Fn(&str, &str) -> bool;

fn scan_graph(bytes: &[u8], rules: &Rules<'_>, allowed: Allowed<'_>) -> Result<(), String> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    let (mut nodes, mut initializers) = (0, 0);
    let (mut inline, mut node_rules) = (Inline::default(), NodeRules::new(rules.target));
    let data_file = rules.spec.data_file();
    walk(bytes, |field| match field.number {
        1 => {
            scan_node(field.bytes()?, nodes, allowed, &mut inline, &mut node_rules)?;
            count(&mut nodes, MAX_NODES, "nodes")
        }
        5 => {
            let (name, elements) =
                check_initializer(field.bytes()?, &data_file, rules.data_size, &mut inline)
                    .map_err(|what| format!("initializer {initializers}: {what}"))?;
            node_rules.note(name, elements);
            count(&mut initializers, MAX_INITIALIZERS, "initializers")
        }
        11 => push_tensor(&mut inputs, field, "input"),
        12 => push_tensor(&mut outputs, field, "output"),
        // Name, doc string, shapes of inner values, metadata: nothing is computed from them.
        2 | 10 | 13 | 16 => Ok(()),
        14 => Err("it has quantization annotations".into()),
        15 => Err("it has sparse initializers, which are not allowed".into()),
        n => Err(format!("the graph has the unknown field {n}")),
    })?;
    node_rules.finish()?;
    compare_tensors("input", &inputs, &rules.spec.inputs)?;
    compare_tensors("output", &outputs, &rules.spec.outputs)
}

fn count(so_far: &mut usize, most: usize, what: &str) -> Result<(), String> {
    *so_far += 1;
    if *so_far > most { Err(format!("it has more than {most} {what}")) } else { Ok(()) }
}

fn scan_node<'a>(
    bytes: &'a [u8],
    index: usize,
    allowed: Allowed<'_>,
    inline: &mut Inline,
    rules: &mut NodeRules<'a>,
) -> Result<(), String> {
    let (mut name, mut op, mut domain) = (None, None, None);
    let mut node = Node::default();
    for field in Fields::new(bytes) {
        let field = field.map_err(|what| format!("node {index}: {what}"))?;
        match field.number {
            1 => node.inputs.push(field.text()?),
            2 => node.outputs.push(field.text()?),
            3 => once(&mut name, field.text()?, "a node's name")?,
            4 => once(&mut op, field.text()?, "a node's op_type")?,
            5 => node.attributes.push(field.bytes()?),
            7 => once(&mut domain, field.text()?, "a node's domain")?,
            // Doc string, metadata.
            6 | 9 => {}
            n => return Err(format!("node {index} has the field {n}, which is not allowed")),
        }
        let edges = node.inputs.len() + node.outputs.len();
        if edges > MAX_NODE_EDGES || node.attributes.len() > MAX_NODE_ATTRIBUTES {
            return Err(format!("node {index} has too many inputs, outputs or attributes"));
        }
    }
    let op = op.unwrap_or("");
    node.op = op;
    let place = || format!("node {index} ({op} {:?})", name.unwrap_or(""));
    if !allowed(default_domain(domain.unwrap_or("")), op) {
        return Err(match domain {
            None | Some("") => format!("{}: the operator is not one that the exporter emits", place()),
            Some(d) => {
                format!("{}: the operator of domain {d:?} is not one that the exporter emits", place())
            }
        });
    }
    let mut attributes = node.attributes.iter();
    attributes
        .try_for_each(|bytes| check_attribute(bytes, inline))
        .and_then(|()| rules.check(&node))
        .map_err(|what| format!("{}: {what}", place()))
}

fn push_tensor(list: &mut Vec<TensorSpec>, field: Field<'_>, what: &str) -> Result<(), String> {
    let tensor = tensor_spec(field.bytes()?).map_err(|e| format!("{what} {}: {e}", list.len()))?;
    list.push(tensor);
    Ok(())
}

/// Reads a `ValueInfoProto` of a tensor.
fn tensor_spec(bytes: &[u8]) -> Result<TensorSpec, String> {
    let (mut name, mut kind, mut tensor, mut elem, mut shape) = (None, None, None, None, None);
    walk(bytes, |field| match field.number {
        1 => once(&mut name, field.text()?, "the name"),
        2 => once(&mut kind, field.bytes()?, "the type"),
        3 | 4 => Ok(()),
        n => Err(format!("the unknown field {n}")),
    })?;
    let name = name.unwrap_or("");
    walk(kind.ok_or_else(|| format!("{name} has no type"))?, |field| match field.number {
        1 => once(&mut tensor, field.bytes()?, "the tensor type"),
        6 => Ok(()),
        _ => Err(format!("{name} is not a tensor")),
    })?;
    walk(tensor.ok_or_else(|| format!("{name} is not a tensor"))?, |field| match field.number {
        1 => once(&mut elem, field.varint()?, "the element type"),
        2 => once(&mut shape, field.bytes()?, "the shape"),
        n => Err(format!("{name}: its type has the unknown field {n}")),
    })?;
    let dtype = match elem {
        Some(1) => Dtype::F32,
        Some(7) => Dtype::I64,
        Some(10) => Dtype::F16,
        Some(16) => Dtype::Bf16,
        other => return Err(format!("{name} has the element type {}", other.unwrap_or(0))),
    };
    let mut dims = Vec::new();
    for field in Fields::new(shape.ok_or_else(|| format!("{name} has no shape"))?) {
        let field = field?;
        if field.number != 1 || dims.len() == MAX_RANK {
            return Err(format!("{name} has an unknown kind of shape"));
        }
        dims.push(dimension(field.bytes()?).map_err(|e| format!("{name}: {e}"))?);
    }
    Ok(TensorSpec { name: name.to_owned(), dtype, shape: dims })
}

fn dimension(bytes: &[u8]) -> Result<Dim, String> {
    let mut dim = None;
    walk(bytes, |field| match field.number {
        1 => {
            let size = usize::try_from(field.varint()?).ok().filter(|n| (1..=1 << 40).contains(n));
            let size = size.ok_or("a dimension is not a positive size")?;
            once(&mut dim, Dim::Fixed(size), "a dimension's size")
        }
        2 => once(&mut dim, Dim::Named(field.text()?.to_owned()), "a dimension's size"),
        3 => Ok(()),
        n => Err(format!("a dimension has the unknown field {n}")),
    })?;
    dim.ok_or_else(|| "a dimension has neither size nor name".into())
}
