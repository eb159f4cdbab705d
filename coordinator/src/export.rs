//! Export formats of a table.

use std::str::FromStr;

use latlas_shared::{COLUMNS, FlatRow, Table};

/// A format of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// One document with complete rows.
    #[default]
    Json,
    /// A header line, then one line per row.
    Ndjson,
    /// One line per row, without header and curves.
    Csv,
}

impl Format {
    /// Its name in `?format=`.
    pub fn name(self) -> &'static str {
        match self {
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
        }
    }

    /// Its media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Json => "application/json",
            Format::Ndjson => "application/x-ndjson",
            Format::Csv => "text/csv; charset=utf-8; header=present",
        }
    }
}

/// A name that is not a format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a format: write `json`, `ndjson` or `csv`")]
pub struct UnknownFormat(pub String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        [Format::Json, Format::Ndjson, Format::Csv]
            .into_iter()
            .find(|format| format.name() == text)
            .ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// Writes a table, given as the JSON document that is stored.
///
/// # Errors
/// When the document is not a table.
pub fn write(document: Vec<u8>, format: Format) -> anyhow::Result<Vec<u8>> {
    match format {
        Format::Json => Ok(document),
        Format::Ndjson => ndjson(serde_json::from_slice(&document)?),
        Format::Csv => csv(&serde_json::from_slice(&document)?),
    }
}

fn ndjson(mut table: Table) -> anyhow::Result<Vec<u8>> {
    let rows = std::mem::take(&mut table.rows);
    let mut header = serde_json::to_value(&table)?;
    if let Some(fields) = header.as_object_mut() {
        fields.remove("rows");
    }
    let mut out = serde_json::to_vec(&header)?;
    out.push(b'\n');
    for row in rows {
        serde_json::to_writer(&mut out, &row)?;
        out.push(b'\n');
    }
    Ok(out)
}

fn csv(table: &Table) -> anyhow::Result<Vec<u8>> {
    // The header is also written for a table without rows.
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for row in &table.rows {
        writer.serialize(FlatRow::new(table, row))?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use latlas_predict::merge::{Observation, merge_row};
    use latlas_shared::{Row, RowStatus, testing};

    fn table() -> Vec<u8> {
        let observations =
            [("Conv3x3:n1-h8-w8-i4-o4-s1", 0.1 + 0.2), ("Conv3x3:n2-h8-w8-i4-o4-s1", 7.0)];
        let mut rows: Vec<Row> = observations
            .into_iter()
            .filter_map(|(key, micros)| {
                let measurement = testing::measurement(key, micros);
                merge_row(&[Observation { agent: "a".into(), measurement }])
            })
            .collect();
        rows[1].latency_micros = None;
        rows[1].status = RowStatus::Failed;
        let table = Table {
            hardware_id: testing::fingerprint(8).hardware_id(),
            version: "v".into(),
            ..testing::table(rows)
        };
        serde_json::to_vec(&table).unwrap()
    }

    fn text(format: Format) -> String {
        String::from_utf8(write(table(), format).unwrap()).unwrap()
    }

    #[test]
    fn csv_has_the_seed_s_columns_first_and_every_digit() {
        let csv = text(Format::Csv);
        let lines: Vec<&str> = csv.lines().collect();
        assert!(lines[0].starts_with("hardware_id,op_type,input_h,input_w,channels_in,channels_out,stride,latency_micros,energy_mj,batch"));
        assert!(
            lines[1].starts_with("test-9000-2c-8gb.cpu,Conv3x3,8,8,4,4,1,0.30000000000000004,,1,")
        );
        assert!(lines[2].starts_with("test-9000-2c-8gb.cpu,Conv3x3,8,8,4,4,1,,,2,"));
        assert!(lines.iter().all(|line| line.split(',').count() == COLUMNS.len()), "{csv}");
    }

    #[test]
    fn ndjson_is_a_header_and_a_line_per_row() {
        let ndjson = text(Format::Ndjson);
        let lines: Vec<&str> = ndjson.lines().collect();
        assert_eq!(lines.len(), 3);
        let header: serde_json::Value = serde_json::from_str(lines[0]).unwrap();
        assert_eq!(header["version"], "v");
        assert!(header.get("rows").is_none());
        let row: Row = serde_json::from_str(lines[1]).unwrap();
        assert_eq!(row.latency_micros, Some(0.1 + 0.2));
    }
}
