//! Graph files that may not reach ONNX Runtime.

use std::sync::LazyLock;

use crate::bundle_support::onnx::{
    Model, attribute, block, external, header, inline, int, int_attribute, node, node_of_domain, wired,
};
use crate::bundle_support::{Fixture, assert_refused};
use pi0_edge::ErrorKind::Integrity;
use pi0_edge::bundle::{Manifest, Target};
use pi0_edge::internals::{Rules, prescan};
use proptest::prelude::*;
use serde_json::json;

const DATA: &str = "vision_encoder.onnx.data";

/// Opens a bundle whose vision encoder was changed, with hashes that fit: only the pre-scan can refuse it.
fn open_with(change: impl FnOnce(&mut Model)) -> pi0_edge::Result<()> {
    let mut fixture = Fixture::new();
    change(fixture.graphs.get_mut("vision_encoder").unwrap());
    fixture.write().open().map(|_| ())
}

fn refused(words: &[&str], change: impl FnOnce(&mut Model)) {
    let mut all = vec!["vision_encoder.onnx is refused"];
    all.extend(words);
    assert_refused(open_with(change), Integrity, &all);
}

#[test]
fn external_data_may_only_be_in_the_graphs_own_file() {
    for location in [
        "../vision_encoder.onnx.data",
        "/etc/passwd",
        "a/../vision_encoder.onnx.data",
        "./vision_encoder.onnx.data",
        "vision_encoder.onnx.data\0",
        "vision_encoder.onnx.data/",
        "VISION_ENCODER.onnx.data",
        "denoise_step.onnx.data",
        "manifest.json",
        "*/_ORT_MEM_ADDR_/*",
        "",
    ] {
        refused(&["\"w\"", "its data is in", "may only be in \"vision_encoder.onnx.data\""], |m| {
            m.initializers.push(external("w", &[4], &[("location", location)]));
        });
    }
}

#[test]
fn external_data_must_be_inside_its_file() {
    for (entries, words) in [
        (vec![("offset", "8256")], "16 bytes at 8256, beyond the 8256 bytes"),
        (vec![("offset", "8241")], "16 bytes at 8241, beyond"),
        (vec![("offset", "18446744073709551615")], "beyond"),
        (vec![("offset", "18446744073709551616")], "offset 18446744073709551616 is out of range"),
        (vec![("offset", "-1")], "offset is \"-1\", not a number"),
        (vec![("offset", "0x10")], "not a number"),
        (vec![("offset", " 1")], "not a number"),
        (vec![("offset", "")], "not a number"),
        (vec![("length", "15")], "has 15 bytes, its type and dimensions need 16"),
        (vec![("length", "99999")], "has 99999 bytes"),
        (vec![("offset", "0"), ("offset", "4096")], "offset is given twice"),
        (vec![("location", DATA)], "location is given twice"),
        (vec![("checksum", "0")], "unknown entry \"checksum\""),
    ] {
        let mut all = vec![("location", DATA)];
        all.extend(entries);
        refused(&["\"w\"", words], |m| m.initializers.push(external("w", &[4], &all)));
    }
    open_with(|m| m.initializers.push(external("w", &[4], &[("location", DATA), ("offset", "8240")])))
        .unwrap();
}

#[test]
fn external_data_needs_a_listed_file() {
    let mut fixture = Fixture::new();
    fixture.files.remove(DATA);
    assert_refused(fixture.write().open(), Integrity, &["\"w0\"", "which the manifest does not list"]);
}

#[test]
fn data_must_be_in_one_place() {
    refused(&["data location is given twice"], |m| {
        let mut t = external("w", &[4], &[("location", DATA)]);
        // A second data location, after the one that says "external".
        int(&mut t, 14, 0);
        m.initializers.push(t);
    });
    refused(&["both inside and outside"], |m| {
        let mut t = external("w", &[4], &[("location", DATA)]);
        block(&mut t, 9, [0; 16]);
        m.initializers.push(t);
    });
    refused(&["data location is 0"], |m| {
        let mut t = inline("w", &[4], &[0; 16]);
        block(&mut t, 13, []);
        m.initializers.push(t);
    });
    refused(&["no location"], |m| m.initializers.push(external("w", &[4], &[("offset", "0")])));
}

#[test]
fn tensors_must_have_the_size_they_say() {
    refused(&["\"w\"", "its dimensions overflow"], |m| {
        m.initializers.push(external("w", &[1 << 40, 1 << 40], &[("location", DATA)]));
    });
    refused(&["its dimensions overflow"], |m| {
        m.initializers.push(external("w", &[u64::MAX, 2], &[("location", DATA)]));
    });
    refused(&["has 4 bytes, its type and dimensions need 8"], |m| {
        m.initializers.push(inline("w", &[2], &[0; 4]))
    });
    refused(&["element type 8 is not allowed"], |m| m.initializers.push(header("w", &[1], 8)));
    refused(&["the field 6, which is not allowed"], |m| {
        let mut t = header("w", &[1], 1);
        block(&mut t, 6, "text");
        m.initializers.push(t);
    });
    refused(&["more than 8 entries"], |m| m.initializers.push(inline("w", &[1; 9], &[0; 4])));
}

#[test]
fn inline_data_is_limited() {
    let mib = 1 << 20;
    open_with(|m| m.initializers.push(inline("w", &[mib / 4], &vec![0; mib as usize]))).unwrap();
    refused(&["\"w\" has 1048580 bytes inside the graph file"], |m| {
        m.initializers.push(inline("w", &[mib / 4 + 1], &vec![0; mib as usize + 4]));
    });
    refused(&["more than 16777216 bytes of constants"], |m| {
        m.initializers.extend((0..17).map(|_| inline("w", &[mib / 4], &vec![0; mib as usize])));
    });
    refused(&["node 1 (Cast", "an attribute has"], |m| {
        m.nodes.push(node("Cast", &[attribute("value_floats", 7, vec![0; mib as usize + 4])]));
    });
    refused(&["node 1 (Cast", "an attribute has"], |m| {
        let tensor = inline("v", &[mib / 4 + 1], &vec![0; mib as usize + 4]);
        m.nodes.push(node("Cast", &[attribute("value", 5, tensor)]));
    });
}

#[test]
fn operators_are_denied_unless_listed() {
    for op in [
        "If",
        "Loop",
        "Scan",
        "ConstantOfShape",
        "Upsample",
        "DepthToSpace",
        "ArrayFeatureExtractor",
        "",
        "matmul",
    ] {
        refused(&["node 1 (", op, "not one that the exporter emits"], |m| m.nodes.push(node(op, &[])));
    }
    for domain in ["ai.onnx.ml", "com.example", "com.microsoft"] {
        refused(&["node 1 (MatMul", domain], |m| m.nodes.push(node_of_domain("MatMul", domain)));
    }
    open_with(|m| m.nodes.push(node_of_domain("Softmax", "ai.onnx"))).unwrap();
}

#[test]
fn contrib_operators_are_for_targets_that_have_them() {
    let with_target = |target: &str, op: &str, version: u64| {
        let mut fixture = Fixture::new();
        fixture.manifest["target"] = json!(target);
        let graph = fixture.graphs.get_mut("vision_encoder").unwrap();
        graph.opsets.push(("com.microsoft", version));
        let mut node = wired(op, &format!("the_{op}"), &["in"; 6], "out", &[]);
        block(&mut node, 7, "com.microsoft");
        graph.nodes.push(node);
        fixture.write().open()
    };
    with_target("cpu", "MatMulIntegerToFloat", 1).unwrap();
    with_target("cuda", "MatMulIntegerToFloat", 1).unwrap();
    assert_refused(
        with_target("tensorrt", "MatMulIntegerToFloat", 1),
        Integrity,
        &["com.microsoft", "target cannot run"],
    );
    assert_refused(with_target("cpu", "Inverse", 1), Integrity, &["node 1 (Inverse", "com.microsoft"]);
    assert_refused(with_target("cpu", "MatMulIntegerToFloat", 2), Integrity, &["version 2", "com.microsoft"]);
}

#[test]
fn rounded_products_have_all_their_zero_points() {
    for inputs in [&["in"; 5][..], &["in", "in", "in", "in", "in", ""]] {
        refused(&["(MatMulIntegerToFloat", "not all of its scales and zero points"], |m| {
            let mut node = wired("MatMulIntegerToFloat", "rounded", inputs, "out", &[]);
            block(&mut node, 7, "com.microsoft");
            m.opsets.push(("com.microsoft", 1));
            m.nodes.push(node);
        });
    }
}

/// Kernels read as many weights and scales as the attributes say, whatever is there.
#[test]
fn weights_in_blocks_must_be_as_many_as_their_node_says() {
    const GOOD: [(&str, u64); 4] = [("N", 3), ("K", 40), ("bits", 8), ("block_size", 32)];
    let blocks = |attributes: [(&str, u64); 4], inputs: &[&str]| {
        let attributes = attributes.map(|(name, value)| int_attribute(name, value));
        let mut node = wired("MatMulNBits", "blocks", inputs, "out", &attributes);
        block(&mut node, 7, "com.microsoft");
        node
    };
    let build = |node: Vec<u8>, weights: u64, scales: u64| {
        move |m: &mut Model| {
            m.opsets.push(("com.microsoft", 1));
            m.nodes.push(node);
            m.initializers.push(inline("w", &[weights], &vec![0; 4 * weights as usize]));
            m.initializers.push(inline("s", &[scales], &vec![0; 4 * scales as usize]));
        }
    };
    let inputs = ["in", "w", "s"];
    open_with(build(blocks(GOOD, &inputs), 192, 6)).unwrap();
    refused(&["\"w\" has 191 elements", "reads 192"], build(blocks(GOOD, &inputs), 191, 6));
    refused(&["\"s\" has 5 elements", "reads 6"], build(blocks(GOOD, &inputs), 192, 5));
    refused(&["node 1 (MatMulNBits", "three inputs"], build(blocks(GOOD, &["in", "w", "s", "z"]), 192, 6));
    refused(&["\"x\"", "not an initializer"], build(blocks(GOOD, &["in", "x", "s"]), 192, 6));
    for (place, wrong) in [(0, 0), (1, 0), (0, 1 << 40), (2, 5), (2, 16), (3, 0), (3, 48), (3, 1 << 20)] {
        let mut attributes = GOOD;
        attributes[place].1 = wrong;
        refused(&["node 1 (MatMulNBits"], build(blocks(attributes, &inputs), 192, 6));
    }
}

#[test]
fn keys_are_repeated_for_tensorrt_alone() {
    let with_target = |target: &str| {
        let mut fixture = Fixture::new();
        fixture.manifest["target"] = json!(target);
        fixture.graphs.get_mut("vision_encoder").unwrap().nodes.push(node("Expand", &[]));
        fixture.write().open()
    };
    with_target("tensorrt").unwrap();
    for target in ["cpu", "cuda"] {
        assert_refused(
            with_target(target),
            Integrity,
            &["node 1 (Expand", "not one that the exporter emits"],
        );
    }
}

#[test]
fn what_may_divide_whole_numbers_is_refused() {
    let divides = ["node 1 (Div \"by\")", "may divide whole numbers"];
    refused(&divides, |m| m.nodes.push(wired("Div", "by", &["in", "in"], "out", &[])));
    refused(&divides, |m| {
        m.nodes.push(wired("Div", "by", &["in", "root"], "out", &[]));
        m.nodes.push(wired("Sqrt", "late", &["in"], "root", &[]));
    });
    refused(&["node 1 (Mod", "not one that the exporter emits"], |m| m.nodes.push(node("Mod", &[])));
    open_with(|m| {
        m.nodes.push(wired("Sqrt", "root", &["in"], "root", &[]));
        m.nodes.push(wired("Div", "unit", &["in", "root"], "unit", &[]));
    })
    .unwrap();
}

#[test]
fn counts_that_kernels_rely_on_must_agree() {
    let split = |attributes: &[Vec<u8>]| wired("Split", "parts", &["in"], "one", attributes);
    for outputs in [0, 2, u64::MAX] {
        refused(&["node 1 (Split \"parts\")", "num_outputs is not how many outputs it has"], |m| {
            m.nodes.push(split(&[int_attribute("num_outputs", outputs)]));
        });
    }
    refused(&["num_outputs is given twice"], |m| {
        m.nodes.push(split(&[int_attribute("num_outputs", 1), int_attribute("num_outputs", 2)]));
    });
    refused(&["num_outputs is not a whole number"], |m| {
        m.nodes.push(split(&[attribute("num_outputs", 4, "1")]));
    });
    open_with(|m| m.nodes.extend([split(&[int_attribute("num_outputs", 1)]), split(&[])])).unwrap();

    let heads = |queries: u64, keys: u64| {
        node("Attention", &[int_attribute("q_num_heads", queries), int_attribute("kv_num_heads", keys)])
    };
    for wrong in [0, 1 << 32, 1 << 63, u64::MAX] {
        refused(&["node 1 (Attention", "q_num_heads is not from 1"], |m| m.nodes.push(heads(wrong, 1)));
        refused(&["node 1 (Attention", "kv_num_heads is not from 1"], |m| m.nodes.push(heads(1, wrong)));
    }
    refused(&["has no q_num_heads"], |m| m.nodes.push(node("Attention", &[])));
    for op in ["MultiHeadAttention", "RotaryEmbedding"] {
        for (attributes, words) in [
            (vec![], "has no num_heads"),
            (vec![int_attribute("num_heads", 0)], "num_heads is not from 1"),
            (vec![int_attribute("num_heads", 1 << 32)], "num_heads is not from 1"),
            (
                vec![int_attribute("num_heads", 1), int_attribute("rotary_embedding_dim", 2)],
                "a part of each head",
            ),
        ] {
            refused(&[op, words], |m| {
                let mut node = node(op, &attributes);
                block(&mut node, 7, "com.microsoft");
                m.opsets.push(("com.microsoft", 1));
                m.nodes.push(node);
            });
        }
    }
    open_with(|m| m.nodes.push(heads(8, 1))).unwrap();
}

#[test]
fn subgraphs_functions_and_sparse_tensors_are_refused() {
    refused(&["node 1 (MatMul \"the_MatMul\")", "subgraph"], |m| {
        m.nodes.push(node("MatMul", &[attribute("body", 6, [])]));
    });
    refused(&["subgraph"], |m| m.nodes.push(node("MatMul", &[attribute("bodies", 11, [])])));
    refused(&["sparse tensor"], |m| m.nodes.push(node("Cast", &[attribute("sparse_value", 22, [])])));
    refused(&["attribute", "field 21"], |m| m.nodes.push(node("MatMul", &[attribute("a", 21, "outer")])));
    refused(&["an attribute's tensor has its data in another file"], |m| {
        let tensor = external("v", &[4], &[("location", DATA)]);
        m.nodes.push(node("Cast", &[attribute("value", 5, tensor)]));
    });
    refused(&["sparse initializers"], |m| block(&mut m.graph_extra, 15, []));
    refused(&["quantization annotations"], |m| block(&mut m.graph_extra, 14, []));
    refused(&["functions"], |m| block(&mut m.model_extra, 25, []));
    refused(&["training information"], |m| block(&mut m.model_extra, 20, []));
    refused(&["model has the unknown field 26"], |m| block(&mut m.model_extra, 26, []));
    refused(&["graph has the unknown field 99"], |m| block(&mut m.graph_extra, 99, []));
    refused(&["node 1 has the field 8"], |m| {
        let mut n = node("MatMul", &[]);
        block(&mut n, 8, "overload");
        m.nodes.push(n);
    });
}

#[test]
fn opsets_are_those_of_the_manifest() {
    for (opsets, words) in [
        (vec![("", 21)], "imports opset 21, the manifest says 20"),
        (vec![("", 19)], "imports opset 19"),
        (vec![], "does not import the default"),
        (vec![("com.microsoft", 1)], "does not import the default"),
        (vec![("", 20), ("ai.onnx", 20)], "imported twice"),
        (vec![("", 20), ("ai.onnx.ml", 3)], "version 3 of the operator set \"ai.onnx.ml\""),
    ] {
        refused(&[words], |m| m.opsets = opsets);
    }
    refused(&["ir_version is 3"], |m| m.ir_version = 3);
}

#[test]
fn the_signature_is_that_of_the_manifest() {
    refused(&["input pixel_values f32[views, 3, 28, 42] is missing"], |m| m.inputs.clear());
    refused(&["input pixel_values is there twice"], |m| m.inputs.push(m.inputs[0].clone()));
    refused(&["output", "is not expected"], |m| m.outputs.push(m.inputs[0].clone()));
    refused(&["output", "image_embeds", "expected image_embeds f32[views, 6, 8]"], |m| {
        let spec = json!({"name": "image_embeds", "dtype": "f16", "shape": ["views", 6, 8]});
        m.outputs = vec![crate::bundle_support::onnx::value_info(&spec)];
    });
    refused(&["image_embeds f32[views, 6, 9]"], |m| {
        let spec = json!({"name": "image_embeds", "dtype": "f32", "shape": ["views", 6, 9]});
        m.outputs = vec![crate::bundle_support::onnx::value_info(&spec)];
    });
    refused(&["image_embeds f32[batch, 6, 8]"], |m| {
        let spec = json!({"name": "image_embeds", "dtype": "f32", "shape": ["batch", 6, 8]});
        m.outputs = vec![crate::bundle_support::onnx::value_info(&spec)];
    });
    refused(&["input 1", "x has no type"], |m| {
        let mut v = Vec::new();
        block(&mut v, 1, "x");
        m.inputs.push(v);
    });
    refused(&["a dimension is not a positive size"], |m| {
        let spec = json!({"name": "x", "dtype": "f32", "shape": [0]});
        m.inputs.push(crate::bundle_support::onnx::value_info(&spec));
    });
}

#[test]
fn fields_given_twice_are_refused() {
    refused(&["graph is given twice"], |m| block(&mut m.model_extra, 7, []));
    refused(&["ir_version is given twice"], |m| int(&mut m.model_extra, 1, 10));
    refused(&["a node's op_type is given twice"], |m| {
        let mut n = node("MatMul", &[]);
        block(&mut n, 4, "If");
        m.nodes.push(n);
    });
}

#[test]
fn what_is_not_a_model_is_refused() {
    for bytes in [&b""[..], b"\x08", b"not a model at all", &[0xff; 64]] {
        let mut fixture = Fixture::new();
        fixture.graphs.remove("vision_encoder");
        fixture.files.insert("vision_encoder.onnx".into(), bytes.to_vec());
        assert_refused(fixture.write().open(), Integrity, &["vision_encoder.onnx is refused"]);
    }
    refused(&["too many inputs, outputs or attributes"], |m| {
        let mut n = node("MatMul", &[]);
        (0..1025).for_each(|_| block(&mut n, 1, "x"));
        m.nodes.push(n);
    });
    refused(&["more than 4096 nodes"], |m| m.nodes = vec![node("Add", &[]); 20_001]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file holds, the scan ends with a verdict: it neither panics nor takes long.
    #[test]
    fn damaged_models_end_in_a_verdict(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<proptest::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        static WHOLE: LazyLock<(Vec<u8>, Manifest)> = LazyLock::new(|| {
            let fixture = Fixture::new();
            let bytes = fixture.graphs["denoise_step"].encode();
            (bytes, Manifest::parse(fixture.manifest_json().to_string().as_bytes()).unwrap())
        });
        let (mut bytes, manifest) = (WHOLE.0.clone(), &WHOLE.1);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        let spec = &manifest.graphs.denoise_step;
        let rules = Rules { spec, opset: 20, target: Target::Cpu, data_size: Some(8256) };
        let _ = prescan(&bytes, &rules);
    }
}
