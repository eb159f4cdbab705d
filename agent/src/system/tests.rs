//! Whole boxes, unpacked from `testdata/boxes`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use latlas_shared::{Device, Fingerprint};

use super::System;
use super::gpu::{FakeGpu, GpuFacts, GpuState};

/// A box in a directory of its own. `testdata/README.md` says how the files are written.
pub fn unpacked(name: &str) -> (tempfile::TempDir, System) {
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("testdata/boxes/{name}.txt"));
    let text = fs::read_to_string(&recorded).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let mut lines = text.lines().filter(|line| !line.starts_with('#')).peekable();
    while let Some(line) = lines.next() {
        if let Some((path, value)) = line.split_once(" = ") {
            for path in expanded(path) {
                write(&dir.path().join(path), &(value.replace("\\0", "\0") + "\n"));
            }
            continue;
        }
        let head = line.strip_suffix(" =").unwrap_or_else(|| panic!("{name}: {line}"));
        let (path, times) =
            head.rsplit_once(" x").map_or((head, 1), |(p, n)| (p, n.parse().unwrap()));
        let mut block = String::new();
        while let Some(line) = lines.next_if(|line| line.starts_with('|')) {
            block += line.strip_prefix("| ").unwrap_or("");
            block += "\n";
        }
        let all: String = (0..times).map(|i: u32| block.replace("{i}", &i.to_string())).collect();
        write(&dir.path().join(path), &all);
    }
    let system = System::at(dir.path());
    (dir, system)
}

/// `cpu{0..2}` as `cpu0`, `cpu1` and `cpu2`.
fn expanded(path: &str) -> Vec<PathBuf> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.into()] };
    let (range, after) = rest.split_once('}').unwrap();
    let (first, last) = range.split_once("..").unwrap();
    let numbers = first.parse::<u32>().unwrap()..=last.parse().unwrap();
    numbers.map(|number| format!("{before}{number}{after}").into()).collect()
}

/// Writes a file, whole or not at all.
pub fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let partial = path.with_extension("partial");
    fs::write(&partial, text).unwrap();
    fs::rename(&partial, path).unwrap();
}

fn t4() -> Arc<FakeGpu> {
    Arc::new(FakeGpu {
        facts: GpuFacts {
            name: Some("Tesla T4".into()),
            memory_bytes: Some(15360 << 20),
            driver: Some("535.183.01".into()),
            power_limit_watts: None,
            more: BTreeMap::from([("gpu_ecc".to_owned(), "on".to_owned())]),
        },
        state: GpuState {
            mhz: Some(1590),
            memory_mhz: Some(5000),
            temperature_c: Some(61.0),
            throttle: Some(vec![]),
        },
        ..FakeGpu::default()
    })
}

fn fact<'a>(fingerprint: &'a Fingerprint, name: &str) -> Option<&'a str> {
    fingerprint.facts.get(name).map(String::as_str)
}

#[test]
fn boxes_have_their_ids() {
    for (name, device, id) in [
        ("cloud-vm", Device::Cpu, "amd-epyc-f25m1-2c-24gb.cpu"),
        ("desktop-i7", Device::Cpu, "intel-i7-8700-3.20ghz-12c-32gb.cpu.powersave"),
        ("orin-nano-jetpack6", Device::Cuda(0), "jetson-orin-nano-8gb.cuda.15w"),
        ("orin-nano-jetpack6", Device::Cpu, "jetson-orin-nano-6c-8gb.cpu.15w"),
        ("nano-jetpack4", Device::Cuda(0), "jetson-nano-4gb.cuda.maxn.locked"),
        ("agx-xavier-jetpack4", Device::Cuda(0), "jetson-agx-xavier-32gb.cuda.mode-15w"),
        ("t4-cloud", Device::Cpu, "intel-xeon-platinum-8259cl-2.50ghz-4c-16gb.cpu"),
        ("t4-cloud", Device::Cuda(0), "unknown-gpu.cuda"),
    ] {
        let (_dir, system) = unpacked(name);
        assert_eq!(system.fingerprint(device).unwrap().hardware_id().as_str(), id, "{name}");
    }
    let (_dir, system) = unpacked("t4-cloud");
    let fingerprint = system.with_gpu(t4()).fingerprint(Device::Cuda(0)).unwrap();
    assert_eq!(fingerprint.hardware_id().as_str(), "tesla-t4-16gb.cuda");
}

#[test]
fn a_cloud_box_hides_most_of_itself() {
    let (_dir, system) = unpacked("cloud-vm");
    let fingerprint = system.fingerprint(Device::Cpu).unwrap();
    assert_eq!((fingerprint.cpus, fingerprint.memory_bytes), (2, 24 << 30));
    assert_eq!((fingerprint.power_mode.as_ref(), fingerprint.max_khz), (None, None));
    assert_eq!((fingerprint.driver.as_ref(), fingerprint.gpu.as_ref()), (None, None));
    let facts: Vec<(&str, &str)> =
        fingerprint.facts.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(
        facts,
        [
            ("cache_l1d", "32K"),
            ("cache_l2", "512K"),
            ("cache_l3", "32768K"),
            ("hypervisor", "yes"),
            ("microcode", "0x1000065"),
            ("simd", "avx2+fma"),
            ("smt", "notsupported"),
            ("transparent_hugepage", "madvise"),
        ]
    );
    let telemetry = system.telemetry();
    assert_eq!((telemetry.load1, telemetry.cpu_pressure), (Some(2.91), Some(64.44)));
    assert_eq!((telemetry.khz, telemetry.temperature_c, telemetry.throttle), (None, None, None));
}

#[test]
fn a_desktop_shows_its_clocks_and_sensors() {
    let (dir, system) = unpacked("desktop-i7");
    let fingerprint = system.fingerprint(Device::Cpu).unwrap();
    assert_eq!(fingerprint.max_khz, Some(4_600_000));
    for (name, value) in [
        ("scaling_driver", "intel_pstate"),
        ("min_khz", "800000"),
        ("boost", "on"),
        ("smt", "on"),
        ("hypervisor", "no"),
        ("machine", "Dell Inc. OptiPlex 7060"),
        ("numa_nodes", "1"),
        ("energy_performance_preference", "balance_performance"),
    ] {
        assert_eq!(fact(&fingerprint, name), Some(value), "{name}");
    }
    let telemetry = system.telemetry();
    assert_eq!(telemetry.khz, Some(799_998), "the slowest of the processors");
    assert_eq!(
        telemetry.temperature_c,
        Some(47.0),
        "the disk's sensor is hotter and does not count"
    );
    assert_eq!(telemetry.throttle, Some(vec![]));
    let counter = "sys/devices/system/cpu/cpu3/thermal_throttle/core_throttle_count";
    write(&dir.path().join(counter), "4\n");
    assert_eq!(
        system.telemetry().throttle,
        None,
        "it throttled once, which says nothing about now"
    );
}

#[test]
fn an_orin_tells_its_mode_and_both_its_clocks() {
    let (dir, system) = unpacked("orin-nano-jetpack6");
    let fingerprint = system.fingerprint(Device::Cuda(0)).unwrap();
    assert_eq!(fingerprint.arch, "aarch64");
    assert_eq!(fingerprint.gpu.as_deref(), Some("Jetson Orin Nano"));
    assert_eq!(fingerprint.driver.as_deref(), Some("L4T R36.4.3"));
    assert_eq!(fingerprint.power_mode.as_deref(), Some("15W"));
    for (name, value) in [
        ("governor", "schedutil"),
        ("soc", "tegra234"),
        ("jetson_clocks", "off"),
        ("gpu_max_mhz", "624"),
        ("emc_max_mhz", "2133"),
        ("unified_memory", "yes"),
        ("simd", "asimdhp+asimddp"),
    ] {
        assert_eq!(fact(&fingerprint, name), Some(value), "{name}");
    }
    assert_eq!(fact(&fingerprint, "hypervisor"), None);
    let telemetry = system.telemetry();
    assert_eq!((telemetry.khz, telemetry.gpu_mhz), (Some(1_113_600), Some(306)));
    assert_eq!(telemetry.temperature_c, Some(50.031));
    assert_eq!(telemetry.memory_mhz, None, "the memory clock is for root alone");
    assert_eq!(telemetry.throttle, Some(vec![]), "a fan that turns is no throttle");
    fs::remove_file(dir.path().join("var/lib/nvpmodel/status")).unwrap();
    let fingerprint = system.fingerprint(Device::Cuda(0)).unwrap();
    assert_eq!(fingerprint.power_mode, None, "the default of nvpmodel.conf is no answer");
}

#[test]
fn a_nano_of_the_older_generation_is_read_from_other_files() {
    let (_dir, system) = unpacked("nano-jetpack4");
    let fingerprint = system.fingerprint(Device::Cuda(0)).unwrap();
    assert_eq!(fingerprint.driver.as_deref(), Some("L4T R32.7.1"));
    assert_eq!(fact(&fingerprint, "jetson_clocks"), Some("on"));
    let telemetry = system.telemetry();
    assert_eq!((telemetry.gpu_mhz, telemetry.memory_mhz), (Some(921), Some(1600)));
    assert_eq!(telemetry.temperature_c, Some(41.5), "PMIC-Die is no sensor");
    assert_eq!(telemetry.throttle, Some(vec!["cpu-balanced=3".to_owned()]));
}

#[test]
fn a_gpu_s_own_word_is_part_of_the_box() {
    let (_dir, system) = unpacked("t4-cloud");
    let kernel_module = system.fingerprint(Device::Cuda(0)).unwrap();
    assert_eq!(kernel_module.driver.as_deref(), Some("535.183.01"));
    assert_eq!(system.fingerprint(Device::Cpu).unwrap().driver, None);
    let unknown = system.telemetry();
    assert_eq!((unknown.gpu_mhz, unknown.temperature_c, unknown.throttle), (None, None, None));

    let system = system.with_gpu(t4());
    let fingerprint = system.fingerprint(Device::Cuda(0)).unwrap();
    assert_eq!(fingerprint.driver.as_deref(), Some("535.183.01"));
    assert_eq!(fact(&fingerprint, "gpu_ecc"), Some("on"));
    assert_eq!(fact(&fingerprint, "machine"), Some("Amazon EC2 g4dn.xlarge"));
    assert_eq!(fact(&fingerprint, "cgroup_cpus"), None, "`max` is no limit");
    let telemetry = system.telemetry();
    assert_eq!((telemetry.gpu_mhz, telemetry.memory_mhz), (Some(1590), Some(5000)));
    assert_eq!((telemetry.temperature_c, telemetry.throttle), (Some(61.0), Some(vec![])));
}

#[test]
fn a_quota_of_processor_time_is_the_least_of_all_groups() {
    let (dir, system) = unpacked("t4-cloud");
    let group = "sys/fs/cgroup/system.slice";
    write(&dir.path().join(format!("{group}/latlas.service/cpu.max")), "300000 100000\n");
    write(&dir.path().join(format!("{group}/cpu.max")), "150000 100000\n");
    let fingerprint = system.fingerprint(Device::Cpu).unwrap();
    assert_eq!(fact(&fingerprint, "cgroup_cpus"), Some("1.5"));
    let (dir, system) = unpacked("cloud-vm");
    write(&dir.path().join("sys/fs/cgroup/cpu/cpu.cfs_quota_us"), "-1\n");
    write(&dir.path().join("sys/fs/cgroup/cpu/cpu.cfs_period_us"), "100000\n");
    assert_eq!(fact(&system.fingerprint(Device::Cpu).unwrap(), "cgroup_cpus"), None);
    write(&dir.path().join("sys/fs/cgroup/cpu/cpu.cfs_quota_us"), "50000\n");
    assert_eq!(fact(&system.fingerprint(Device::Cpu).unwrap(), "cgroup_cpus"), Some("0.5"));
}

#[test]
fn what_changes_from_boot_to_boot_is_not_in_the_fingerprint() {
    let (dir, system) = unpacked("cloud-vm");
    let before = system.fingerprint(Device::Cpu).unwrap();
    for (path, text) in [
        ("proc/meminfo", "MemTotal:       24611876 kB\n"),
        ("proc/loadavg", "9.00 9.00 9.00 5/134 1\n"),
        ("proc/self/cgroup", "2:cpuacct:/\n1:cpu:/process/17\n0::/\n"),
        ("proc/sys/kernel/hostname", "other\n"),
    ] {
        write(&dir.path().join(path), text);
    }
    assert_eq!(system.fingerprint(Device::Cpu).unwrap().digest(), before.digest());
}

#[test]
fn a_box_without_proc_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let error = System::at(dir.path()).fingerprint(Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("proc/cpuinfo"), "{error}");
    assert_eq!(System::at(dir.path()).telemetry(), latlas_shared::Telemetry::default());
}
