//! Errors as text.

use std::error::Error;

/// An error and all of its sources, from the outermost to the innermost: for where an error leaves the program as text.
pub fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
