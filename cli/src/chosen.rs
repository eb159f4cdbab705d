//! Networks and ops that are named on a command line.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use latlas_files::NoSuchNetwork;
use ops_catalog::arch_space::{self, BuiltinSpace, CompiledSpace};
use ops_catalog::{Catalog, NetworkSpec, OpDef, SpaceDef};

use crate::files;

pub(crate) use latlas_files::read_networks;

/// Whether the text is `-` or has a character that no built-in name has.
pub(crate) fn names_a_file(text: &str) -> bool {
    text == "-" || text.contains(['/', '\\', '.'])
}

/// Reads a space, or definitions of ops, from a file.
///
/// # Errors
/// Names the file and the place.
pub(crate) fn read_space(path: &Path) -> Result<SpaceDef> {
    let text = files::read_text(path)?;
    SpaceDef::from_yaml(&text).map_err(|error| anyhow!("{}: {error}", files::name(path)))
}

/// A catalog extended by the ops of some files.
///
/// # Errors
/// Names the file, if it cannot be used or one of its ops has the name of another op.
pub(crate) fn with_op_files(catalog: &Catalog, op_files: &[PathBuf]) -> Result<Catalog> {
    let mut catalog = catalog.clone();
    for path in op_files {
        let text = files::read_text(path)?;
        let ops = match SpaceDef::from_yaml(&text) {
            Ok(def) => def.ops,
            Err(error) => {
                ops_of_networks(&text).ok_or_else(|| anyhow!("{}: {error}", files::name(path)))?
            }
        };
        catalog = catalog.with_ops(ops).with_context(|| files::name(path))?;
    }
    Ok(catalog)
}

/// The ops that the networks of a file define, such as an imported model.
fn ops_of_networks(text: &str) -> Option<Vec<OpDef>> {
    let networks = NetworkSpec::read_all(text).ok()?;
    Some(networks.into_iter().filter_map(|(_, spec)| spec.ops).flatten().collect())
}

/// Looks up a built-in network by its name.
///
/// # Errors
/// When no network has this name.
pub(crate) fn builtin_network<'a>(name: &str, catalog: &'a Catalog) -> Result<&'a NetworkSpec> {
    latlas_files::builtin_network(name, catalog).map_err(|error| match error {
        NoSuchNetwork::Space(_) => {
            anyhow!("--network {name}: `{name}` is a space: write --space {name}")
        }
        NoSuchNetwork::Unknown(problem) => anyhow!(problem),
    })
}

/// Looks up a built-in space by its name.
///
/// # Errors
/// When no space has this name.
pub(crate) fn builtin_space<'a>(name: &str, catalog: &'a Catalog) -> Result<&'a SpaceDef> {
    catalog.space(name).map_err(|error| match catalog.network_spec(name) {
        Ok(_) => anyhow!("--space {name}: `{name}` is a network: write --network {name}"),
        Err(_) => {
            anyhow!("--space {name} (a file is written with its folder or extension): {error}")
        }
    })
}

/// A space of architectures that is named on a command line, as its text.
pub(crate) struct ArchSpaceText {
    pub(crate) text: String,
    /// The name of its file, for messages.
    file: Option<String>,
}

impl ArchSpaceText {
    /// # Errors
    /// When there is no such space, or the file cannot be read.
    pub(crate) fn new(name: &str) -> Result<ArchSpaceText> {
        if names_a_file(name) {
            let path = Path::new(name);
            return Ok(ArchSpaceText {
                text: files::read_text(path)?,
                file: Some(files::name(path)),
            });
        }
        match arch_space::builtin_space(name) {
            Ok(BuiltinSpace { text, .. }) => {
                Ok(ArchSpaceText { text: text.to_owned(), file: None })
            }
            Err(error) => Err(match Catalog::builtin().space(name) {
                Ok(_) => anyhow!(
                    "{name} is a space of op keys, and a space of architectures is needed here: \
                     latlas space list"
                ),
                Err(_) => anyhow!("{error} (a file is written with its folder or extension)"),
            }),
        }
    }
}

/// A space of architectures by its name on a command line, compiled. Its ops are those of the catalog, and its own.
///
/// # Errors
/// Names the file and the place.
pub(crate) fn arch_space(name: &str, catalog: &Catalog) -> Result<CompiledSpace> {
    let ArchSpaceText { text, file } = ArchSpaceText::new(name)?;
    CompiledSpace::from_yaml(&text, catalog).map_err(|error| match file {
        Some(file) => anyhow!("{file}: {error}"),
        None => anyhow!(error),
    })
}

/// A hint how to measure the missing rows of networks, with the arguments that chose the networks.
pub(crate) fn how_to_measure(
    networks: &[String],
    archs: &[PathBuf],
    op_files: &[PathBuf],
    hardware: &str,
    rows: usize,
) -> String {
    let mut keys = "latlas networks keys".to_owned();
    for name in networks {
        keys.push_str(&format!(" --network {}", quoted(name)));
    }
    for path in archs {
        let stdin = files::is_standard(path);
        keys.push_str(&match stdin {
            true => " --arch FILE".to_owned(),
            false => format!(" --arch {}", quoted(&path.display().to_string())),
        });
    }
    for path in op_files {
        keys.push_str(&format!(" --op-file {}", quoted(&path.display().to_string())));
    }
    how_to_measure_keys(&keys, hardware, rows)
}

/// A hint how to measure so many rows, whose keys a command prints as a space.
pub(crate) fn how_to_measure_keys(keys: &str, hardware: &str, rows: usize) -> String {
    // A row takes a third of a second on an undisturbed processor (docs/accuracy-method.md), and longer on a slow box.
    let minutes = (rows as f64 / 180.0).ceil().max(1.0);
    format!(
        "Measure them, which takes {minutes} min or more:\n  {keys} > space.yaml\n  \
         latlas profile --hardware {hardware} --space space.yaml --wait\nWithout a coordinator:\n  \
         latlas-agent bench --space space.yaml --out more.ndjson\n  \
         latlas table build rows.ndjson more.ndjson --op-file space.yaml -o table.json"
    )
}

/// An argument, quoted for a shell.
pub(crate) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,:@%+=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_has_the_arguments_that_chose_the_networks() {
        let said = how_to_measure(
            &["resnet18".to_owned()],
            &[PathBuf::from("my nets.json"), PathBuf::from("-")],
            &[PathBuf::from("ops.yaml")],
            "x.cpu",
            61,
        );
        assert!(said.contains("1 min or more"), "{said}");
        let command = "latlas networks keys --network resnet18 --arch 'my nets.json' --arch FILE --op-file \
                       ops.yaml > space.yaml";
        assert!(said.contains(command), "{said}");
        assert!(
            said.contains("latlas profile --hardware x.cpu --space space.yaml --wait"),
            "{said}"
        );
    }
}
