//! What the documents say of paths, names and other documents.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// The texts between backticks in a line.
fn quoted(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_index_of_rules_names_what_there_is() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let (_, index) = text.split_once("<!-- index of rules -->").expect("there is an index");
    let (index, _) = index.split_once("<!-- end -->").expect("it has an end");
    let mut rules = 0;
    for line in index.lines().filter(|line| line.starts_with('|') && line.contains('`')) {
        let [path, name] = quoted(line)[..] else {
            panic!("a line of the index has one path and one name: {line}")
        };
        let file = fs::read_to_string(root().join(path));
        let file = file.unwrap_or_else(|e| panic!("{path}: {e}"));
        let name = name.trim_end_matches("()").rsplit("::").next().unwrap();
        let is_word = |before: Option<char>, after: Option<char>| {
            let outside = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
            outside(before) && outside(after)
        };
        let found = file.match_indices(name).any(|(at, _)| {
            is_word(file[..at].chars().next_back(), file[at + name.len()..].chars().next())
        });
        assert!(found, "{path} has no {name}");
        rules += 1;
    }
    assert!(rules > 20, "{rules} rules");
}

/// Every document of the project that a reader finds, from the top.
fn documents() -> Vec<PathBuf> {
    let in_folder = |folder: PathBuf| {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries.filter(|path| path.extension().is_some_and(|e| e == "md")).collect::<Vec<_>>()
    };
    [in_folder(root()), in_folder(root().join("docs"))].concat()
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().chars();
    let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut links = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().unwrap().join(path),
            };
            assert!(target.exists(), "{}: {link}", document.display());
            if !fragment.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let headings = text.lines().filter(|line| line.starts_with('#'));
                let anchors: HashSet<String> = headings.map(anchor).collect();
                assert!(anchors.contains(fragment), "{}: {link}", document.display());
            }
            links += 1;
        }
    }
    assert!(links > 50, "{links} links");
}
