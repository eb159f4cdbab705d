//! Protocol buffers, field by field. It is not generated code: the weights of a model are fields of gigabytes, and
//! here they are passed over by seeking instead of being loaded.

use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use crate::error::ImportError;

/// Bytes of texts, lists and small tensors that are kept of a file.
const MOST_KEPT: u64 = 256 << 20;

/// What each message and each list entry counts beside its own bytes.
const OVERHEAD: u64 = 32;

/// A field's content.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Content {
    /// A number.
    Varint(u64),
    /// Eight bytes.
    Fixed64(u64),
    /// Four bytes.
    Fixed32(u32),
    /// So many bytes follow: a message, a text, or packed numbers.
    Length(u64),
}

/// A field of a message.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Field {
    pub(crate) number: u32,
    pub(crate) content: Content,
}

/// A file of protocol buffers.
pub(crate) struct Wire<R> {
    source: BufReader<R>,
    at: u64,
    length: u64,
    kept: u64,
}

impl<R: Read + Seek> Wire<R> {
    /// Starts at the first byte.
    pub(crate) fn new(mut source: R) -> Result<Wire<R>, ImportError> {
        let length = source.seek(SeekFrom::End(0))?;
        source.seek(SeekFrom::Start(0))?;
        Ok(Wire { source: BufReader::new(source), at: 0, length, kept: 0 })
    }

    /// Number of bytes of the file.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// The next byte: the first one of the content of a field that was just read.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// The error of a wrong byte here.
    pub(crate) fn malformed<T>(&self, problem: impl Into<String>) -> Result<T, ImportError> {
        Err(ImportError::malformed(format!("byte {}", self.at), problem))
    }

    /// The error of a message that is longer than what is around it.
    fn short<T>(&self, end: u64, problem: impl Into<String>) -> Result<T, ImportError> {
        let problem = problem.into();
        match end >= self.length {
            true => self.malformed(format!(
                "the file is cut off or damaged, for {problem}: export or copy it again"
            )),
            false => self.malformed(problem),
        }
    }

    fn byte(&mut self, end: u64) -> Result<u8, ImportError> {
        if self.at >= end {
            return self.short(end, "a field ends in the middle");
        }
        let Some(&byte) = self.source.fill_buf()?.first() else {
            return self.short(self.length, "it ends here, in the middle of a field");
        };
        self.source.consume(1);
        self.at += 1;
        Ok(byte)
    }

    /// A number of seven bits per byte, the lowest first.
    pub(crate) fn varint(&mut self, end: u64) -> Result<u64, ImportError> {
        let mut number = 0;
        for shift in (0..70).step_by(7) {
            let byte = self.byte(end)?;
            let bits = u64::from(byte & 0x7f);
            // The tenth byte has the last bit of 64.
            number |= bits.checked_shl(shift).unwrap_or(0);
            if byte < 0x80 {
                return Ok(number);
            }
        }
        self.malformed("a number has more than ten bytes")
    }

    fn fixed(&mut self, bytes: u32, end: u64) -> Result<u64, ImportError> {
        let mut number = 0;
        for i in 0..bytes {
            number |= u64::from(self.byte(end)?) << (8 * i);
        }
        Ok(number)
    }

    /// The next field of a message that ends at `end`.
    pub(crate) fn next(&mut self, end: u64) -> Result<Option<Field>, ImportError> {
        if self.at >= end {
            return Ok(None);
        }
        let tag = self.varint(end)?;
        let number = u32::try_from(tag >> 3).ok().filter(|&n| n > 0);
        let Some(number) = number else { return self.malformed("a field has no valid number") };
        let content = match tag & 7 {
            0 => Content::Varint(self.varint(end)?),
            1 => Content::Fixed64(self.fixed(8, end)?),
            2 => {
                let length = self.varint(end)?;
                if length > end - self.at {
                    let left = end - self.at;
                    return self.short(
                        end,
                        format!("a field of {length} bytes begins here, and {left} are left"),
                    );
                }
                Content::Length(length)
            }
            5 => {
                let four = self.fixed(4, end)?;
                Content::Fixed32(u32::try_from(four).expect("it has four bytes"))
            }
            kind => return self.malformed(format!("a field of the unknown kind {kind}")),
        };
        Ok(Some(Field { number, content }))
    }

    /// Passes over a field.
    pub(crate) fn skip(&mut self, field: Field) -> Result<(), ImportError> {
        let Content::Length(length) = field.content else { return Ok(()) };
        let Ok(distance) = i64::try_from(length) else {
            return self.malformed("a field is too long");
        };
        self.source.seek_relative(distance)?;
        self.at += length;
        Ok(())
    }

    /// Reads a message inside a field. `read` gets its end, and leaves nothing before it. No message that is read
    /// contains itself, so their depth is bounded.
    pub(crate) fn message<T>(
        &mut self,
        field: Field,
        read: impl FnOnce(&mut Self, u64) -> Result<T, ImportError>,
    ) -> Result<T, ImportError> {
        let length = self.length_of(field)?;
        self.keep(0)?;
        let end = self.at + length;
        read(self, end)
    }

    fn length_of(&self, field: Field) -> Result<u64, ImportError> {
        match field.content {
            Content::Length(length) => Ok(length),
            other => self.malformed(format!(
                "field {} should be a text, a list or a message, and is {other:?}",
                field.number
            )),
        }
    }

    fn keep(&mut self, bytes: u64) -> Result<(), ImportError> {
        self.kept = self.kept.saturating_add(bytes + OVERHEAD);
        if self.kept > MOST_KEPT {
            let what = "what describes the model, without its weights,";
            return Err(ImportError::too_large(what, format!("{} MiB", MOST_KEPT >> 20)));
        }
        Ok(())
    }

    /// The bytes of a field.
    pub(crate) fn bytes(&mut self, field: Field) -> Result<Vec<u8>, ImportError> {
        let length = self.length_of(field)?;
        self.keep(length)?;
        let mut bytes = Vec::new();
        let read = self.source.by_ref().take(length).read_to_end(&mut bytes)?;
        self.at += read as u64;
        if read as u64 != length {
            return self.short(self.length, "it ends here, in the middle of a field");
        }
        Ok(bytes)
    }

    /// The text of a field. Bytes that are not UTF-8 are replaced.
    pub(crate) fn text(&mut self, field: Field) -> Result<String, ImportError> {
        let bytes = self.bytes(field)?;
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// The whole number of a field.
    pub(crate) fn integer(&self, field: Field) -> Result<i64, ImportError> {
        match field.content {
            Content::Varint(number) => Ok(number.cast_signed()),
            other => self
                .malformed(format!("field {} should be a number, and is {other:?}", field.number)),
        }
    }

    /// The floating-point number of a field.
    pub(crate) fn float(&self, field: Field) -> Result<f64, ImportError> {
        match field.content {
            Content::Fixed32(bits) => Ok(f64::from(f32::from_bits(bits))),
            Content::Fixed64(bits) => Ok(f64::from_bits(bits)),
            other => self.malformed(format!(
                "field {} should be a floating-point number, and is {other:?}",
                field.number
            )),
        }
    }

    /// Adds the whole numbers of a repeated field, packed or single.
    pub(crate) fn integers(
        &mut self,
        field: Field,
        list: &mut Vec<i64>,
    ) -> Result<(), ImportError> {
        if let Content::Length(length) = field.content {
            let end = self.at + length;
            while self.at < end {
                let number = self.varint(end)?.cast_signed();
                self.keep(0)?;
                list.push(number);
            }
            return Ok(());
        }
        self.keep(0)?;
        list.push(self.integer(field)?);
        Ok(())
    }

    /// Adds the floating-point numbers of a repeated field of four bytes each, packed or single.
    pub(crate) fn floats(&mut self, field: Field, list: &mut Vec<f64>) -> Result<(), ImportError> {
        if let Content::Length(length) = field.content {
            let end = self.at + length;
            while self.at < end {
                let bits = self.fixed(4, end)?;
                let bits = u32::try_from(bits).expect("it has four bytes");
                self.keep(0)?;
                list.push(f64::from(f32::from_bits(bits)));
            }
            return Ok(());
        }
        self.keep(0)?;
        list.push(self.float(field)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    fn wire(bytes: &[u8]) -> Wire<Cursor<&[u8]>> {
        Wire::new(Cursor::new(bytes)).unwrap()
    }

    fn problem(bytes: &[u8]) -> String {
        let mut wire = wire(bytes);
        let end = bytes.len() as u64;
        loop {
            match wire.next(end) {
                Ok(Some(field)) => wire.skip(field).unwrap(),
                Ok(None) => return "none".to_owned(),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[test]
    fn fields_are_read_by_their_kind() {
        let bytes = [0x08, 0x96, 0x01, 0x15, 0, 0, 0x80, 0x3f, 0x1a, 2, b'o', b'k'];
        let mut wire = wire(&bytes);
        let end = bytes.len() as u64;
        let number = wire.next(end).unwrap().unwrap();
        assert_eq!((number.number, wire.integer(number).unwrap()), (1, 150));
        let float = wire.next(end).unwrap().unwrap();
        assert_eq!((float.number, wire.float(float).unwrap()), (2, 1.0));
        let text = wire.next(end).unwrap().unwrap();
        assert_eq!(wire.text(text).unwrap(), "ok");
        assert_eq!(wire.next(end).unwrap(), None);
    }

    #[test]
    fn negative_numbers_have_ten_bytes() {
        let bytes = [&[0x08][..], &[0xff; 9], &[0x01]].concat();
        let mut wire = wire(&bytes);
        let field = wire.next(11).unwrap().unwrap();
        assert_eq!(wire.integer(field).unwrap(), -1);
    }

    #[test]
    fn damage_is_told_with_its_byte() {
        let cut = |why: &str| {
            format!("the file is cut off or damaged, for {why}: export or copy it again")
        };
        assert_eq!(problem(&[0x08]), format!("byte 1: {}", cut("a field ends in the middle")));
        assert_eq!(
            problem(&[0x1a, 5, 1]),
            format!("byte 2: {}", cut("a field of 5 bytes begins here, and 1 are left"))
        );
        assert_eq!(problem(&[0x0b]), "byte 1: a field of the unknown kind 3");
        assert_eq!(problem(&[0x00]), "byte 1: a field has no valid number");
        assert_eq!(
            problem(&[&[0x08][..], &[0xff; 11]].concat()),
            "byte 11: a number has more than ten bytes"
        );
    }
}
