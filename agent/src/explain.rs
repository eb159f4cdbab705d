//! Measurements for people: one line each, or a plot that shows visits, interval, curve and rejected samples.

use std::fmt::Write as _;

use latlas_predict::stats::{self, Visit};
use latlas_shared::{CurvePoint, Measurement, Status, samples};

/// Width of a plot in characters.
const WIDTH: usize = 56;

/// The result of a measurement as one line.
pub fn describe(measurement: &Measurement) -> String {
    let latency = measurement.latency.as_ref();
    let value = latency.and_then(|latency| latency.at(measurement.reference_distance()));
    let number = match value {
        Some(point) => {
            let (low, micros, high) = point.latency_micros();
            let bound = if point.host_bound() { "  host-bound" } else { "" };
            let end = measurement.sustained.map_or_else(String::new, |run| {
                let percent = 100.0 * (run.over_burst() - 1.0);
                format!("  {percent:+.1}% after {} s", run.seconds)
            });
            format!("{micros:>10.1} us  ±{:.1}%{bound}{end}", 100.0 * (high - low) / 2.0 / micros)
        }
        None => "failed".to_owned(),
    };
    let reason = match (&measurement.status, &measurement.reason) {
        (Status::Ok, _) | (_, None) => String::new(),
        (_, Some(reason)) => format!("  ({reason})"),
    };
    format!("{:<48} {number}{reason}", measurement.subject.to_string())
}

/// A scale from microseconds to columns.
struct Scale {
    low: f64,
    high: f64,
}

impl Scale {
    /// From the smallest sample to the 98th percentile, so that one hiccup does not flatten the rest.
    fn over(pooled: &[f64]) -> Scale {
        let low = pooled[0];
        let high = stats::quantile_of_sorted(pooled, 0.98);
        Scale { low, high: if high > low { high } else { low * 1.01 + 1e-3 } }
    }

    fn column(&self, micros: f64) -> usize {
        let share = ((micros - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        (share * (WIDTH - 1) as f64).round() as usize
    }
}

/// The report on one measurement.
pub fn explain(measurement: &Measurement) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = report(measurement, &mut text);
    text
}

fn report(measurement: &Measurement, text: &mut String) -> std::fmt::Result {
    writeln!(text, "{}  {}", measurement.subject, measurement.run_config.id())?;
    write!(text, "status {}", measurement.status.name())?;
    match &measurement.reason {
        Some(reason) => writeln!(text, ": {reason}")?,
        None => writeln!(text)?,
    }
    let Some(latency) = &measurement.latency else { return Ok(()) };
    let reference = measurement.run_config.reuse_distance_bytes;
    let Some(point) = latency.at(reference).or(latency.curve.first()) else { return Ok(()) };
    writeln!(
        text,
        "quiet quantile {:.2} us (10th percentile of {} samples in {} visits), 95% interval {:.2} to \
         {:.2} us (±{:.1}%), median {:.2} us",
        point.quiet_micros,
        point.samples,
        point.visits,
        point.ci95_low_micros,
        point.ci95_high_micros,
        100.0 * point.ci95_rel(),
        point.median_micros
    )?;
    if let Some((low, host, high)) = point.host_interval() {
        let bound = if point.host_bound() { ": the device waits for the host" } else { "" };
        writeln!(
            text,
            "issuing a call costs the host {host:.2} us, 95% interval {low:.2} to {high:.2} us{bound}"
        )?;
    }
    writeln!(text, "set aside as disturbed: {} samples", measurement.rejected)?;
    for (key, micros) in &measurement.references {
        writeln!(text, "reference {key}: {micros:.2} us in the same run")?;
    }
    if let Some(bytes) = measurement.peak_memory_bytes {
        writeln!(text, "most memory of the worker: {} MiB", bytes >> 20)?;
    }
    let unpacked = measurement.samples.as_deref().map(samples::unpack);
    if let Some(Ok(samples)) = unpacked
        && let Some(visits) = samples.micros.get(&point.reuse_distance_bytes)
    {
        plot_visits(visits, point, text)?;
    }
    plot_curve(&latency.curve, point.reuse_distance_bytes, text)
}

fn plot_visits(visits: &[Visit], point: &CurvePoint, text: &mut String) -> std::fmt::Result {
    let pooled = stats::sorted(&visits.concat());
    if pooled.is_empty() {
        return Ok(());
    }
    let scale = Scale::over(&pooled);
    let mib = point.reuse_distance_bytes >> 20;
    writeln!(text, "\nvisits at {mib} MiB, each sample a dot, beyond the right edge a `>`")?;
    let mut axis = vec![' '; WIDTH];
    let (low, high) = (scale.column(point.ci95_low_micros), scale.column(point.ci95_high_micros));
    axis[low..=high].fill('=');
    axis[scale.column(point.quiet_micros)] = '|';
    writeln!(text, "  interval {}", axis.iter().collect::<String>().trim_end())?;
    for (index, visit) in visits.iter().enumerate() {
        let mut line = vec![' '; WIDTH + 1];
        for &sample in visit {
            let column = if sample > scale.high { WIDTH } else { scale.column(sample) };
            line[column] = if column == WIDTH { '>' } else { '.' };
        }
        writeln!(text, "  {:>8} {}", index + 1, line.iter().collect::<String>().trim_end())?;
    }
    let right = format!("{:.2} us", scale.high);
    writeln!(
        text,
        "           {:<width$}{right}",
        format!("{:.2}", scale.low),
        width = WIDTH - right.len()
    )
}

fn plot_curve(curve: &[CurvePoint], reference: u64, text: &mut String) -> std::fmt::Result {
    let most = curve.iter().map(|point| point.quiet_micros).fold(0.0, f64::max);
    writeln!(text, "\nreuse distance, quiet quantile, ± half of the 95% interval")?;
    for point in curve {
        let length = (point.quiet_micros / most * (WIDTH - 20) as f64).round() as usize;
        let mark = if point.reuse_distance_bytes == reference { '*' } else { ' ' };
        writeln!(
            text,
            "{mark} {:>4} MiB {:>11.2} us ±{:>4.1}%  {}",
            point.reuse_distance_bytes >> 20,
            point.quiet_micros,
            100.0 * point.ci95_rel(),
            "#".repeat(length)
        )?;
    }
    Ok(())
}
