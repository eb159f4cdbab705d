//! Tokens: who may do what, as a secret that is shown once and kept as a hash.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

/// What the holder of a token may do; `http::access` says which routes that opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Bring boxes into the farm.
    Enroll,
    /// Read, and ask for measurements.
    Researcher,
    /// Everything that people do.
    Admin,
    /// Work as one box. Such tokens are made by enrolling, never by hand.
    Agent,
}

impl Role {
    /// Its name, in tokens and in the database.
    pub fn name(self) -> &'static str {
        match self {
            Role::Enroll => "enroll",
            Role::Researcher => "researcher",
            Role::Admin => "admin",
            Role::Agent => "agent",
        }
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Role::Enroll, Role::Researcher, Role::Admin, Role::Agent]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| format!("`{text}` is not a role"))
    }
}

/// A token in clear: `latlas_`, the role, and 256 random bits in hexadecimal. The prefix lets people and
/// secret scanners see what they have found.
///
/// It has no `Display` and its `Debug` shows nothing, so it reaches a log only on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token.
    ///
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate(role: Role) -> Result<Token, getrandom::Error> {
        let mut bits = [0u8; 32];
        getrandom::fill(&mut bits)?;
        let hex: String = bits.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Token(format!("latlas_{}_{hex}", role.name())))
    }

    /// A token that somebody sent.
    pub fn from_client(text: &str) -> Token {
        Token(text.to_owned())
    }

    /// The secret itself: for the one answer that hands it over.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// What is stored, and what a token is found by.
    ///
    /// A plain hash is enough, and looking it up by index is too: nobody can choose a token whose
    /// hash is near another's, so how long a look-up takes tells nothing about 256 random bits.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(&self.0).into()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_role_and_differ() {
        let one = Token::generate(Role::Enroll).unwrap();
        let other = Token::generate(Role::Enroll).unwrap();
        assert!(one.reveal().starts_with("latlas_enroll_"));
        assert_eq!(one.reveal().len(), "latlas_enroll_".len() + 64);
        assert_ne!(one, other);
        assert_eq!(one.hash(), Token::from_client(one.reveal()).hash());
    }

    #[test]
    fn a_token_is_not_debugged_into_a_log() {
        let token = Token::generate(Role::Admin).unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
