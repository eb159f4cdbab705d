//! Facts that identify this box among all others, independent of the state directory.

use std::fs;

use super::System;

impl System {
    /// Facts that stay with the box over reboots and new state directories, and that no other box shares: the machine
    /// id of the installation, and a serial number or the addresses of its network cards. The machine id alone is not
    /// enough, because copies of a disk share it. None if they are missing, as in a container. Every user can read
    /// these facts, so the user who starts the agent makes no difference.
    pub fn box_facts(&self) -> Option<String> {
        let machine = self.tree.line("etc/machine-id").filter(|id| id != "uninitialized")?;
        let serial =
            ["proc/device-tree/serial-number", "sys/firmware/devicetree/base/serial-number"]
                .into_iter()
                .find_map(|path| self.tree.line(path));
        let hardware = match serial {
            Some(serial) => serial,
            None => self.network_cards()?,
        };
        Some(format!("{machine} {hardware}"))
    }

    /// The permanent addresses of built-in cards; none if there are none.
    fn network_cards(&self) -> Option<String> {
        let is_card = |path: &String| {
            let device = fs::canonicalize(self.tree.path(&format!("{path}/device")));
            let is_usb = |device: &std::path::Path| device.to_string_lossy().contains("/usb");
            device.is_ok_and(|device| !is_usb(&device))
                && self.tree.number(&format!("{path}/addr_assign_type")) == Some(0)
        };
        let cards = self.tree.entries("sys/class/net", |_| true).into_iter().filter(is_card);
        let mut addresses: Vec<String> =
            cards.filter_map(|path| self.tree.line(&format!("{path}/address"))).collect();
        addresses.sort_unstable();
        addresses.dedup();
        (!addresses.is_empty()).then(|| addresses.join(" "))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::super::tests::write;
    use super::*;

    fn card(root: &Path, name: &str, bus: &str, address: &str, assigned: &str) {
        let device = root.join(format!("sys/devices/{bus}/{name}"));
        fs::create_dir_all(&device).unwrap();
        write(&root.join(format!("sys/class/net/{name}/address")), address);
        write(&root.join(format!("sys/class/net/{name}/addr_assign_type")), assigned);
        symlink(device, root.join(format!("sys/class/net/{name}/device"))).unwrap();
    }

    #[test]
    fn a_box_is_told_by_what_its_disk_does_not_hold() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let facts = || System::at(root).box_facts();
        // Copies of one disk share a machine id, so the machine id alone does not identify a box.
        write(&root.join("etc/machine-id"), "3d12\n");
        assert_eq!(facts(), None);
        card(root, "eth1", "pci0", "02:00:00:00:00:02\n", "0\n");
        card(root, "eth0", "pci0", "02:00:00:00:00:01\n", "0\n");
        // Plugged-in cards, virtual cards, and cards without a device.
        card(root, "usb0", "pci0/usb1", "02:00:00:00:00:03\n", "0\n");
        card(root, "wlan0", "pci0", "02:00:00:00:00:04\n", "1\n");
        write(&root.join("sys/class/net/lo/address"), "00:00:00:00:00:00\n");
        assert_eq!(facts().as_deref(), Some("3d12 02:00:00:00:00:01 02:00:00:00:00:02"));
        write(&root.join("proc/device-tree/serial-number"), "1420921055\0\n");
        assert_eq!(facts().as_deref(), Some("3d12 1420921055"));
        fs::remove_file(root.join("etc/machine-id")).unwrap();
        assert_eq!(facts(), None);
    }
}
