//! Protocol Buffers: the encoding of a message, as far as ONNX files need it.
//!
//! It is written by hand, because a message whose weights are gigabytes is never in memory as a whole: [`Message::open`]
//! announces contents that the caller writes afterwards. Generated code has no such form.

/// An encoded message, or the beginning of one.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Message(Vec<u8>);

/// What follows a field number.
const VARINT: u64 = 0;
const BYTES: u64 = 2;
const FIXED32: u64 = 5;

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn key(&mut self, field: u64, kind: u64) {
        self.varint(field << 3 | kind);
    }

    /// An integer or an enum. A negative one takes ten bytes, as the format demands.
    pub(crate) fn int(&mut self, field: u64, value: i64) {
        self.key(field, VARINT);
        self.varint(value as u64);
    }

    /// A number in single precision.
    pub(crate) fn float(&mut self, field: u64, value: f32) {
        self.key(field, FIXED32);
        self.0.extend(value.to_le_bytes());
    }

    /// A text.
    pub(crate) fn text(&mut self, field: u64, value: &str) {
        self.open(field, value.len() as u64);
        self.0.extend(value.as_bytes());
    }

    /// A message inside this one.
    pub(crate) fn message(&mut self, field: u64, value: &Message) {
        self.open(field, value.len());
        self.append(value);
    }

    /// The beginning of a text, of bytes or of a message of this length. Its contents follow.
    pub(crate) fn open(&mut self, field: u64, length: u64) {
        self.key(field, BYTES);
        self.varint(length);
    }

    /// More of the same message.
    pub(crate) fn append(&mut self, more: &Message) {
        self.0.extend(&more.0);
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the format's own documentation (protobuf.dev/programming-guides/encoding), and the extremes.
    #[test]
    fn fields_are_encoded_as_documented() {
        let encoded = |make: fn(&mut Message)| {
            let mut message = Message::default();
            make(&mut message);
            message.0
        };
        assert_eq!(encoded(|m| m.int(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(encoded(|m| m.text(2, "testing")), b"\x12\x07testing");
        let mut inner = Message::default();
        inner.int(1, 150);
        let mut outer = Message::default();
        outer.message(3, &inner);
        assert_eq!(outer.0, [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(encoded(|m| m.float(2, 1.0)), [0x15, 0, 0, 0x80, 0x3f]);
        let negative = encoded(|m| m.int(1, -1));
        assert_eq!(negative, [8, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        assert_eq!(encoded(|m| m.int(20, 0)), [0xa0, 0x01, 0]);
    }
}
