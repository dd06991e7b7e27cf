//! Messages as openpi's client packs them.

/// A value to pack.
#[derive(Clone, Debug)]
pub enum Item {
    Nil,
    Number(f64),
    Whole(u64),
    Text(String),
    Array { dtype: &'static str, shape: Vec<u64>, data: Vec<u8> },
    Map(Vec<(String, Item)>),
}

impl Item {
    pub fn bytes(shape: &[u64], data: Vec<u8>) -> Self {
        Item::Array { dtype: "|u1", shape: shape.to_vec(), data }
    }

    pub fn floats(shape: &[u64], values: &[f32]) -> Self {
        let data = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        Item::Array { dtype: "<f4", shape: shape.to_vec(), data }
    }

    pub fn pack(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut Vec<u8>) {
        use rmp::encode::*;
        match self {
            Item::Nil => write_nil(out).unwrap(),
            Item::Number(x) => write_f64(out, *x).unwrap(),
            Item::Whole(n) => _ = write_uint(out, *n).unwrap(),
            Item::Text(text) => write_str(out, text).unwrap(),
            Item::Array { dtype, shape, data } => {
                write_map_len(out, 4).unwrap();
                write_bin(out, b"__ndarray__").unwrap();
                write_bool(out, true).unwrap();
                write_bin(out, b"data").unwrap();
                write_bin(out, data).unwrap();
                write_bin(out, b"dtype").unwrap();
                write_str(out, dtype).unwrap();
                write_bin(out, b"shape").unwrap();
                write_array_len(out, shape.len() as u32).unwrap();
                for n in shape {
                    write_uint(out, *n).unwrap();
                }
            }
            Item::Map(entries) => {
                write_map_len(out, entries.len() as u32).unwrap();
                for (key, value) in entries {
                    write_str(out, key).unwrap();
                    value.write(out);
                }
            }
        }
    }
}

/// Pixels of a frame that differ from place to place.
pub fn pixels(width: usize, height: usize, salt: usize) -> Vec<u8> {
    (0..width * height * 3).map(|i| ((i * 7 + i / 50 + salt * 31) % 256) as u8).collect()
}

/// A good observation of the small bundle, with some entries replaced or added.
pub fn observation(changes: &[(&str, Item)]) -> Item {
    let mut entries = vec![
        ("observation/images/base".to_owned(), Item::bytes(&[40, 56, 3], pixels(56, 40, 1))),
        ("observation/images/wrist".to_owned(), Item::bytes(&[56, 56, 3], pixels(56, 56, 2))),
        ("observation/state".to_owned(), Item::floats(&[6], &[0.1, 0.2, 0.3, 0.4, 0.5, 0.6])),
        ("prompt".to_owned(), Item::Text("pick up the cube".into())),
    ];
    for (key, item) in changes {
        entries.retain(|(known, _)| known != key);
        entries.push(((*key).to_owned(), item.clone()));
    }
    Item::Map(entries)
}

/// As [`observation`], from one seed and packed.
pub fn seeded(seed: u64) -> Vec<u8> {
    observation(&[("seed", Item::Whole(seed))]).pack()
}

/// Finds the actions in a response.
pub fn actions(response: &[u8]) -> Vec<f32> {
    let key = b"\xc4\x04data";
    let at = response.windows(key.len()).position(|w| w == key).expect("data") + key.len();
    let (from, length) = match response[at] {
        0xc4 => (at + 2, usize::from(response[at + 1])),
        0xc5 => (at + 3, usize::from(u16::from_be_bytes([response[at + 1], response[at + 2]]))),
        other => panic!("bytes begin with {other:#x}"),
    };
    let data = &response[from..from + length];
    data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}
