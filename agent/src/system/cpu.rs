//! Facts about processors: clocks, caches, quotas and the kernel's memory settings.

use std::collections::BTreeSet;

use super::tree::{Tree, field, is_number};

/// Instruction sets that change the choice of kernels, by their names in `/proc/cpuinfo`. A hypervisor that hides the
/// processor's name still shows them.
const SIMD: [&str; 11] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "asimdhp",
    "asimddp",
    "sve",
    "i8mm",
    "bf16",
];

/// The values of one file in the `cpufreq` directories of all processors, in ascending order, each once.
fn cpufreq(tree: &Tree, file: &str) -> BTreeSet<String> {
    tree.cpus().iter().filter_map(|cpu| tree.line(&format!("{cpu}/cpufreq/{file}"))).collect()
}

fn cpufreq_numbers(tree: &Tree, file: &str) -> impl Iterator<Item = u64> {
    cpufreq(tree, file).into_iter().filter_map(|text| text.parse().ok())
}

/// The frequency governor; `a+b` if clusters differ.
pub fn governor(tree: &Tree) -> Option<String> {
    joined(cpufreq(tree, "scaling_governor"))
}

/// The highest allowed frequency of any processor, in kHz.
pub fn max_khz(tree: &Tree) -> Option<u64> {
    cpufreq_numbers(tree, "scaling_max_freq").max()
}

/// The lowest current frequency of any processor, in kHz.
pub fn lowest_khz(tree: &Tree) -> Option<u64> {
    cpufreq_numbers(tree, "scaling_cur_freq").min()
}

/// Whether the lowest and the highest allowed frequency of each processor are equal; unknown without `cpufreq`.
pub fn clocks_are_fixed(tree: &Tree) -> Option<bool> {
    let limits: Vec<(u64, u64)> = tree
        .cpus()
        .iter()
        .filter_map(|cpu| {
            let limit = |file| tree.number(&format!("{cpu}/cpufreq/{file}"));
            limit("scaling_min_freq").zip(limit("scaling_max_freq"))
        })
        .collect();
    (!limits.is_empty()).then(|| limits.iter().all(|(min, max)| min == max))
}

/// Family and model numbers on x86, implementer and part on Arm.
pub fn family(cpuinfo: &str) -> Option<String> {
    if let (Some(family), Some(model)) = (field(cpuinfo, "cpu family"), field(cpuinfo, "model")) {
        return Some(format!("f{family}m{model}"));
    }
    let implementer = field(cpuinfo, "CPU implementer")?;
    Some(format!("i{implementer}p{}", field(cpuinfo, "CPU part")?))
}

/// The other facts that change latency. `docs/hardware.md` explains their names.
pub fn facts(tree: &Tree, cpuinfo: &str) -> Vec<(&'static str, Option<String>)> {
    let cpu = "sys/devices/system/cpu";
    vec![
        ("scaling_driver", joined(cpufreq(tree, "scaling_driver"))),
        ("min_khz", cpufreq_numbers(tree, "scaling_min_freq").min().map(|khz| khz.to_string())),
        ("energy_performance_preference", joined(cpufreq(tree, "energy_performance_preference"))),
        ("boost", boost(tree)),
        ("smt", tree.line(&format!("{cpu}/smt/control"))),
        ("cache_l1d", cache(tree, 1)),
        ("cache_l2", cache(tree, 2)),
        ("cache_l3", cache(tree, 3)),
        ("simd", simd(cpuinfo)),
        ("microcode", field(cpuinfo, "microcode").map(str::to_owned)),
        ("hypervisor", hypervisor(tree, cpuinfo)),
        ("machine", machine(tree)),
        ("numa_nodes", numa_nodes(tree)),
        (
            "transparent_hugepage",
            tree.line("sys/kernel/mm/transparent_hugepage/enabled").and_then(|l| chosen(&l)),
        ),
        ("cgroup_cpus", quota(tree).map(|cpus| cpus.to_string())),
    ]
}

/// The word in brackets, as in `always [madvise] never`.
fn chosen(line: &str) -> Option<String> {
    Some(line.split_once('[')?.1.split_once(']')?.0.to_owned())
}

/// Whether clocks may exceed the nominal clock. The files of AMD and acpi-cpufreq contain this flag, and Intel's driver
/// has the inverse.
fn boost(tree: &Tree) -> Option<String> {
    let cpu = "sys/devices/system/cpu";
    let on = tree
        .number(&format!("{cpu}/cpufreq/boost"))
        .map(|boost| boost != 0)
        .or_else(|| tree.number(&format!("{cpu}/intel_pstate/no_turbo")).map(|no| no == 0))?;
    Some(if on { "on" } else { "off" }.to_owned())
}

/// Size of the first processor's data or unified cache of a level, in the kernel's notation: `512K`.
fn cache(tree: &Tree, level: u64) -> Option<String> {
    let caches = "sys/devices/system/cpu/cpu0/cache";
    tree.entries(caches, |name| name.starts_with("index")).into_iter().find_map(|cache| {
        let is_it = tree.number(&format!("{cache}/level")) == Some(level)
            && tree.line(&format!("{cache}/type")).as_deref() != Some("Instruction");
        is_it.then(|| tree.line(&format!("{cache}/size"))).flatten()
    })
}

fn flags(cpuinfo: &str) -> Option<Vec<&str>> {
    let flags = field(cpuinfo, "flags").or_else(|| field(cpuinfo, "Features"))?;
    Some(flags.split_whitespace().collect())
}

fn simd(cpuinfo: &str) -> Option<String> {
    let flags = flags(cpuinfo)?;
    joined(SIMD.into_iter().filter(|name| flags.contains(name)).map(str::to_owned))
}

/// `yes` or `no` on x86, where the processor has a flag for it. On other architectures a hypervisor is known only by
/// its name, and a missing name leaves the fact unknown.
fn hypervisor(tree: &Tree, cpuinfo: &str) -> Option<String> {
    if let Some(named) = tree.line("sys/hypervisor/type") {
        return Some(named);
    }
    field(cpuinfo, "flags")?;
    let present = flags(cpuinfo)?.contains(&"hypervisor");
    Some(if present { "yes" } else { "no" }.to_owned())
}

/// The product name in the firmware; in a cloud, the provider and the instance type.
fn machine(tree: &Tree) -> Option<String> {
    let part = |file| tree.line(&format!("sys/class/dmi/id/{file}"));
    joined_by([part("sys_vendor"), part("product_name")].into_iter().flatten(), " ")
}

fn numa_nodes(tree: &Tree) -> Option<String> {
    let is_node = |name: &str| name.strip_prefix("node").is_some_and(is_number);
    let nodes = tree.entries("sys/devices/system/node", is_node).len();
    (nodes > 0).then(|| nodes.to_string())
}

/// The smallest processor quota of the control groups above this process, in processors. None without a limit, or if
/// nothing could be read.
///
/// Format: the kernel's `admin-guide/cgroup-v2` (`cpu.max`: quota and period in microseconds) and
/// `scheduler/sched-bwc` (`cpu.cfs_quota_us`, -1 for none).
pub fn quota(tree: &Tree) -> Option<f64> {
    let groups = tree.text("proc/self/cgroup")?;
    let mut quotas = vec![];
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        if controllers.is_empty() {
            for group in ancestors(path) {
                let line = tree.line(&format!("sys/fs/cgroup{group}/cpu.max"));
                quotas.extend(line.and_then(|line| {
                    let (quota, period) = line.split_once(' ')?;
                    Some(quota.parse::<f64>().ok()? / period.trim().parse::<f64>().ok()?)
                }));
            }
        } else if controllers.split(',').any(|controller| controller == "cpu") {
            for group in ancestors(path) {
                let number = |file: &str| {
                    tree.line(&format!("sys/fs/cgroup/cpu{group}/{file}"))?.parse::<f64>().ok()
                };
                let limits = number("cpu.cfs_quota_us").zip(number("cpu.cfs_period_us"));
                quotas.extend(
                    limits.filter(|limits| limits.0 > 0.0).map(|(quota, period)| quota / period),
                );
            }
        }
    }
    quotas.into_iter().filter(|cpus| cpus.is_finite() && *cpus > 0.0).min_by(f64::total_cmp)
}

/// A control group and its ancestors: `/a/b`, `/a` and the empty path of the root.
fn ancestors(path: &str) -> Vec<&str> {
    let mut all = vec![path.trim_end_matches('/')];
    while let Some((above, _)) = all[all.len() - 1].rsplit_once('/') {
        all.push(above);
    }
    all
}

fn joined(texts: impl IntoIterator<Item = String>) -> Option<String> {
    joined_by(texts, "+")
}

fn joined_by(texts: impl IntoIterator<Item = String>, between: &str) -> Option<String> {
    let texts: Vec<String> = texts.into_iter().collect();
    (!texts.is_empty()).then(|| texts.join(between))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_limited_by_the_groups_above_it_too() {
        assert_eq!(ancestors("/a/b"), ["/a/b", "/a", ""]);
        assert_eq!(ancestors("/"), [""]);
    }

    #[test]
    fn the_choice_among_words_is_in_brackets() {
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("always"), None);
    }
}
