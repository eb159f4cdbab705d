//! The effect of a network on a message.

use super::Millis;

/// The fault rates of a network.
#[derive(Debug, Clone, Copy)]
pub struct Network {
    /// Share of messages that are lost.
    loss: f64,
    /// Share of messages that arrive twice.
    twice: f64,
    /// Share of slow messages: they overtake no other message and are overtaken by many.
    slow: f64,
}

/// The longest delay of a message.
pub const LONGEST: Millis = 150_000;

impl Network {
    /// A network with random fault rates; a quarter of them have no faults.
    pub fn draw(rng: &mut fastrand::Rng) -> Network {
        if rng.f64() < 0.25 {
            return Network::good();
        }
        Network { loss: rng.f64() * 0.4, twice: rng.f64() * 0.3, slow: rng.f64() * 0.2 }
    }

    /// A network without faults.
    pub fn good() -> Network {
        Network { loss: 0.0, twice: 0.0, slow: 0.0 }
    }

    /// Delays of the copies of a message: none, one or two.
    pub fn deliver(&self, rng: &mut fastrand::Rng) -> Vec<Millis> {
        if rng.f64() < self.loss {
            return Vec::new();
        }
        let copies = if rng.f64() < self.twice { 2 } else { 1 };
        (0..copies)
            .map(|_| {
                let most = if rng.f64() < self.slow { LONGEST } else { 300 };
                rng.i64(1..=most)
            })
            .collect()
    }
}
