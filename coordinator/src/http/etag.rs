//! Strong entity tags, which name one exact sequence of bytes: so a compressed answer has a tag of its own.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;
use headers::{ETag, HeaderMapExt as _, IfNoneMatch};

/// The encodings that answers may be compressed with.
const ENCODINGS: [&str; 2] = ["gzip", "zstd"];

/// The tag of a table version in a format.
pub fn of_version(version: &str, format: &str) -> String {
    format!("\"{version}-{format}\"")
}

/// The tag of the request's `If-None-Match` that stands for `tag`, compressed or not: then the client
/// has what it asks for.
pub fn known(headers: &HeaderMap, tag: &str) -> Option<String> {
    let asked: IfNoneMatch = headers.typed_get()?;
    let encoded = ENCODINGS.map(|encoding| with_encoding(tag, encoding));
    let mut ours = std::iter::once(tag.to_owned()).chain(encoded);
    // `precondition_passes` is false if the condition names the tag. The comparison is weak.
    ours.find(|tag| tag.parse().is_ok_and(|tag: ETag| !asked.precondition_passes(&tag)))
}

fn with_encoding(tag: &str, encoding: &str) -> String {
    match tag.strip_suffix('"') {
        Some(open) => format!("{open}-{encoding}\""),
        None => tag.to_owned(),
    }
}

/// Gives a compressed answer a tag of its own.
pub async fn mark_encoding(mut response: Response) -> Response {
    let headers = response.headers();
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok());
    let tag = headers.get(header::ETAG).and_then(|value| value.to_str().ok());
    if let (Some(encoding), Some(tag)) = (encoding, tag)
        && let Ok(marked) = HeaderValue::from_str(&with_encoding(tag, encoding))
    {
        response.headers_mut().insert(header::ETAG, marked);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))])
    }

    #[test]
    fn a_client_that_has_it_is_known_in_any_encoding() {
        let tag = of_version("abc", "csv");
        for (value, expected) in [
            ("\"abc-csv\"", Some("\"abc-csv\"")),
            ("\"x\", W/\"abc-csv-gzip\"", Some("\"abc-csv-gzip\"")),
            ("*", Some("\"abc-csv\"")),
            ("\"abc-json\"", None),
            ("abc-csv", None),
        ] {
            assert_eq!(known(&asked(value), &tag).as_deref(), expected, "{value}");
        }
        assert_eq!(known(&HeaderMap::new(), &tag), None);
    }
}
