//! The pre-scan's rules for constant data: initializers and attributes.

use super::wire::{Field, Fields, once, walk};

/// Most bytes of one tensor that is stored inside the `.onnx` file.
const MAX_INLINE: u64 = 1 << 20;
/// Most bytes of all of them.
const MAX_INLINE_TOTAL: u64 = 16 << 20;
const MAX_RANK: usize = 8;

/// The bytes of constant data found inside a graph so far.
#[derive(Debug, Default)]
pub(super) struct Inline {
    total: u64,
}

impl Inline {
    fn add(&mut self, bytes: u64, what: &str) -> Result<(), String> {
        if bytes > MAX_INLINE {
            return Err(format!(
                "{what} has {bytes} bytes inside the graph file, at most {MAX_INLINE} are allowed"
            ));
        }
        self.total += bytes;
        if self.total > MAX_INLINE_TOTAL {
            return Err(format!("the graph file holds more than {MAX_INLINE_TOTAL} bytes of constants"));
        }
        Ok(())
    }
}

/// Checks an initializer: its bytes are in the file, in moderation, or in `data_file` within its `data_size`. Returns its
/// name and the number of its elements.
pub(super) fn check_initializer<'a>(
    bytes: &'a [u8],
    data_file: &str,
    data_size: Option<u64>,
    inline: &mut Inline,
) -> Result<(&'a str, u64), String> {
    let tensor = Tensor::read(bytes)?;
    let in_tensor = |what: String| format!("{:?}: {what}", tensor.name);
    let found = (tensor.name, tensor.elements().map_err(in_tensor)?);
    let Some(place) = tensor.external().map_err(in_tensor)? else {
        return inline.add(tensor.inline_bytes, &format!("{:?}", tensor.name)).map(|()| found);
    };
    let size = tensor.size().map_err(in_tensor)?;
    // Compared as a whole: no path, link or marker that some loader gives a meaning can be equal to it.
    if place.location != data_file {
        return Err(in_tensor(format!(
            "its data is in {:?}; a graph's data may only be in {data_file:?}",
            place.location
        )));
    }
    let Some(available) = data_size else {
        return Err(in_tensor(format!("its data is in {data_file:?}, which the manifest does not list")));
    };
    if place.length.is_some_and(|length| length != size) {
        return Err(in_tensor(format!(
            "its data has {} bytes, its type and dimensions need {size}",
            place.length.unwrap_or(0)
        )));
    }
    if place.offset.checked_add(size).is_none_or(|end| end > available) {
        return Err(in_tensor(format!(
            "its data is {size} bytes at {}, beyond the {available} bytes of {data_file:?}",
            place.offset
        )));
    }
    Ok(found)
}

/// Checks a node's attribute: a plain value, or a tensor inside the file.
pub(super) fn check_attribute(bytes: &[u8], inline: &mut Inline) -> Result<(), String> {
    let mut payload = 0u64;
    walk(bytes, |field| match field.number {
        // Name, type, doc string.
        1 | 13 | 20 => Ok(()),
        // f, i, s and the lists of them.
        2..=4 | 7..=9 => {
            payload += field.payload();
            Ok(())
        }
        5 | 10 => {
            let tensor = Tensor::read(field.bytes()?)?;
            payload += tensor.inline_bytes;
            match tensor.external()? {
                Some(_) => {
                    Err("an attribute's tensor has its data in another file, which is not allowed".into())
                }
                None => Ok(()),
            }
        }
        6 | 11 => Err("it has a subgraph, which is not allowed".into()),
        22 | 23 => Err("it has a sparse tensor, which is not allowed".into()),
        n => Err(format!("an attribute has the field {n}, which is not allowed")),
    })?;
    inline.add(payload, "an attribute")
}

/// The part of a `TensorProto` that the rules look at.
#[derive(Debug, Default)]
struct Tensor<'a> {
    name: &'a str,
    dims: Vec<u64>,
    data_type: u64,
    /// Bytes of the fields that hold data, raw ones included.
    inline_bytes: u64,
    raw_bytes: Option<u64>,
    location: Option<u64>,
    entries: Vec<(&'a str, &'a str)>,
}

/// The place of an external tensor's data.
struct Place<'a> {
    location: &'a str,
    offset: u64,
    length: Option<u64>,
}

impl<'a> Tensor<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut tensor = Tensor::default();
        let (mut name, mut data_type) = (None, None);
        for field in Fields::new(bytes) {
            let field = field?;
            match field.number {
                1 => field.push_varints(&mut tensor.dims, MAX_RANK)?,
                2 => once(&mut data_type, field.varint()?, "a tensor's data type")?,
                // Typed data: float, int32, int64, double, uint64.
                4 | 5 | 7 | 10 | 11 => tensor.inline_bytes += field.payload(),
                9 => {
                    once(&mut tensor.raw_bytes, field.payload(), "a tensor's raw data")?;
                    tensor.inline_bytes += field.payload();
                }
                8 => once(&mut name, field.text()?, "a tensor's name")?,
                13 => tensor.entries.push(entry(field)?),
                14 => once(&mut tensor.location, field.varint()?, "a tensor's data location")?,
                // Doc string, metadata.
                12 | 16 => {}
                n => return Err(format!("a tensor has the field {n}, which is not allowed")),
            }
            if tensor.entries.len() > 8 {
                return Err("a tensor has too many entries about its data".into());
            }
        }
        tensor.name = name.unwrap_or("");
        tensor.data_type = data_type.unwrap_or(0);
        Ok(tensor)
    }

    /// Returns the place of data that is not in the graph file; checks the amount of data that is.
    fn external(&self) -> Result<Option<Place<'a>>, String> {
        match self.location {
            None | Some(0) if self.entries.is_empty() => {
                let size = self.size()?;
                return match self.raw_bytes {
                    Some(n) if n != size => {
                        Err(format!("it has {n} bytes, its type and dimensions need {size}"))
                    }
                    _ => Ok(None),
                };
            }
            Some(1) => {}
            // What a loader makes of that depends on the loader.
            other => {
                return Err(format!(
                    "it names external data but its data location is {}; both or neither",
                    other.unwrap_or(0)
                ));
            }
        }
        if self.inline_bytes > 0 {
            return Err("it has data both inside and outside of the graph file".into());
        }
        let (mut location, mut offset, mut length) = (None, None, None);
        for &(key, value) in &self.entries {
            match key {
                "location" => once(&mut location, value, "location")?,
                "offset" => once(&mut offset, decimal(key, value)?, key)?,
                "length" => once(&mut length, decimal(key, value)?, key)?,
                _ => return Err(format!("its external data has the unknown entry {key:?}")),
            }
        }
        let location = location.ok_or("its external data has no location")?;
        Ok(Some(Place { location, offset: offset.unwrap_or(0), length }))
    }

    fn elements(&self) -> Result<u64, String> {
        let product = self.dims.iter().try_fold(1, |size: u64, &dim| size.checked_mul(dim));
        product.ok_or_else(|| "its dimensions overflow".into())
    }

    /// Bytes that type and dimensions need.
    fn size(&self) -> Result<u64, String> {
        let element = match self.data_type {
            2 | 3 | 9 => 1,
            10 | 16 => 2,
            1 | 6 => 4,
            7 => 8,
            other => return Err(format!("its element type {other} is not allowed")),
        };
        self.elements()?.checked_mul(element).ok_or_else(|| "its dimensions overflow".into())
    }
}

fn entry(field: Field<'_>) -> Result<(&str, &str), String> {
    let (mut key, mut value) = (None, None);
    walk(field.bytes()?, |field| match field.number {
        1 => once(&mut key, field.text()?, "a key"),
        2 => once(&mut value, field.text()?, "a value"),
        n => Err(format!("an entry has the unknown field {n}")),
    })?;
    Ok((key.unwrap_or(""), value.unwrap_or("")))
}

/// Digits only: signs, spaces and other bases are read differently by different loaders.
fn decimal(key: &str, text: &str) -> Result<u64, String> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(format!("its {key} is {text:?}, not a number"));
    }
    text.parse().map_err(|_| format!("its {key} {text} is out of range"))
}
