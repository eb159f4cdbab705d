//! Values of arguments.

use latlas_shared::{NotAVersion, check_version};
use thiserror::Error;

/// A text that is not an id.
#[derive(Debug, Error)]
#[error("an id has the digits 0 to 9 and a to f")]
pub(super) struct NotAnId;

/// A text that is not a label.
#[derive(Debug, Error)]
pub(super) enum NotALabel {
    #[error("write KEY=VALUE to set a label, or KEY- to remove it")]
    Form,
    #[error("the key is missing: write KEY=VALUE, or KEY-")]
    NoKey,
}

/// A UUID, or the beginning of one.
pub(super) fn id(text: &str) -> Result<String, NotAnId> {
    let is_one = !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    if is_one { Ok(text.to_owned()) } else { Err(NotAnId) }
}

/// A label to set, or with none to take away.
pub(super) fn label(text: &str) -> Result<(String, Option<String>), NotALabel> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) if !value.is_empty() => (key, Some(value.to_owned())),
        (None, Some(key)) => (key, None),
        _ => return Err(NotALabel::Form),
    };
    if key.is_empty() {
        return Err(NotALabel::NoKey);
    }
    Ok((key.to_owned(), value))
}

/// A table version.
pub(super) fn version(text: &str) -> Result<String, NotAVersion> {
    check_version(text).map(|()| text.to_owned())
}

/// Dimensions of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dims(pub Vec<u64>);

/// A text that is no shape.
#[derive(Debug, Error)]
#[error("a shape is the sizes of the dimensions, as in 1x3x224x224")]
pub(super) struct NotAShape;

/// A shape such as `1x3x224x224`; commas serve as well.
pub(super) fn shape(text: &str) -> Result<Dims, NotAShape> {
    let sizes = text.split(['x', ',']).map(|size| match size.trim().parse() {
        Ok(size) if size > 0 => Ok(size),
        _ => Err(NotAShape),
    });
    sizes.collect::<Result<_, _>>().map(Dims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_is_its_sizes() {
        assert_eq!(shape("1x3x224x224").unwrap(), Dims(vec![1, 3, 224, 224]));
        assert_eq!(shape("1, 128").unwrap(), Dims(vec![1, 128]));
        for text in ["", "1x", "1x0x3", "1x-1", "batch", "1x3.5"] {
            assert!(shape(text).is_err(), "{text}");
        }
    }
}
