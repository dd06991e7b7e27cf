//! A bounds-checked reader of protobuf's wire format: enough to walk an ONNX file without trusting any of it.

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
}

/// A field's value as the wire holds it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64,
    Bytes(&'a [u8]),
    Fixed32,
}

impl<'a> Field<'a> {
    /// The value of a field of integer type.
    pub fn varint(&self) -> Result<u64, String> {
        match self.value {
            Value::Varint(v) => Ok(v),
            _ => Err(format!("field {} is not an integer", self.number)),
        }
    }

    /// The value of a field of bytes, text or message type.
    pub fn bytes(&self) -> Result<&'a [u8], String> {
        match self.value {
            Value::Bytes(b) => Ok(b),
            _ => Err(format!("field {} is not a block of bytes", self.number)),
        }
    }

    /// The value of a text field.
    pub fn text(&self) -> Result<&'a str, String> {
        std::str::from_utf8(self.bytes()?).map_err(|_| format!("field {} is not UTF-8 text", self.number))
    }

    /// The bytes that the value takes up; what a field of repeated numbers is measured by.
    pub fn payload(&self) -> u64 {
        match self.value {
            Value::Varint(_) | Value::Fixed64 => 8,
            Value::Bytes(b) => b.len() as u64,
            Value::Fixed32 => 4,
        }
    }

    /// The integers of a repeated field, which may be packed or not, added to `into`.
    pub fn push_varints(&self, into: &mut Vec<u64>, limit: usize) -> Result<(), String> {
        let mut push = |v| {
            if into.len() == limit {
                return Err(format!("field {} has more than {limit} entries", self.number));
            }
            into.push(v);
            Ok(())
        };
        match self.value {
            Value::Varint(v) => push(v),
            Value::Bytes(mut rest) => {
                while !rest.is_empty() {
                    push(take_varint(&mut rest)?)?;
                }
                Ok(())
            }
            _ => Err(format!("field {} is not a list of integers", self.number)),
        }
    }
}

/// The fields of one message, in file order. Ends after the first error.
#[derive(Debug, Clone)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Fields { rest: message }
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = take_field(&mut self.rest);
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

/// Hands every field of a message on, in file order, until one is broken or refused.
pub(crate) fn walk<'a>(
    message: &'a [u8],
    mut each: impl FnMut(Field<'a>) -> Result<(), String>,
) -> Result<(), String> {
    Fields::new(message).try_for_each(|field| each(field?))
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, String> {
    let key = take_varint(rest)?;
    let number = u32::try_from(key >> 3).ok().filter(|n| (1..1 << 29).contains(n));
    let number = number.ok_or_else(|| format!("field number {} is out of range", key >> 3))?;
    let value = match key & 7 {
        0 => Value::Varint(take_varint(rest)?),
        1 => {
            take(rest, 8)?;
            Value::Fixed64
        }
        2 => {
            let len = take_varint(rest)?;
            let len = usize::try_from(len).map_err(|_| "a length is out of range".to_string())?;
            Value::Bytes(take(rest, len)?)
        }
        5 => {
            take(rest, 4)?;
            Value::Fixed32
        }
        kind => return Err(format!("field {number} has the unknown wire type {kind}")),
    };
    Ok(Field { number, value })
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], String> {
    let (taken, left) = rest.split_at_checked(len).ok_or_else(|| {
        format!("{len} bytes are announced where {} are left; the file is truncated", rest.len())
    })?;
    *rest = left;
    Ok(taken)
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, String> {
    let mut value = 0u64;
    for i in 0..10 {
        let byte = take(rest, 1)?[0];
        let bits = u64::from(byte & 0x7f);
        // The tenth byte has room for one bit.
        if i == 9 && bits > 1 {
            return Err("an integer has more than 64 bits".into());
        }
        value |= bits << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("an integer has more than 10 bytes".into())
}

/// Stores the value of a field that may occur once. Parsers differ in what they make of a second one (the last wins,
/// or both are merged), so a file that has it does not mean one thing.
pub(crate) fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    if slot.replace(value).is_some() {
        return Err(format!("{what} is given twice"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_of_every_kind() {
        let bytes = [0x08, 0x96, 0x01, 0x12, 2, b'h', b'i', 0x1d, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8];
        let fields: Vec<_> = Fields::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(
            fields,
            [
                Field { number: 1, value: Value::Varint(150) },
                Field { number: 2, value: Value::Bytes(b"hi") },
                Field { number: 3, value: Value::Fixed32 },
                Field { number: 4, value: Value::Fixed64 },
            ]
        );
        assert_eq!(fields[1].text(), Ok("hi"));
    }

    #[test]
    fn packed_and_unpacked_integers_read_alike() {
        let mut list = Vec::new();
        for field in Fields::new(&[0x08, 3, 0x0a, 3, 4, 0xac, 0x02]) {
            field.unwrap().push_varints(&mut list, 3).unwrap();
        }
        assert_eq!(list, [3, 4, 300]);
        assert!(Field { number: 1, value: Value::Varint(0) }.push_varints(&mut list, 3).is_err());
    }

    #[test]
    fn broken_bytes_are_errors() {
        let cases: [(&[u8], &str); 6] = [
            (&[0x12, 5, b'h'], "truncated"),
            (&[0x08], "truncated"),
            (&[0x0b], "wire type 3"),
            (&[0x00, 0x00], "out of range"),
            (&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2], "64 bits"),
            (&[0x12, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1], "truncated"),
        ];
        for (bytes, words) in cases {
            let error = Fields::new(bytes).find_map(Result::err).unwrap();
            assert!(error.contains(words), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            // Every field consumes at least one byte, so this ends; nothing may panic on the way.
            prop_assert!(Fields::new(&bytes).count() <= bytes.len());
        }
    }
}
