//! Walks the fields of an encoded protobuf message without decoding it.
//!
//! Accepts only what every strict parser accepts (<https://protobuf.dev/programming-guides/encoding>): field numbers from
//! 1, varints of at most ten bytes, lengths inside the message. Groups, deprecated since proto2, are refused.

/// What is wrong at a byte of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed {
    /// Bytes from the start of what was walked.
    pub at: usize,
    /// Completes "malformed protobuf: ...".
    pub what: &'static str,
}

/// A field's value, by wire type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 1.
    Fixed64(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire type 5.
    Fixed32(u32),
}

/// A field: its number, its value, and where it stands in the message.
#[derive(Debug, Clone, Copy)]
pub struct Field<'a> {
    /// From 1.
    pub number: u32,
    /// What it holds.
    pub value: Value<'a>,
    /// First byte of its tag.
    pub start: usize,
    /// Behind its last byte.
    pub end: usize,
}

/// A walk over one message.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl<'a> Cursor<'a> {
    /// A walk from the first byte of `message` on.
    pub fn new(message: &'a [u8]) -> Self {
        Self { bytes: message, position: 0 }
    }

    fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { at: self.position, what }
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, Malformed> {
        let rest = &self.bytes[self.position..];
        if let Some(&first) = rest.first()
            && first < 0x80
        {
            self.position += 1;
            return Ok(u64::from(first));
        }
        let mut value = 0u64;
        for (index, &byte) in rest.iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                return Err(self.malformed("a varint above 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.position += index + 1;
                return Ok(value);
            }
        }
        Err(self.malformed(if rest.len() < 10 { "the message ends inside a varint" } else { "a varint above 64 bits" }))
    }

    /// A tag or a length: several parsers read no more than five bytes of these, however the padding.
    #[inline]
    fn short_varint(&mut self) -> Result<u64, Malformed> {
        let start = self.position;
        let value = self.varint()?;
        if self.position - start > 5 {
            return Err(Malformed { at: start, what: "a tag or a length of more than five bytes" });
        }
        Ok(value)
    }

    #[inline]
    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        match self.bytes.get(self.position..).and_then(|rest| rest.get(..len)) {
            Some(taken) => {
                self.position += len;
                Ok(taken)
            }
            None => Err(self.malformed("a field reaches past the end of its message")),
        }
    }

    /// Passes what stands here side by side with this tag of one byte and lengths of one or two, and counts it. That is
    /// all that most of the bytes here are; what is not is left to [`Cursor::next_field`].
    #[inline]
    pub fn pass_run(&mut self, tag: u8) -> usize {
        let mut passed = 0;
        while let Some([found, rest @ ..]) = self.bytes.get(self.position..)
            && *found == tag
        {
            let (head, len) = match *rest {
                [len @ ..0x80, ..] => (2, usize::from(len)),
                [low, high @ ..0x80, ..] => (3, usize::from(low & 0x7f) | usize::from(high) << 7),
                _ => break,
            };
            let end = self.position + head + len;
            if end > self.bytes.len() {
                break;
            }
            self.position = end;
            passed += 1;
        }
        passed
    }

    /// Bytes passed so far.
    pub fn position(&self) -> usize {
        self.position
    }

    /// The next field, or None at the end.
    #[inline]
    pub fn next_field(&mut self) -> Result<Option<Field<'a>>, Malformed> {
        if self.position == self.bytes.len() {
            return Ok(None);
        }
        let start = self.position;
        let tag = self.short_varint()?;
        let number = match u32::try_from(tag >> 3) {
            Ok(number) if (1..1 << 29).contains(&number) => number,
            _ => return Err(Malformed { at: start, what: "a field number outside of 1 to 536870911" }),
        };
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => {
                let mut raw = [0; 8];
                raw.copy_from_slice(self.take(8)?);
                Value::Fixed64(u64::from_le_bytes(raw))
            }
            2 => {
                let len = self.short_varint()?;
                let len = usize::try_from(len).map_err(|_| self.malformed("a length above the address space"))?;
                Value::Bytes(self.take(len)?)
            }
            5 => {
                let mut raw = [0; 4];
                raw.copy_from_slice(self.take(4)?);
                Value::Fixed32(u32::from_le_bytes(raw))
            }
            3 | 4 => return Err(Malformed { at: start, what: "a group, which this broker does not take" }),
            _ => return Err(Malformed { at: start, what: "an unknown wire type" }),
        };
        Ok(Some(Field { number, value, start, end: self.position }))
    }
}

/// Appends `value` as a varint.
#[inline]
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Bytes that `value` takes as a varint.
pub const fn varint_len(value: u64) -> usize {
    let bits = 64 - (value | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// Appends a length-delimited field: tag, length, bytes. Field numbers up to 15 only (one byte of tag).
#[inline]
pub fn put_bytes(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(field << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// upb (Python, Ruby, PHP) and C++ refuse such a message, so a record with it would break their consumers.
    #[test]
    fn tags_and_lengths_padded_beyond_five_bytes_are_refused_and_varints_are_not() {
        let padded = |value: u8, bytes: usize| [vec![value | 0x80], vec![0x80; bytes - 2], vec![0]].concat();
        for bytes in 2..=10 {
            let tag = [padded(10, bytes), b"\x01x".to_vec()].concat();
            let len = [b"\x0a".to_vec(), padded(1, bytes), b"x".to_vec()].concat();
            let value = [b"\x20".to_vec(), padded(1, bytes)].concat();
            assert_eq!(Cursor::new(&tag).next_field().is_ok(), bytes <= 5, "a tag of {bytes} bytes");
            assert_eq!(Cursor::new(&len).next_field().is_ok(), bytes <= 5, "a length of {bytes} bytes");
            assert!(Cursor::new(&value).next_field().is_ok(), "a value of {bytes} bytes");
        }
    }
}
