//! Reads msgpack, and no more of it than an observation needs.
//!
//! A general reader makes a tree of whatever it is sent, and a message of 64 MiB can stand for gigabytes of that. This one
//! counts what it makes, and borrows text and bytes from the message.

use rmp::Marker;

/// Most values in one message: numbers, texts, containers, each key's value.
const MAX_VALUES: usize = 1 << 16;
/// Most containers inside each other.
const MAX_DEPTH: usize = 8;
/// Keys that openpi's client writes as bytes.
const BYTE_KEYS: [&str; 5] = ["__ndarray__", "__npgeneric__", "data", "dtype", "shape"];

/// A msgpack value, borrowed from its message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value<'a> {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    List(Vec<Value<'a>>),
    Map(Vec<(&'a str, Value<'a>)>),
}

impl<'a> Value<'a> {
    /// Reads a message that is one value and nothing behind it.
    ///
    /// # Errors
    /// The reason, in words: not msgpack, or beyond what an observation may be.
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, String> {
        let mut reader = Reader { rest: message, left: MAX_VALUES };
        let value = reader.value(0)?;
        match reader.rest.len() {
            0 => Ok(value),
            n => Err(format!("{n} bytes follow the message's end")),
        }
    }

    /// Returns the value of `key` in a map.
    pub(crate) fn get(&self, key: &str) -> Option<&Value<'a>> {
        let Value::Map(entries) = self else { return None };
        entries.iter().find(|(name, _)| *name == key).map(|(_, value)| value)
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    /// Values that may still be made.
    left: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) =
            self.rest.split_at_checked(n).ok_or("the message ends in the middle of a value")?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N)?);
        Ok(bytes)
    }

    /// Reads a length of `N` bytes.
    fn length<const N: usize>(&mut self) -> Result<usize, String> {
        let bytes = self.array::<N>()?;
        Ok(bytes.iter().fold(0, |n, byte| n << 8 | usize::from(*byte)))
    }

    fn text(&mut self, n: usize) -> Result<&'a str, String> {
        std::str::from_utf8(self.take(n)?).map_err(|_| "a text is not UTF-8".into())
    }

    fn value(&mut self, depth: usize) -> Result<Value<'a>, String> {
        self.left = self.left.checked_sub(1).ok_or_else(|| format!("more than {MAX_VALUES} values"))?;
        Ok(match Marker::from_u8(self.array::<1>()?[0]) {
            Marker::Null => Value::Nil,
            Marker::True => Value::Bool(true),
            Marker::False => Value::Bool(false),
            Marker::FixPos(n) => Value::Unsigned(n.into()),
            Marker::FixNeg(n) => Value::Negative(n.into()),
            Marker::U8 => Value::Unsigned(self.array::<1>()?[0].into()),
            Marker::U16 => Value::Unsigned(u16::from_be_bytes(self.array()?).into()),
            Marker::U32 => Value::Unsigned(u32::from_be_bytes(self.array()?).into()),
            Marker::U64 => Value::Unsigned(u64::from_be_bytes(self.array()?)),
            Marker::I8 => signed(i8::from_be_bytes(self.array()?).into()),
            Marker::I16 => signed(i16::from_be_bytes(self.array()?).into()),
            Marker::I32 => signed(i32::from_be_bytes(self.array()?).into()),
            Marker::I64 => signed(i64::from_be_bytes(self.array()?)),
            Marker::F32 => Value::Float(f32::from_be_bytes(self.array()?).into()),
            Marker::F64 => Value::Float(f64::from_be_bytes(self.array()?)),
            Marker::FixStr(n) => Value::Text(self.text(n.into())?),
            Marker::Str8 => self.length::<1>().and_then(|n| self.text(n)).map(Value::Text)?,
            Marker::Str16 => self.length::<2>().and_then(|n| self.text(n)).map(Value::Text)?,
            Marker::Str32 => self.length::<4>().and_then(|n| self.text(n)).map(Value::Text)?,
            Marker::Bin8 => self.length::<1>().and_then(|n| self.take(n)).map(Value::Bytes)?,
            Marker::Bin16 => self.length::<2>().and_then(|n| self.take(n)).map(Value::Bytes)?,
            Marker::Bin32 => self.length::<4>().and_then(|n| self.take(n)).map(Value::Bytes)?,
            Marker::FixArray(n) => self.list(n.into(), depth)?,
            Marker::Array16 => self.length::<2>().and_then(|n| self.list(n, depth))?,
            Marker::Array32 => self.length::<4>().and_then(|n| self.list(n, depth))?,
            Marker::FixMap(n) => self.map(n.into(), depth)?,
            Marker::Map16 => self.length::<2>().and_then(|n| self.map(n, depth))?,
            Marker::Map32 => self.length::<4>().and_then(|n| self.map(n, depth))?,
            _ => return Err("extension types of msgpack are not taken".into()),
        })
    }

    /// Refuses a container that is too deep, or has more elements than may be made or could be there.
    fn enter(&self, n: usize, depth: usize) -> Result<usize, String> {
        if depth >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} maps and lists inside each other"));
        }
        if n > self.left {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        // Each has a byte at least.
        if n > self.rest.len() {
            return Err("the message ends in the middle of a value".into());
        }
        Ok(n)
    }

    fn list(&mut self, n: usize, depth: usize) -> Result<Value<'a>, String> {
        let mut values = Vec::with_capacity(self.enter(n, depth)?);
        for _ in 0..n {
            values.push(self.value(depth + 1)?);
        }
        Ok(Value::List(values))
    }

    fn map(&mut self, n: usize, depth: usize) -> Result<Value<'a>, String> {
        let mut entries = Vec::with_capacity(self.enter(n, depth)?);
        for _ in 0..n {
            let key = match self.value(depth + 1)? {
                Value::Text(key) => key,
                Value::Bytes(key) => byte_key(key)?,
                _ => return Err("a key is no text".into()),
            };
            entries.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Map(entries))
    }
}

fn signed(n: i64) -> Value<'static> {
    u64::try_from(n).map_or(Value::Negative(n), Value::Unsigned)
}

fn byte_key(key: &[u8]) -> Result<&'static str, String> {
    let known = BYTE_KEYS.into_iter().find(|known| known.as_bytes() == key);
    known.ok_or_else(|| "a key is bytes; only those of numpy arrays may be, others are text".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_read() {
        let message = b"\x89\xa1a\xc0\xa1b\xc3\xa1c\x2a\xa1d\xff\xa1e\xcd\x01\x00\xa1f\xd1\xff\x00\xa1g\xca\x3f\x80\0\0\
            \xa1h\x92\xd9\x01x\xc4\x01\x07\xc4\x04data\x80";
        let Value::Map(entries) = Value::read(message).unwrap() else { panic!("no map") };
        let values: Vec<_> = entries.into_iter().map(|(_, value)| value).collect();
        let list = Value::List(vec![Value::Text("x"), Value::Bytes(&[7])]);
        let wanted = [
            Value::Nil,
            Value::Bool(true),
            Value::Unsigned(42),
            Value::Negative(-1),
            Value::Unsigned(256),
            Value::Negative(-256),
            Value::Float(1.0),
            list,
            Value::Map(Vec::new()),
        ];
        assert_eq!(values, wanted);
        assert_eq!(Value::read(b"\x81\xa1k\x05").unwrap().get("k"), Some(&Value::Unsigned(5)));
    }

    #[test]
    fn what_is_no_observation_is_refused_before_it_takes_memory() {
        let deep = [0x91; 9];
        let many = [&[0xdd, 0, 2, 0, 0][..], &[0xc0; 1 << 17]].concat();
        let cases: [(&[u8], &str); 11] = [
            (b"", "ends in the middle"),
            (b"\x01\x02", "1 bytes follow"),
            (b"\xc6\xff\xff\xff\xff", "ends in the middle"),
            (b"\xdd\xff\xff\xff\xff", "more than 65536 values"),
            (b"\xdd\0\0\xff\xff\xc0", "ends in the middle"),
            (&many, "more than 65536 values"),
            (&deep, "inside each other"),
            (b"\x81\x01\x02", "a key is no text"),
            (b"\x81\xc4\x01x\x02", "a key is bytes"),
            (b"\xa2\xff\xff", "not UTF-8"),
            (b"\xd4\x01\x00", "extension"),
        ];
        for (message, words) in cases {
            let error = Value::read(message).unwrap_err();
            assert!(error.contains(words), "{error} of {:?}", &message[..message.len().min(8)]);
        }
    }
}
