//! A plot of predictions against measurements: an SVG that needs no fonts and no library.

use std::fmt::Write;

use latlas_shared::{Accuracy, Table};

use crate::text::{duration, percent, plain};

/// Width and height of the plotting area, and its margins, in pixels.
const AREA: f64 = 520.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 90.0;
const RIGHT: f64 = 30.0;
const BOTTOM: f64 = 64.0;

/// Colours that colour-blind people can tell apart (Okabe and Ito, 2008).
const COLOURS: [&str; 7] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Both axes are equal: logarithmic, over the same range.
struct Axis {
    low: f64,
    high: f64,
}

impl Axis {
    /// A range around some latencies, with a margin so that no point lies on the frame.
    fn around(values: impl Iterator<Item = f64>) -> Axis {
        let (low, high) =
            values.fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
        if low > high {
            return Axis { low: 100.0, high: 10_000.0 };
        }
        // Even a single point gets a range with ticks in it.
        let margin = (high / low).powf(0.06).max(1.6);
        Axis { low: low / margin, high: high * margin }
    }

    /// The position of a latency along the axis, in pixels.
    fn place(&self, micros: f64) -> f64 {
        AREA * (micros / self.low).ln() / (self.high / self.low).ln()
    }

    fn x(&self, micros: f64) -> f64 {
        LEFT + self.place(micros)
    }

    fn y(&self, micros: f64) -> f64 {
        TOP + AREA - self.place(micros)
    }

    /// Round latencies inside the range: one, two and five times each power of ten, more of them if the range is
    /// narrow, and only the powers if it is wide.
    fn ticks(&self) -> Vec<f64> {
        let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
        let steps: &[f64] = match self.high / self.low {
            ratio if ratio > 2e3 => &[1.0],
            ratio if ratio > 8.0 => &[1.0, 2.0, 5.0],
            _ => &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0],
        };
        decades
            .flat_map(|decade| steps.iter().map(move |step| step * 10f64.powi(decade)))
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect()
    }
}

/// The plot of a table's accuracy: measured latencies on the x axis, predicted ones on the y axis, and a point for each
/// network with a prediction.
pub(crate) fn svg(table: &Table, accuracy: &Accuracy) -> String {
    let pairs = accuracy.networks.iter().filter_map(|network| {
        Some([network.measured_micros, network.prediction.as_ref()?.predicted_micros])
    });
    let axis = Axis::around(pairs.flatten());
    let (width, height) = (LEFT + AREA + RIGHT, TOP + AREA + BOTTOM);
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" font-family="Helvetica, Arial, sans-serif" font-size="13" fill="#222">
<rect width="{width}" height="{height}" fill="white"/>
<clipPath id="area"><rect x="{LEFT}" y="{TOP}" width="{AREA}" height="{AREA}"/></clipPath>
"##
    );
    heading(&mut out, table, accuracy);
    band(&mut out, &axis);
    axes(&mut out, &axis);
    points(&mut out, &axis, accuracy);
    legend(&mut out, accuracy);
    out.push_str("</svg>\n");
    out
}

fn heading(out: &mut String, table: &Table, accuracy: &Accuracy) {
    let all = &accuracy.overall;
    let line = format!(
        "{} of {} networks predicted; mean error {}, within ±10%: {}",
        all.predicted,
        all.networks,
        percent(all.mape),
        percent(all.within_10)
    );
    let small = r##"font-size="11" fill="#777""##;
    text(out, (LEFT, 26.0), r#"font-size="15" font-weight="bold""#, table.hardware_id.as_str());
    text(out, (LEFT, 46.0), "", &line);
    text(out, (LEFT, 63.0), small, &table.run_config.id());
    text(out, (LEFT, 79.0), small, &format!("table version {}", table.version));
}

/// The line of exact predictions, and the band of predictions within 10%.
fn band(out: &mut String, axis: &Axis) {
    let corner = |x: f64, factor: f64| format!("{:.1},{:.1}", axis.x(x), axis.y(x * factor));
    let corners = [
        corner(axis.low, 0.9),
        corner(axis.high, 0.9),
        corner(axis.high, 1.1),
        corner(axis.low, 1.1),
    ];
    push(
        out,
        format_args!(
            r##"<g clip-path="url(#area)"><polygon points="{}" fill="#e4ecf2"/><line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="#8aa"/></g>"##,
            corners.join(" "),
            axis.x(axis.low),
            axis.y(axis.low),
            axis.x(axis.high),
            axis.y(axis.high)
        ),
    );
}

fn axes(out: &mut String, axis: &Axis) {
    let (right, bottom) = (LEFT + AREA, TOP + AREA);
    for tick in axis.ticks() {
        let (x, y) = (axis.x(tick), axis.y(tick));
        push(
            out,
            format_args!(
                r##"<path d="M{x:.1} {TOP}V{bottom}M{LEFT} {y:.1}H{right}" stroke="#000" stroke-opacity="0.09" fill="none"/>"##
            ),
        );
        let label = tick_label(tick);
        text(out, (x, bottom + 19.0), r#"text-anchor="middle""#, &label);
        text(out, (LEFT - 8.0, y + 4.5), r#"text-anchor="end""#, &label);
    }
    push(
        out,
        format_args!(
            r##"<rect x="{LEFT}" y="{TOP}" width="{AREA}" height="{AREA}" fill="none" stroke="#444"/>"##
        ),
    );
    let middle = LEFT + AREA / 2.0;
    text(out, (middle, bottom + 46.0), r#"text-anchor="middle""#, "measured latency");
    let (x, y) = (22.0, TOP + AREA / 2.0);
    let turned = format!(r#"text-anchor="middle" transform="rotate(-90 {x} {y})""#);
    text(out, (x, y), &turned, "predicted latency, with its interval");
}

/// A round latency without trailing zeros: `500 us`, `2 ms`.
fn tick_label(micros: f64) -> String {
    match micros {
        m if m < 999.0 => format!("{} us", short(m)),
        m if m < 999e3 => format!("{} ms", short(m / 1e3)),
        m => format!("{} s", short(m / 1e6)),
    }
}

fn short(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn points(out: &mut String, axis: &Axis, accuracy: &Accuracy) {
    out.push_str("<g clip-path=\"url(#area)\">\n");
    for network in &accuracy.networks {
        let Some(prediction) = &network.prediction else { continue };
        let colour = colour(accuracy, network.family.as_deref().unwrap_or_default());
        let x = axis.x(network.measured_micros);
        let y = axis.y(prediction.predicted_micros);
        let about = format!(
            "{}: measured {}, predicted {} ({:+.1}%)",
            network.name,
            duration(network.measured_micros),
            duration(prediction.predicted_micros),
            100.0 * prediction.error
        );
        push(
            out,
            format_args!(
                r##"<path d="M{x:.1} {:.1}V{:.1}" stroke="{colour}" stroke-opacity="0.45"/><circle cx="{x:.1}" cy="{y:.1}" r="4.5" fill="{colour}" fill-opacity="0.85" stroke="white" stroke-width="0.7"><title>{}</title></circle>"##,
                axis.y(prediction.low_micros),
                axis.y(prediction.high_micros),
                escaped(&about)
            ),
        );
    }
    out.push_str("</g>\n");
}

fn legend(out: &mut String, accuracy: &Accuracy) {
    let (x, top) = (LEFT + 16.0, TOP + 24.0);
    let mut line = 0.0;
    for (family, summary) in &accuracy.families {
        let y = top + 20.0 * line;
        let colour = colour(accuracy, family);
        push(out, format_args!(r#"<circle cx="{x}" cy="{}" r="5" fill="{colour}"/>"#, y - 4.5));
        text(out, (x + 13.0, y), "", &format!("{family} ({})", summary.predicted));
        line += 1.0;
    }
    let y = top + 20.0 * line;
    push(
        out,
        format_args!(
            r##"<rect x="{}" y="{}" width="14" height="10" fill="#d2dfe8"/>"##,
            x - 7.0,
            y - 9.5
        ),
    );
    text(out, (x + 13.0, y), "", "within ±10%");
}

/// Each family has its own colour, as long as there are enough colours.
fn colour(accuracy: &Accuracy, family: &str) -> &'static str {
    let place = accuracy.families.keys().position(|known| known == family);
    COLOURS[place.unwrap_or_default() % COLOURS.len()]
}

fn text(out: &mut String, (x, y): (f64, f64), attributes: &str, content: &str) {
    let content = escaped(content);
    push(out, format_args!(r#"<text x="{x:.1}" y="{y:.1}" {attributes}>{content}</text>"#));
}

fn push(out: &mut String, line: std::fmt::Arguments) {
    // Writing to a string does not fail.
    let _ = writeln!(out, "{line}");
}

/// Names are external input and may contain any character.
fn escaped(content: &str) -> String {
    plain(content)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let axis = Axis { low: 150.0, high: 12_000.0 };
        let labels: Vec<String> = axis.ticks().into_iter().map(tick_label).collect();
        assert_eq!(labels, ["200 us", "500 us", "1 ms", "2 ms", "5 ms", "10 ms"]);
        let wide = Axis { low: 0.5, high: 2e6 };
        let labels: Vec<String> = wide.ticks().into_iter().map(tick_label).collect();
        assert_eq!(labels, ["1 us", "10 us", "100 us", "1 ms", "10 ms", "100 ms", "1 s"]);
    }

    #[test]
    fn equal_latencies_lie_on_the_diagonal() {
        let axis = Axis::around([100.0, 900.0, 5000.0].into_iter());
        for micros in [100.0, 333.0, 5000.0] {
            let (x, y) = (axis.x(micros) - LEFT, TOP + AREA - axis.y(micros));
            assert!((x - y).abs() < 1e-9 && x > 0.0 && x < AREA, "{x} {y}");
        }
        assert!(Axis::around([7.0].into_iter()).ticks().len() > 1);
        assert!(!Axis::around([].into_iter()).ticks().is_empty());
    }

    #[test]
    fn names_are_text_and_no_markup() {
        assert_eq!(escaped("<b>&\"\n"), "&lt;b&gt;&amp;&quot; ");
    }
}
