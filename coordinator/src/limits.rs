//! Rate limits: one token bucket per credential, and one per address for unknown tokens.
//!
//! An address has no other limit, since thousands of boxes may share one. Only guesses count against it. After too many
//! guesses, recently used credentials are still accepted from the address.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Unknown tokens from one address: ten at once, and one more every six seconds.
const GUESSES: Rate = Rate { burst: 10, interval: Duration::from_secs(6) };

/// A credential counts as recently used for this long.
const LATELY: Duration = Duration::from_secs(60 * 60);

/// A bucket's size is the number of calls in this many seconds at the sustained rate.
const BURST_SECONDS: u32 = 4;

/// Full buckets are removed when there are twice as many buckets as after the last removal, and at least this many.
const FEWEST_TO_PRUNE: usize = 1024;

/// A bucket's size and its fill rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls that a full bucket admits at once, at least 1.
    burst: u32,
    /// The time in which one call is added.
    interval: Duration,
}

impl Rate {
    /// A sustained rate in calls per second, and four times as many at once.
    pub const fn per_second(calls: u32) -> Rate {
        let calls = if calls == 0 { 1 } else { calls };
        Rate {
            burst: calls.saturating_mul(BURST_SECONDS),
            interval: Duration::from_nanos(1_000_000_000 / calls as u64),
        }
    }

    /// Takes a call out of a bucket that is full at `full_at`, and returns when it is full afterwards.
    ///
    /// This is the generic cell rate algorithm (ITU-T I.371): the state of a bucket is one time, and it needs no clock
    /// of its own.
    ///
    /// # Errors
    /// How long to wait for the next call, if the bucket is empty.
    fn take(self, full_at: Instant, now: Instant) -> Result<Instant, Duration> {
        let after = full_at.max(now) + self.interval;
        match after.saturating_duration_since(now + self.interval * self.burst) {
            Duration::ZERO => Ok(after),
            wait => Err(wait),
        }
    }
}

impl Default for Rate {
    fn default() -> Rate {
        Rate::per_second(50)
    }
}

/// Buckets by key. A full bucket is forgotten after a while.
#[derive(Debug)]
struct Buckets<K> {
    rate: Rate,
    remembered: Duration,
    full_at: HashMap<K, Instant>,
    prune_at: usize,
}

impl<K: Eq + Hash> Buckets<K> {
    fn new(rate: Rate, remembered: Duration) -> Buckets<K> {
        Buckets { rate, remembered, full_at: HashMap::new(), prune_at: FEWEST_TO_PRUNE }
    }

    fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        if self.full_at.len() >= self.prune_at {
            self.full_at.retain(|_, full_at| now < *full_at + self.remembered);
            self.prune_at = FEWEST_TO_PRUNE.max(2 * self.full_at.len());
        }
        let full_at = self.full_at.entry(key).or_insert(now);
        *full_at = self.rate.take(*full_at, now)?;
        Ok(())
    }

    /// The time until `take` succeeds.
    fn wait(&self, key: &K, now: Instant) -> Option<Duration> {
        self.full_at.get(key).and_then(|full_at| self.rate.take(*full_at, now).err())
    }

    fn remembers(&self, key: &K, now: Instant) -> bool {
        self.full_at.get(key).is_some_and(|full_at| now < *full_at + self.remembered)
    }
}

/// The limits of one coordinator. Credentials are identified by their hashes.
#[derive(Debug)]
pub struct Limits {
    credentials: Mutex<Buckets<[u8; 32]>>,
    addresses: Mutex<Buckets<IpAddr>>,
}

impl Limits {
    /// With a rate for each credential.
    pub fn new(per_credential: Rate) -> Limits {
        Limits {
            credentials: Mutex::new(Buckets::new(per_credential, LATELY)),
            addresses: Mutex::new(Buckets::new(GUESSES, Duration::ZERO)),
        }
    }

    /// Called before a token is looked up.
    ///
    /// # Errors
    /// How long to wait, if the address has guessed too often and the token was not used recently.
    pub fn may_try(
        &self,
        address: IpAddr,
        credential: &[u8; 32],
        now: Instant,
    ) -> Result<(), Duration> {
        match lock(&self.addresses).wait(&site(address), now) {
            Some(wait) if !lock(&self.credentials).remembers(credential, now) => Err(wait),
            _ => Ok(()),
        }
    }

    /// Counts a call with a valid credential.
    ///
    /// # Errors
    /// How long to wait, if the credential was used too often.
    pub fn found(&self, credential: [u8; 32], now: Instant) -> Result<(), Duration> {
        lock(&self.credentials).take(credential, now)
    }

    /// Counts a call with an unknown token.
    ///
    /// # Errors
    /// How long to wait, if the address has guessed too often.
    pub fn guessed(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        lock(&self.addresses).take(site(address), now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of an address that one site cannot choose freely: for IPv6, the first 64 bits (RFC 4291, section 2.5.4).
fn site(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    proptest! {
        /// For any sequence of calls: in each period the bucket admits at most the burst plus the refill, and a caller
        /// that waits as long as it was told is admitted.
        #[test]
        fn a_bucket_lets_through_what_it_says(
            per_second in 1u32..200,
            gaps in prop::collection::vec(0u64..200_000, 1..300),
        ) {
            let rate = Rate::per_second(per_second);
            let start = Instant::now();
            let (mut now, mut full_at) = (start, start);
            let mut through: Vec<Instant> = Vec::new();
            for gap in gaps {
                now += Duration::from_micros(gap);
                match rate.take(full_at, now) {
                    Ok(after) => {
                        full_at = after;
                        through.push(now);
                    }
                    Err(wait) => {
                        prop_assert!(wait > Duration::ZERO && wait <= rate.interval);
                        prop_assert!(rate.take(full_at, now + wait).is_ok());
                    }
                }
            }
            for (first, since) in through.iter().enumerate() {
                for (last, until) in through.iter().enumerate().skip(first) {
                    let filled = (*until - *since).as_nanos() / rate.interval.as_nanos();
                    let calls = (last - first + 1) as u128;
                    prop_assert!(calls <= u128::from(rate.burst) + filled);
                }
            }
        }

        /// A client that keeps to the rate never has to wait.
        #[test]
        fn who_keeps_to_the_rate_never_waits(per_second in 1u32..1000, calls in 1u32..500) {
            let rate = Rate::per_second(per_second);
            let start = Instant::now();
            let mut full_at = start;
            for call in 0..calls {
                full_at = rate.take(full_at, start + rate.interval * call).unwrap();
            }
        }
    }

    #[test]
    fn a_burst_gets_through_and_then_the_rate() {
        let limits = Limits::new(Rate::default());
        let start = Instant::now();
        let burst = (0..1000).filter(|_| limits.found([7; 32], start).is_ok()).count();
        assert_eq!(burst, 200);
        assert_eq!(limits.found([7; 32], start), Err(SECOND / 50));
        let later = start + SECOND;
        assert_eq!((0..1000).filter(|_| limits.found([7; 32], later).is_ok()).count(), 50);
        assert_eq!(limits.found([8; 32], later), Ok(()), "another credential has its own bucket");
    }

    #[test]
    fn guessing_is_slowed_and_known_credentials_are_not() {
        let limits = Limits::new(Rate::default());
        let (here, elsewhere) = (address("192.0.2.1"), address("192.0.2.2"));
        let start = Instant::now();
        limits.found([1; 32], start).unwrap();
        let guess =
            |now| limits.may_try(here, &[9; 32], now).and_then(|()| limits.guessed(here, now));
        assert_eq!((0..1000).filter(|_| guess(start).is_ok()).count(), 10);
        assert_eq!(guess(start), Err(6 * SECOND));
        assert_eq!(limits.may_try(here, &[1; 32], start), Ok(()), "found before");
        assert_eq!(limits.may_try(elsewhere, &[9; 32], start), Ok(()), "an address of its own");
        // One minute of continuous guessing: ten more.
        let minute = (1..=600).filter(|n| guess(start + *n * SECOND / 10).is_ok()).count();
        assert_eq!(minute, 10);
        let much_later = start + 2 * LATELY;
        assert_eq!((0..1000).filter(|_| guess(much_later).is_ok()).count(), 10);
        assert!(limits.may_try(here, &[1; 32], much_later).is_err(), "not found lately");
    }

    #[test]
    fn a_site_s_addresses_share_a_bucket() {
        assert_eq!(site(address("2001:db8:1:2:3:4:5:6")), address("2001:db8:1:2::"));
        assert_eq!(site(address("::ffff:192.0.2.1")), address("192.0.2.1"));
        assert_ne!(site(address("192.0.2.1")), site(address("192.0.2.2")));
    }

    #[test]
    fn full_buckets_are_forgotten() {
        let mut buckets = Buckets::new(GUESSES, Duration::ZERO);
        let start = Instant::now();
        for n in 0..100_000u32 {
            let now = start + Duration::from_millis(n.into());
            buckets.take(n, now).unwrap();
        }
        // A bucket is full after six seconds, in which 6000 buckets were created.
        assert!(buckets.full_at.len() < 3 * 6000, "{}", buckets.full_at.len());
    }
}
