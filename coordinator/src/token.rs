//! Tokens: the permissions of a caller, as a secret that is shown once and stored as a hash.

use std::fmt;
use std::str::FromStr;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// What the holder of a token may do; `http::access` defines the routes of each role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Enrol agents.
    Enroll,
    /// Read, and request measurements.
    Researcher,
    /// Everything that people may do.
    Admin,
    /// Work as one agent. Such tokens are created by enrolment, never by hand.
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

/// A name that is not a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a role")]
pub struct UnknownRole(pub String);

impl FromStr for Role {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Role::Enroll, Role::Researcher, Role::Admin, Role::Agent]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or_else(|| UnknownRole(text.to_owned()))
    }
}

/// Default validity of enrol tokens, in days. Such tokens remain in scripts and images, so they expire by default.
const ENROL_DAYS: i64 = 30;

/// Default number of agents that one enrol token can enrol.
const ENROL_USES: u32 = 100;

/// The validity of a token and its number of uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Terms {
    /// The token is invalid from this moment on; none: it does not expire.
    pub expires_at: Option<Timestamp>,
    /// Number of agents that it can still enrol; none: no limit.
    pub uses_left: Option<u32>,
}

impl Terms {
    /// The default terms of a role.
    pub fn usual(role: Role, now: Timestamp) -> Terms {
        match role {
            Role::Enroll => Terms {
                expires_at: now.checked_add(SignedDuration::from_hours(24 * ENROL_DAYS)).ok(),
                uses_left: Some(ENROL_USES),
            },
            Role::Researcher | Role::Admin | Role::Agent => Terms::default(),
        }
    }

    /// Whether a token with these terms is valid at this moment.
    pub fn hold(&self, now: Timestamp) -> bool {
        self.expires_at.is_none_or(|end| now < end) && self.uses_left != Some(0)
    }
}

/// A token in plain text: `latlas_`, the role, and 256 random bits in hexadecimal. The prefix lets people and secret
/// scanners recognize it.
///
/// The type has no `Display`, and its `Debug` shows nothing, so a token is logged only on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A new token.
    ///
    /// # Errors
    /// When the operating system provides no randomness.
    pub fn generate(role: Role) -> Result<Token, getrandom::Error> {
        let mut bits = [0u8; 32];
        getrandom::fill(&mut bits)?;
        Ok(Token(format!("latlas_{}_{}", role.name(), hex::encode(bits))))
    }

    /// A token that somebody sent.
    pub fn from_client(text: &str) -> Token {
        Token(text.to_owned())
    }

    /// The secret itself, for the single answer that contains it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The hash that is stored and used for look-ups.
    ///
    /// A plain hash is enough, since 256 random bits can't be found by trial. A look-up by index is also enough,
    /// without a comparison in constant time. Its duration may reveal how close a stored hash is to the hash of the
    /// sent token, but nobody can compute a token from a hash, nor a token with a closer hash.
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
    fn terms_end_by_time_and_by_use() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        let second = SignedDuration::from_secs(1);
        assert!(Terms::default().hold(now));
        let until = Terms { expires_at: Some(now), uses_left: None };
        assert!(until.hold(now - second) && !until.hold(now) && !until.hold(now + second));
        let times = |uses_left| Terms { expires_at: None, uses_left: Some(uses_left) };
        assert!(times(1).hold(now) && !times(0).hold(now));
        let usual = Terms::usual(Role::Enroll, now);
        assert!(usual.hold(now + SignedDuration::from_hours(24 * 30) - second));
        assert!(!usual.hold(now + SignedDuration::from_hours(24 * 30)));
        assert_eq!(usual.uses_left, Some(100));
        for role in [Role::Researcher, Role::Admin, Role::Agent] {
            assert_eq!(Terms::usual(role, now), Terms::default());
        }
    }

    #[test]
    fn a_token_is_not_debugged_into_a_log() {
        let token = Token::generate(Role::Admin).unwrap();
        assert_eq!(format!("{token:?}"), "Token(..)");
    }
}
