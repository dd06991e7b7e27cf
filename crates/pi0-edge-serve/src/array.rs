//! Numbers of a message: numpy's arrays and scalars as openpi's client packs them, and plain ones.

use half::f16;

use crate::value::Value;

/// Most axes of an array.
const MAX_RANK: usize = 4;

/// The element types that are taken, little-endian: `f4` and the like in numpy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dtype {
    U8,
    I8,
    Bool,
    U16,
    I16,
    U32,
    I32,
    U64,
    I64,
    F16,
    F32,
    F64,
}

impl Dtype {
    const NAMES: [(&'static str, Dtype, usize); 12] = [
        ("|u1", Dtype::U8, 1),
        ("|i1", Dtype::I8, 1),
        ("|b1", Dtype::Bool, 1),
        ("<u2", Dtype::U16, 2),
        ("<i2", Dtype::I16, 2),
        ("<u4", Dtype::U32, 4),
        ("<i4", Dtype::I32, 4),
        ("<u8", Dtype::U64, 8),
        ("<i8", Dtype::I64, 8),
        ("<f2", Dtype::F16, 2),
        ("<f4", Dtype::F32, 4),
        ("<f8", Dtype::F64, 8),
    ];

    /// Returns the type of numpy's name for it, and the bytes of one element.
    fn parse(name: &str) -> Result<(Dtype, usize), String> {
        let found = Self::NAMES.into_iter().find(|(known, ..)| *known == name);
        let known = || Self::NAMES.map(|(known, ..)| known).join(", ");
        found.map(|(_, dtype, size)| (dtype, size)).ok_or_else(|| {
            let name: String = name.chars().take(32).collect();
            format!("an array of dtype {name:?}; these are taken: {}", known())
        })
    }
}

/// A numpy array in a message: row-major.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Array<'a> {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    /// As many bytes as shape and element type say.
    pub(crate) data: &'a [u8],
    size: usize,
}

impl<'a> Array<'a> {
    /// Reads the map that stands for an array.
    pub(crate) fn read(map: &Value<'a>) -> Result<Self, String> {
        let (Some(Value::Bytes(data)), Some(Value::Text(dtype)), Some(Value::List(shape))) =
            (map.get("data"), map.get("dtype"), map.get("shape"))
        else {
            return Err("an array wants `data` as bytes, `dtype` as text and `shape` as a list".into());
        };
        let (dtype, size) = Dtype::parse(dtype)?;
        if shape.len() > MAX_RANK {
            return Err(format!("an array of {} axes; at most {MAX_RANK} are taken", shape.len()));
        }
        let axis = |value: &Value<'_>| match value {
            Value::Unsigned(n) => usize::try_from(*n).map_err(|_| format!("an axis of {n}")),
            _ => Err("a shape is a list of whole numbers".to_owned()),
        };
        let shape = shape.iter().map(axis).collect::<Result<Vec<_>, _>>()?;
        let bytes = shape.iter().try_fold(size, |bytes, n| bytes.checked_mul(*n));
        if bytes != Some(data.len()) {
            return Err(format!(
                "an array of shape {shape:?} has {} bytes, which is another length",
                data.len()
            ));
        }
        Ok(Array { dtype, shape, data, size })
    }

    /// Returns the elements, in their order, as the nearest f64.
    pub(crate) fn values(&self) -> impl Iterator<Item = f64> + use<'a> {
        let dtype = self.dtype;
        self.data.chunks_exact(self.size).map(move |bytes| {
            let mut wide = [0; 8];
            wide[..bytes.len()].copy_from_slice(bytes);
            let unsigned = u64::from_le_bytes(wide);
            match dtype {
                Dtype::U8 | Dtype::U16 | Dtype::U32 | Dtype::U64 => unsigned as f64,
                Dtype::Bool => f64::from(unsigned != 0),
                Dtype::I8 => f64::from(unsigned as i8),
                Dtype::I16 => f64::from(unsigned as i16),
                Dtype::I32 => f64::from(unsigned as i32),
                Dtype::I64 => unsigned as i64 as f64,
                Dtype::F16 => f16::from_bits(unsigned as u16).to_f64(),
                Dtype::F32 => f32::from_bits(unsigned as u32).into(),
                Dtype::F64 => f64::from_bits(unsigned),
            }
        })
    }

    /// Returns an image's elements as bytes, where they are numbers from 0 to 1: the whole part of 255 times each,
    /// multiplied in the array's own precision, which is openpi's rule.
    pub(crate) fn unit_to_bytes(&self) -> Result<Vec<u8>, String> {
        let times_255 = |x: f64| match self.dtype {
            Dtype::F16 => Ok(f16::from_f32(255.0 * x as f32).to_f64()),
            Dtype::F32 => Ok(f64::from(255.0 * x as f32)),
            Dtype::F64 => Ok(255.0 * x),
            _ => Err("an image is of u8, or of floats from 0 to 1".to_owned()),
        };
        let byte = |x: f64| match times_255(x)? {
            y if (0.0..=1.0).contains(&x) => Ok(y as u8),
            _ => Err(format!("an image of floats has {x}; its values go from 0 to 1")),
        };
        self.values().map(byte).collect()
    }
}

/// Numbers with a shape, row-major: an array, or lists of plain numbers.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Numbers {
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

impl Numbers {
    /// Reads an array, a scalar, a number, or lists of these that have one shape.
    pub(crate) fn read(value: &Value<'_>) -> Result<Self, String> {
        let scalar = |x: f64| Ok(Numbers { shape: Vec::new(), values: vec![x as f32] });
        match value {
            Value::Map(_) => match scalar_of(value) {
                Some(plain) => Self::read(plain),
                None => {
                    let array = Array::read(value)?;
                    Ok(Numbers { values: array.values().map(|x| x as f32).collect(), shape: array.shape })
                }
            },
            Value::Unsigned(n) => scalar(*n as f64),
            Value::Negative(n) => scalar(*n as f64),
            Value::Float(x) => scalar(*x),
            Value::Bool(b) => scalar(f64::from(*b)),
            Value::List(rows) => {
                let rows = rows.iter().map(Self::read).collect::<Result<Vec<_>, _>>()?;
                let inner = rows.first().map(|row| row.shape.clone()).unwrap_or_default();
                if rows.iter().any(|row| row.shape != inner) {
                    return Err("lists of different lengths in one array".into());
                }
                let shape = std::iter::once(rows.len()).chain(inner).collect();
                Ok(Numbers { shape, values: rows.into_iter().flat_map(|row| row.values).collect() })
            }
            Value::Nil | Value::Text(_) | Value::Bytes(_) => Err("numbers are wanted".into()),
        }
    }
}

/// Returns what a numpy scalar holds, which openpi's client packs as a plain value; none if it is no such thing.
pub(crate) fn scalar_of<'v, 'a>(value: &'v Value<'a>) -> Option<&'v Value<'a>> {
    value.get("__npgeneric__").and_then(|_| value.get("data")).filter(|data| !matches!(data, Value::Map(_)))
}

/// Reads a whole number that is not negative.
pub(crate) fn whole_number(value: &Value<'_>) -> Result<u64, String> {
    let wrong = || Err("a whole number from 0 is wanted".into());
    match value {
        Value::Unsigned(n) => Ok(*n),
        Value::Map(_) => match scalar_of(value) {
            Some(plain) => whole_number(plain),
            None => {
                let array = Array::read(value)?;
                match (array.data.len() == array.size, array.values().next()) {
                    // Exact up to 2^53, which no seed of a client that sends arrays goes beyond unnoticed.
                    (true, Some(x)) if x >= 0.0 && x.fract() == 0.0 && x < 9e15 => Ok(x as u64),
                    _ => wrong(),
                }
            }
        },
        _ => wrong(),
    }
}

/// Reads a text: plain, bytes of UTF-8, or one of numpy's.
pub(crate) fn text(value: &Value<'_>) -> Result<String, String> {
    match value {
        Value::Text(text) => Ok((*text).to_owned()),
        Value::Bytes(bytes) => String::from_utf8(bytes.to_vec()).map_err(|_| "a text is not UTF-8".into()),
        Value::Map(_) => match (scalar_of(value), value.get("dtype"), value.get("data")) {
            (Some(plain), ..) => text(plain),
            (None, Some(Value::Text(dtype)), Some(Value::Bytes(data))) if dtype.starts_with("<U") => {
                let points = data.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]]));
                let text: Option<String> = points.map(char::from_u32).collect();
                // numpy fills a text up with zeros.
                text.map(|text| text.trim_end_matches('\0').to_owned()).ok_or("a text is not Unicode".into())
            }
            _ => Err("a text is wanted".into()),
        },
        _ => Err("a text is wanted".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array<'a>(dtype: &'a str, shape: &[u64], data: &'a [u8]) -> Value<'a> {
        let shape = shape.iter().map(|n| Value::Unsigned(*n)).collect();
        Value::Map(vec![
            ("__ndarray__", Value::Bool(true)),
            ("data", Value::Bytes(data)),
            ("dtype", Value::Text(dtype)),
            ("shape", Value::List(shape)),
        ])
    }

    #[test]
    fn arrays_of_every_type_are_numbers() {
        let minus_two = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        for (dtype, size) in [("|i1", 1), ("<i2", 2), ("<i4", 4), ("<i8", 8)] {
            let numbers = Numbers::read(&array(dtype, &[1], &minus_two[..size])).unwrap();
            assert_eq!((numbers.shape, numbers.values), (vec![1], vec![-2.0]), "{dtype}");
        }
        for (dtype, data) in [
            ("|u1", &[3][..]),
            ("<u2", &[3, 0]),
            ("<u4", &[3, 0, 0, 0]),
            ("<u8", &[3, 0, 0, 0, 0, 0, 0, 0]),
            ("<f2", &[0, 0x42]),
            ("<f4", &3f32.to_le_bytes()),
            ("<f8", &3f64.to_le_bytes()),
        ] {
            assert_eq!(Numbers::read(&array(dtype, &[], data)).unwrap().values, [3.0], "{dtype}");
        }
        assert_eq!(Numbers::read(&array("|b1", &[2], &[0, 1])).unwrap().values, [0.0, 1.0]);
    }

    #[test]
    fn arrays_that_are_none_are_refused() {
        for (value, words) in [
            (array("|O", &[1], &[0; 8]), "dtype \"|O\""),
            (array(">f4", &[1], &[0; 4]), "dtype \">f4\""),
            (array("<f4", &[2], &[0; 4]), "another length"),
            (array("<f4", &[u64::MAX, 2], &[0; 4]), "another length"),
            (array("|u1", &[1; 5], &[0]), "5 axes"),
            (Value::Map(vec![("__ndarray__", Value::Bool(true))]), "wants `data`"),
        ] {
            let error = Numbers::read(&value).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        let error = Numbers::read(&array(&"\u{7f}".repeat(1 << 16), &[1], &[0])).unwrap_err();
        assert!(error.len() < 500, "{} bytes", error.len());
    }

    #[test]
    fn lists_are_arrays_if_they_are_even() {
        let row = |n| Value::List(vec![Value::Unsigned(n), Value::Float(0.5)]);
        let numbers = Numbers::read(&Value::List(vec![row(1), row(2), row(3)])).unwrap();
        assert_eq!((numbers.shape, numbers.values), (vec![3, 2], vec![1.0, 0.5, 2.0, 0.5, 3.0, 0.5]));
        assert!(Numbers::read(&Value::List(vec![row(1), Value::Float(1.0)])).is_err());
    }

    #[test]
    fn floats_become_pixels_as_openpi_makes_them() {
        let data: Vec<u8> = [0.0f32, 0.5, 0.999, 1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
        let Value::Map(_) = array("<f4", &[4], &data) else { panic!() };
        let pixels = Array::read(&array("<f4", &[4], &data)).unwrap().unit_to_bytes().unwrap();
        assert_eq!(pixels, [0, 127, 254, 255]);
        for outside in [-0.1f32, 1.1, f32::NAN] {
            let data = outside.to_le_bytes();
            assert!(Array::read(&array("<f4", &[1], &data)).unwrap().unit_to_bytes().is_err(), "{outside}");
        }
    }

    #[test]
    fn texts_are_read_in_every_form() {
        let numpy = [b'h', 0, 0, 0, b'i', 0, 0, 0, 0, 0, 0, 0];
        let scalar = Value::Map(vec![("__npgeneric__", Value::Bool(true)), ("data", Value::Text("hi"))]);
        for value in [Value::Text("hi"), Value::Bytes(b"hi"), array("<U3", &[], &numpy), scalar] {
            assert_eq!(text(&value).unwrap(), "hi");
        }
        assert!(text(&Value::Unsigned(3)).is_err() && text(&Value::Bytes(b"\xff")).is_err());
    }
}
