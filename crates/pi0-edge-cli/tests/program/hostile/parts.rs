//! The pieces that hostile bundles are made of.

use std::path::Path;
use std::sync::LazyLock;

use serde_json::{Value, json};

use super::draft::Draft;
use crate::bundle_support::{file_entry, onnx};

/// A path that is too long for a file system.
pub static LONG: LazyLock<&'static str> = LazyLock::new(|| "a/".repeat(3000).leak());

pub fn leak(text: String) -> &'static str {
    text.leak()
}

/// Makes a pipe that nobody writes to.
pub fn pipe(path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends with NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}

/// Changes a JSON file of a written bundle, and puts its size and hash in the manifest right.
pub fn reseal(bundle: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let read =
        |name: &str| -> Value { serde_json::from_slice(&std::fs::read(bundle.join(name)).unwrap()).unwrap() };
    let mut json = read(file);
    change(&mut json);
    let bytes = json.to_string().into_bytes();
    std::fs::write(bundle.join(file), &bytes).unwrap();
    let mut manifest = read("manifest.json");
    manifest["files"][file] = file_entry(&bytes);
    std::fs::write(bundle.join("manifest.json"), manifest.to_string()).unwrap();
}

/// Gives a graph the signature that the manifest says, and nothing to compute it.
pub fn resign(d: &mut Draft, graph: &str) {
    let list = |side: &str| -> Vec<Vec<u8>> {
        d.manifest["graphs"][graph][side].as_array().unwrap().iter().map(onnx::value_info).collect()
    };
    let model = onnx::Model {
        ir_version: 10,
        opsets: vec![("", 20)],
        nodes: Vec::new(),
        initializers: Vec::new(),
        inputs: list("inputs"),
        outputs: list("outputs"),
        graph_extra: Vec::new(),
        model_extra: Vec::new(),
    };
    d.files.insert(format!("{graph}.onnx"), model.encode());
}

pub fn added_token(id: u64, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
           "normalized": false, "special": false})
}

/// A list of the token with the flag set.
pub fn with(mut token: Value, flag: &str) -> Vec<Value> {
    token[flag] = json!(true);
    vec![token]
}

/// A PNG that says it has a size, of 8-bit RGB, and has no pixels.
pub fn png(width: u32, height: u32) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        png.extend((data.len() as u32).to_be_bytes());
        let body = [kind, data].concat();
        png.extend(&body);
        png.extend(crc32(&body).to_be_bytes());
    };
    let size = [width.to_be_bytes(), height.to_be_bytes()].concat();
    chunk(b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
    chunk(b"IDAT", &[0x78, 0x9c, 0x03, 0, 0, 0, 0, 1]);
    chunk(b"IEND", &[]);
    png
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// Text that only an endless stack would take in.
pub fn deep(depth: usize) -> Vec<u8> {
    [vec![b'['; depth], vec![b']'; depth]].concat()
}

/// Files that are no JSON, or too deep.
pub fn not_json() -> Vec<(String, Vec<u8>)> {
    let named = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    vec![
        named("empty", b""),
        named("a brace", b"{"),
        named("not UTF-8", b"{\"version\": \"\xff\xfe\"}"),
        named("UTF-16", &"{}".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()),
        named("NUL", &[0; 1000]),
        named("a number without end", &[b'9'; 100_000]),
        named("a text without end", &[b"\"".to_vec(), vec![b'a'; 100_000]].concat()),
        named("lone surrogates", br#"{"version": "\ud800"}"#),
        named("100 000 deep", &deep(100_000)),
        named("1 000 000 objects deep", &b"{\"a\":".repeat(1_000_000)),
    ]
}

/// Makes a manifest's text of the good one.
pub type Make = fn(&Value) -> Vec<u8>;

/// Texts for a manifest, made of the good one.
pub fn bad_manifests() -> Vec<(String, Make)> {
    let all: [(&str, Make); 9] = [
        ("an empty manifest", |_| Vec::new()),
        ("a manifest of nothing", |_| b"null".to_vec()),
        ("a manifest of zeros", |_| vec![0; 4096]),
        ("a manifest cut in half", |m| m.to_string().into_bytes().split_at(2000).0.to_vec()),
        ("a manifest of 5 MB", |m| [m.to_string().into_bytes(), vec![b' '; 5 << 20]].concat()),
        ("a manifest nested 100 000 deep", |_| deep(100_000)),
        ("a manifest with a list of 1 000 000", |m| {
            let mut m = m.clone();
            m["cameras"] = json!(vec![0; 1_000_000]);
            m.to_string().into_bytes()
        }),
        ("a manifest with a key twice", |m| {
            m.to_string().replacen("\"policy\":", "\"policy\":\"pi05\",\"policy\":", 1).into_bytes()
        }),
        ("a manifest with a file twice", |m| {
            let text = m.to_string();
            let entry = format!("\"tokenizer.json\":{}", file_entry(b""));
            text.replacen("\"files\":{", &format!("\"files\":{{{entry},{entry},"), 1).into_bytes()
        }),
    ];
    all.into_iter().map(|(name, make)| (name.to_owned(), make)).collect()
}

/// Headers of arrays in other forms, or of shapes that cannot be.
pub fn npy_headers() -> Vec<String> {
    let shape = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let shapes = [
        "(0, 18446744073709551615)".to_owned(),
        "(18446744073709551615,)".into(),
        "(18446744073709551616, 1)".into(),
        "(4294967296, 4294967296)".into(),
        "(1152921504606846976,)".into(),
        "(-10, -32)".into(),
        "(10, 33)".into(),
        "(10,)".into(),
        "()".into(),
        "(10, 32".into(),
        "(1e1, 32)".into(),
        "(10L, 32L)".into(),
        "('10', 32)".into(),
        format!("{}10, 32{}", "(".repeat(5000), ")".repeat(5000)),
        format!("({})", "1, ".repeat(10_000)),
        "__import__('os')".into(),
    ];
    let mut all: Vec<String> = shapes.iter().map(|text| shape(text)).collect();
    for (descr, order) in
        [("'>f4'", "False"), ("'<f8'", "False"), ("'<i4'", "False"), ("'|O'", "False"), ("'<f4'", "True")]
    {
        all.push(format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': (10, 32), }}"));
    }
    all
}

/// An array's file with this header and so many bytes of data.
pub fn npy_with(header: &str, data: usize) -> Vec<u8> {
    let length = (header.len() + 1).min(usize::from(u16::MAX)) as u16;
    [b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], header.as_bytes(), b"\n", &vec![0; data]].concat()
}

/// Files that are no arrays.
pub fn not_npy() -> Vec<(String, Vec<u8>)> {
    let named = |name: &str, bytes: &[u8]| (name.to_owned(), bytes.to_vec());
    vec![
        named("no bytes", b""),
        named("the mark alone", b"\x93NUMPY"),
        named("version 2.0", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),
        named("a header past the end", b"\x93NUMPY\x01\x00\xff\xff{}"),
        named("a zip archive", b"PK\x03\x04"),
        named("a pickle", b"\x80\x04\x95\x00cos\nsystem\n"),
        named(
            "nine megabytes of parentheses",
            &[b"\x93NUMPY\x01\x00\xff\xff".to_vec(), vec![b'('; 9 << 20]].concat(),
        ),
    ]
}
