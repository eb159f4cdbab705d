//! Numbers in readable form.

pub(crate) use latlas_shared::words::{age, count, plain};

/// Three significant digits.
fn three_digits(value: f64) -> String {
    match value {
        v if v >= 99.95 => format!("{v:.0}"),
        v if v >= 9.995 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}

/// Microseconds in the unit that suits them: `431 us`, `12.3 ms`, `1.20 s`.
pub(crate) fn duration(micros: f64) -> String {
    match micros {
        m if m < 999.5 => format!("{} us", three_digits(m)),
        m if m < 999.5e3 => format!("{} ms", three_digits(m / 1e3)),
        m => format!("{} s", three_digits(m / 1e6)),
    }
}

/// `4.7%`: a share, or `-` if there is none.
pub(crate) fn percent(share: Option<f64>) -> String {
    match share.map(|share| 100.0 * share) {
        None => "-".to_owned(),
        Some(p) if p < 99.95 => format!("{p:.1}%"),
        Some(p) => format!("{p:.0}%"),
    }
}

/// `300.8 M`: FLOPs and parameters.
pub(crate) fn quantity(n: u64) -> String {
    match n as f64 {
        v if v < 1e4 => n.to_string(),
        v if v < 1e6 => format!("{:.1} k", v / 1e3),
        v if v < 1e9 => format!("{:.1} M", v / 1e6),
        v => format!("{:.2} G", v / 1e9),
    }
}

/// `18.4 MiB`.
pub(crate) fn bytes(n: f64) -> String {
    match n {
        n if n < 1024.0 => format!("{n:.0} B"),
        n if n < 1024.0 * 1024.0 => format!("{:.1} KiB", n / 1024.0),
        n if n < 1024.0 * 1024.0 * 1024.0 => format!("{:.1} MiB", n / 1024.0 / 1024.0),
        n => format!("{:.1} GiB", n / 1024.0 / 1024.0 / 1024.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_units() {
        for (micros, text) in [
            (0.4212, "0.42 us"),
            (99.96, "100 us"),
            (999.4, "999 us"),
            (999.6, "1.00 ms"),
            (12_345.0, "12.3 ms"),
            (1_200_000.0, "1.20 s"),
        ] {
            assert_eq!(duration(micros), text);
        }
        assert_eq!(
            [9_999, 31_000, 300_774_272, 4_089_184_256].map(quantity),
            ["9999", "31.0 k", "300.8 M", "4.09 G"]
        );
        assert_eq!([12.0, 2048.0, 19.3e6].map(bytes), ["12 B", "2.0 KiB", "18.4 MiB"]);
    }
}
