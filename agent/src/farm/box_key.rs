//! The key by which a farm recognizes a box that has lost its state directory.

use std::io::ErrorKind;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::record::Recorder;

/// A hash of the facts that identify the box. The hash differs from farm to farm, and does not reveal the facts.
pub fn box_key(farm_id: Uuid, facts: &str) -> String {
    let hash = Sha256::digest(format!("latlas box\n{farm_id}\n{facts}"));
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Makes this process the only one on this machine that uses the box's key for its table, until the listener is
/// dropped. The kernel releases the name when the process ends, in whatever way. None if another process holds the
/// name, or if the kernel has no abstract names.
pub fn claim(key: &str, recorder: &Recorder) -> Option<UnixListener> {
    let (hardware, config) = (&recorder.hardware_id, recorder.run_config.id());
    // The length of a socket name is limited, so it is a hash.
    let hash = Sha256::digest(format!("{key}\n{hardware}\n{config}"));
    let name: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let name = SocketAddr::from_abstract_name(format!("latlas-agent-{name}"));
    match name.and_then(|name| UnixListener::bind_addr(&name)) {
        Ok(listener) => Some(listener),
        Err(e) if e.kind() == ErrorKind::AddrInUse => {
            tracing::info!("another agent of this box measures for the same table");
            None
        }
        Err(e) => {
            tracing::warn!("the farm will not know this box without its state directory: {e}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use latlas_shared::{Device, RunConfig};

    #[test]
    fn a_key_is_of_one_box_in_one_farm() {
        let (farm, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(box_key(farm, "a"), box_key(farm, "a"));
        assert_ne!(box_key(farm, "a"), box_key(farm, "b"));
        assert_ne!(box_key(farm, "a"), box_key(other, "a"));
        assert_eq!(box_key(farm, "a").len(), 64);
    }

    #[test]
    fn one_process_at_a_time_goes_by_a_key() {
        let config = RunConfig::libtorch_eager("0");
        let recorder = Recorder::new(Device::Cpu, config, BTreeMap::new()).unwrap();
        let key = Uuid::new_v4().to_string();
        let first = claim(&key, &recorder).expect("nobody has it");
        assert!(claim(&key, &recorder).is_none());
        drop(first);
        assert!(claim(&key, &recorder).is_some());
    }
}
