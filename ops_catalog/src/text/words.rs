//! The expected kind of a value, in plain words.

/// A readable description of a type's name in serde.
pub(super) fn wanted(expected: &str) -> String {
    let fields = "an object, written `name: value`";
    let whole = match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" | "usize" => "a whole number, 0 or larger",
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "`true` or `false`",
        "a string" | "a borrowed string" | "a character" => "a text",
        "a sequence" | "a borrowed byte array" | "byte array" => "a list",
        "a map" => fields,
        "unit" | "null" => "nothing",
        _ => "",
    };
    if !whole.is_empty() {
        return whole.to_owned();
    }
    if expected.contains("UUID") {
        return "an id such as 0198c5f2-7c1e-7d2a-9f64-3a1be0c4d7aa".to_owned();
    }
    if expected.contains("datetime") || expected.contains("timestamp") {
        return "a time such as 2026-01-31T12:00:00Z".to_owned();
    }
    let count = expected.split_whitespace().rev().find(|word| word.parse::<usize>().is_ok());
    let begins = |start: &str| expected.starts_with(start);
    if begins("tuple") || begins("an array of length") || begins("a tuple of size") {
        return match count.or_else(|| expected.split_whitespace().last()) {
            Some(count) => format!("a list of {count} entries"),
            None => "a list".to_owned(),
        };
    }
    if begins("struct") {
        return fields.to_owned();
    }
    if begins("enum") || begins("variant identifier") {
        return "one of the names that are known here".to_owned();
    }
    if begins("unit struct") || begins("unit variant") {
        return "nothing".to_owned();
    }
    // Types of this project already have readable names.
    expected.to_owned()
}

/// Names as a list.
pub(super) fn names(known: &[&str]) -> String {
    known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
