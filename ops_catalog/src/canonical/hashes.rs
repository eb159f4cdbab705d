//! The hashes of an architecture, and the text that they are taken of.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Order;
use super::sketch::{Wired, label_text};
use crate::digest::{self, DigestError};

/// Declares the text of a hash, with the version of its meaning in front of it.
macro_rules! hash {
    ($(#[$about:meta])* $name:ident, $prefix:literal) => {
        $(#[$about])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(String);

        impl $name {
            /// What its text begins with.
            pub const PREFIX: &'static str = $prefix;

            /// The hash of a graph in an order of its vertices. `input` is the input's shape, where it counts, and
            /// `names` has the text of each label.
            pub fn of(wired: &Wired, order: &Order, input: &str, names: &[impl AsRef<str>]) -> Self {
                let text = text($prefix, wired, order, input, names);
                $name(digest::write_whole($prefix, Sha256::digest(text).into()))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = DigestError;

            fn from_str(text: &str) -> Result<Self, DigestError> {
                digest::read_whole($prefix, text).map($name)
            }
        }

        impl TryFrom<String> for $name {
            type Error = DigestError;

            fn try_from(text: String) -> Result<Self, DigestError> {
                text.parse()
            }
        }

        #[cfg(feature = "openapi")]
        crate::openapi::text_schema!($name, "A hash of an architecture.");
    };
}

hash! {
    /// The hash of ops and wires. Architectures of any width, stride and resolution have one, if they differ in
    /// nothing else.
    TopologyHash, "topology-1:"
}

hash! {
    /// The hash of ops and wires with all sizes.
    ShapedHash, "shaped-1:"
}

hash! {
    /// The hash of what is computed from the input, with all sizes ([`Sketch::computation`](super::Sketch)).
    ComputationHash, "computation-1:"
}

/// The text of a graph: a line for each vertex, with its label and the lines that it reads, counted from 0.
fn text(
    prefix: &str,
    wired: &Wired,
    order: &Order,
    input: &str,
    names: &[impl AsRef<str>],
) -> String {
    let dag = &wired.dag;
    let mut places = vec![0u32; dag.len()];
    for (place, &vertex) in (0..).zip(&order.vertices) {
        places[vertex as usize] = place;
    }
    let mut text = String::with_capacity(64 + 64 * dag.len());
    text.extend([prefix, input, "\n"]);
    let mut read = Vec::new();
    for &vertex in &order.vertices {
        text.push_str(label_text(dag.label(vertex), names));
        read.clear();
        read.extend(dag.inputs(vertex).iter().map(|&input| places[input as usize]));
        if !dag.is_ordered(vertex) {
            read.sort_unstable();
        }
        for &place in &read {
            text.push(' ');
            push_number(&mut text, place);
        }
        text.push('\n');
    }
    text
}

/// Adds a number in decimal digits, several times as fast as with `write!`.
fn push_number(text: &mut String, number: u32) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}
