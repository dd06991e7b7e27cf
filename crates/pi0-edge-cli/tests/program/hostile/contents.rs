//! Hostile bundles whose files are of the right kind by name and something else by content.

use serde_json::{Value, json};

use super::cases::{CASE, GOLDEN, List};
use super::draft::put;
use super::parts::{self, added_token};
use crate::bundle_support::{npy, onnx};

pub fn tokenizers(list: &mut List) {
    const FILE: &str = "tokenizer.json";
    const KIND: &str = "tokenizers";
    let piece = "x".repeat(200_000);
    let models = [
        json!({"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], [piece, -1.0]]}),
        json!({"type": "Unigram", "unk_id": 9, "vocab": []}),
        json!({"type": "WordPiece", "unk_token": "u", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": {}}),
        json!({"type": "WordLevel", "unk_token": "u", "vocab": {"u": 0}}),
        json!({"type": "BPE", "vocab": {}, "merges": []}),
        json!({}),
        json!(null),
        json!([]),
        json!(7),
    ];
    list.json(KIND, FILE, "/model", models);
    let charsmap = |n: usize| json!({"type": "Precompiled", "precompiled_charsmap": "A".repeat(n)});
    let nested =
        (0..100).fold(json!({"type": "NFC"}), |inner, _| json!({"type": "Sequence", "normalizers": [inner]}));
    let replace =
        |pattern: Value, content: String| json!({"type": "Replace", "pattern": pattern, "content": content});
    let normalizers = [
        charsmap(11),
        charsmap(12),
        charsmap(100_000),
        nested.clone(),
        replace(json!({"Regex": "(a+)+$"}), "x".into()),
        replace(json!({"String": ""}), "x".into()),
        replace(json!({"String": " "}), "x".repeat(1 << 20)),
        replace(json!({"String": "e"}), "ee".into()),
        json!({"type": "Prepend", "prepend": "x".repeat(1 << 20)}),
        json!({"type": "NFKC"}),
        json!({"type": "Lowercase"}),
        json!({"type": "BertNormalizer", "clean_text": true}),
        json!(null),
        json!("x"),
    ];
    list.json(KIND, FILE, "/normalizer", normalizers);
    let cuts = [
        json!({"type": "Split", "pattern": {"Regex": "(a*)*b"}, "behavior": "Isolated", "invert": false}),
        json!({"type": "Split", "pattern": {"String": ""}, "behavior": "Isolated", "invert": false}),
        json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
        json!({"type": "Metaspace", "replacement": "__", "prepend_scheme": "always", "split": true}),
        json!({"type": "Sequence", "pretokenizers": []}),
        json!(1e300),
    ];
    list.json(KIND, FILE, "/pre_tokenizer", cuts);
    let template = |single: Value, special: Value| json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": special});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let bos = json!({"SpecialToken": {"id": "<bos>", "type_id": 0}});
    let ids = |ids: Value| json!({"<bos>": {"id": "<bos>", "ids": ids, "tokens": ["<bos>"]}});
    let around = [
        template(json!([]), json!({})),
        template(json!([text, text]), json!({})),
        template(json!([bos, text]), json!({})),
        template(json!([bos, text]), ids(json!([1u64 << 32]))),
        template(json!([bos, text]), ids(json!([-1]))),
        template(json!([bos, text]), ids(json!([4_000_000_000u32]))),
        template(json!([bos, text]), ids(json!(vec![2; 100_000]))),
        template(json!([{"SpecialToken": {}}, text]), json!({})),
        json!({"type": "RobertaProcessing", "sep": ["a", 0], "cls": ["b", 1]}),
        json!({"type": "Sequence", "processors": [null]}),
    ];
    list.json(KIND, FILE, "/post_processor", around);
    let added = [
        json!([added_token(0, "")]),
        json!([added_token(7, "<pad>")]),
        json!([added_token(u64::from(u32::MAX), "new")]),
        json!([added_token(1 << 32, "new")]),
        json!([added_token(489, "new"), added_token(489, "other")]),
        json!([added_token(489, &"y".repeat(1 << 20))]),
        json!(parts::with(added_token(489, "new"), "single_word")),
        json!(parts::with(added_token(489, "new"), "lstrip")),
        json!([{}]),
        json!({}),
    ];
    list.json(KIND, FILE, "/added_tokens", added);
    let merges = [
        json!([["a"]]),
        json!([["a", "n", "t"]]),
        json!(["a n t"]),
        json!(["an"]),
        json!([["nobody", "knows"]]),
        json!([["", ""]]),
        json!([[null, null]]),
        json!({}),
        json!("a n"),
    ];
    list.json(KIND, FILE, "/model/merges", merges);
    for (pointer, value) in [
        ("/version", json!("2.0")),
        ("/version", json!(1)),
        ("/model/dropout", json!(0.5)),
        ("/model/dropout", json!("x")),
        ("/model/byte_fallback", json!(false)),
        ("/model/ignore_merges", json!(true)),
        ("/model/continuing_subword_prefix", json!("##")),
        ("/model/end_of_word_suffix", json!("</w>")),
        ("/model/vocab", json!({"a": -1})),
        ("/model/vocab", json!({"a": 4_294_967_296u64})),
        ("/model/vocab", json!([])),
        ("/model/vocab/<0x41>", json!(4_000_000_000u32)),
        ("/model/vocab/a", json!(4_000_000_000u32)),
    ] {
        list.json(KIND, FILE, pointer, [value]);
    }
    for (name, bytes) in parts::not_json() {
        list.add(KIND, name, move |d| _ = d.files.insert(FILE.into(), bytes));
    }
}

pub fn arrays(list: &mut List) {
    let headers = parts::npy_headers();
    for (index, header) in headers.into_iter().enumerate() {
        for file in ["noise", "keys", "actions"] {
            let header = header.clone();
            list.add("arrays", format!("{file} header {index} {:.30}", header.escape_debug()), move |d| {
                d.files.insert(format!("{CASE}/{file}.npy"), parts::npy_with(&header, 320 * 4));
            });
        }
    }
    for (name, bytes) in parts::not_npy() {
        list.add("arrays", name, move |d| _ = d.files.insert(format!("{CASE}/noise.npy"), bytes));
    }
    for shape in [vec![320], vec![32, 10], vec![1, 10, 32], vec![0, 32], vec![10, 31]] {
        list.add("arrays", format!("noise of {shape:?}"), move |d| {
            let values = vec![0.5; shape.iter().product()];
            d.files.insert(format!("{CASE}/noise.npy"), npy(&shape, values));
        });
    }
}

pub fn nodes(list: &mut List) {
    let numbers = |op: &str, heads: u64| {
        let attributes =
            [onnx::int_attribute("q_num_heads", heads), onnx::int_attribute("kv_num_heads", heads)];
        onnx::wired(op, "hostile", &["x_t", "x_t", "x_t"], "hostile", &attributes)
    };
    let plain = |op: &str| onnx::wired(op, "hostile", &["step", "step"], "hostile", &[]);
    let graph = onnx::attribute("body", 6, b"");
    let mut all = vec![
        (
            "Split in 2^31",
            onnx::wired(
                "Split",
                "hostile",
                &["step"],
                "hostile",
                &[onnx::int_attribute("num_outputs", 1 << 31)],
            ),
        ),
        ("attention of 0 heads", numbers("Attention", 0)),
        ("attention of 2^32 heads", numbers("Attention", 1 << 32)),
        ("attention of 2^63 heads", numbers("Attention", 1 << 63)),
        ("attention of no heads", onnx::node_of_domain("MultiHeadAttention", "com.microsoft")),
        ("a graph inside", onnx::wired("Neg", "hostile", &["step"], "hostile", &[graph])),
        ("another domain", onnx::node_of_domain("Neg", "com.hostile")),
    ];
    for op in [
        "Div",
        "Mod",
        "If",
        "Loop",
        "Scan",
        "ConstantOfShape",
        "Upsample",
        "Resize",
        "Range",
        "Tile",
        "Expand",
        "DepthToSpace",
        "ArrayFeatureExtractor",
        "",
    ] {
        all.push((op, plain(op)));
    }
    for (name, node) in all {
        list.add("nodes", name, move |d| d.extend_graph("denoise_step.onnx", &[(1, node)]));
    }
}

pub fn texts(list: &mut List) {
    const KIND: &str = "texts";
    let long = "w".repeat(3 << 20);
    let all = ["\u{1b}[2J\u{1b}]0;owned\u{7}", "\u{9b}31m", "a\r\nb", "\u{202e}gnp", "\u{0}", "\u{7f}\u{8}"];
    for text in all.into_iter().map(str::to_owned).chain([long]) {
        let shown = format!("{:.20}", text.escape_debug().to_string());
        for pointer in [
            "/exporter",
            "/source/checkpoint",
            "/source/format",
            "/policy",
            "/precision",
            "/cameras/0/name",
            "/cameras/2/name",
            "/state/name",
            "/action/names/0",
            "/prompt/tokenizer",
            "/graphs/denoise_step/inputs/0/name",
            "/flow/convention",
            "/hostile",
        ] {
            let text = text.clone();
            list.add(KIND, format!("{pointer} {shown}"), move |d| d.set(pointer, json!(text)));
        }
        for pointer in ["/exporter", "/cameras/2/name", "/action/names/0"] {
            let text = text.clone();
            list.run(KIND, format!("inspect {pointer} {shown}"), &["inspect"], move |d| {
                d.set(pointer, json!(text))
            });
        }
        for pointer in ["/cases/0/name", "/cases/0/noise", "/reference/torch"] {
            let text = text.clone();
            list.add(KIND, format!("{pointer} {shown}"), move |d| {
                d.json(GOLDEN, |g| put(g, pointer, json!(text)))
            });
        }
        let node = onnx::wired(&text, &text, &["step"], "hostile", &[]);
        list.add(KIND, format!("a node {shown}"), move |d| d.extend_graph("denoise_step.onnx", &[(1, node)]));
    }
}
