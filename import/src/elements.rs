//! Element types of stored tensors, and their bytes as numbers.

use crate::graph::Kind;

/// How an element is stored, least significant byte first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    Bool,
}

impl Element {
    /// The kind of its numbers.
    pub(crate) fn kind(self) -> Kind {
        match self {
            Element::F16 | Element::Bf16 | Element::F32 | Element::F64 => Kind::Float,
            Element::Bool => Kind::Boolean,
            _ => Kind::Integer,
        }
    }

    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self {
            Element::I8 | Element::U8 | Element::Bool => 1,
            Element::F16 | Element::Bf16 | Element::I16 | Element::U16 => 2,
            Element::F32 | Element::I32 | Element::U32 => 4,
            Element::F64 | Element::I64 | Element::U64 => 8,
        }
    }

    /// The numbers of a tensor's bytes. Bytes of an incomplete element at the end are left out.
    pub(crate) fn numbers(self, bytes: &[u8]) -> Vec<f64> {
        bytes.chunks_exact(self.size()).map(|element| self.number(element)).collect()
    }

    fn number(self, bytes: &[u8]) -> f64 {
        let mut eight = [0; 8];
        eight[..bytes.len()].copy_from_slice(bytes);
        self.of_bits(u64::from_le_bytes(eight))
    }

    /// The number whose bits are the lowest of `bits`.
    pub(crate) fn of_bits(self, bits: u64) -> f64 {
        match self {
            Element::F16 => half(bits as u16),
            Element::Bf16 => f64::from(f32::from_bits((bits as u32) << 16)),
            Element::F32 => f64::from(f32::from_bits(bits as u32)),
            Element::F64 => f64::from_bits(bits),
            Element::I8 => f64::from((bits as u8).cast_signed()),
            Element::I16 => f64::from((bits as u16).cast_signed()),
            Element::I32 => f64::from((bits as u32).cast_signed()),
            Element::I64 => bits.cast_signed() as f64,
            Element::U8 => f64::from(bits as u8),
            Element::U16 => f64::from(bits as u16),
            Element::U32 => f64::from(bits as u32),
            Element::U64 => bits as f64,
            Element::Bool => f64::from(u8::from(bits as u8 != 0)),
        }
    }
}

/// A number of IEEE 754 in 16 bits.
fn half(bits: u16) -> f64 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = i32::from(bits >> 10 & 0x1f);
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    sign * match exponent {
        0 => fraction * 2_f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction) * 2_f64.powi(exponent - 15),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_numbers_of_their_type() {
        assert_eq!(Element::F32.numbers(&1.5_f32.to_le_bytes()), [1.5]);
        assert_eq!(Element::I64.numbers(&(-2_i64).to_le_bytes()), [-2.0]);
        assert_eq!(Element::I8.numbers(&[0xff, 1]), [-1.0, 1.0]);
        assert_eq!(Element::Bool.numbers(&[0, 2]), [0.0, 1.0]);
        assert_eq!(Element::Bf16.numbers(&[0x80, 0x3f]), [1.0]);
        assert_eq!(Element::I32.numbers(&[1, 0, 0]), [0.0; 0]);
    }

    #[test]
    fn half_precision_has_its_special_numbers() {
        for (bits, number) in [
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (1, 2_f64.powi(-24)),
            (0xfc00, f64::NEG_INFINITY),
        ] {
            assert_eq!(half(bits), number);
        }
        assert!(half(0x7e00).is_nan());
    }
}
