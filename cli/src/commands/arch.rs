//! `latlas arch`.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use latlas_program::exit::Reported;
use ops_catalog::canonical::{ArchHashes, Canonical};
use ops_catalog::{Catalog, ExternalId, Network, NetworkSpec};
use serde::Serialize;

use super::{Coordinator, write_json};
use crate::chosen::{self, names_a_file};
use crate::cli::{Arch, ArchHash, NetworkSource};
use crate::files;
use crate::networks::{Found, Label, NetworkFile};

/// Runs the command.
///
/// # Errors
/// When a file cannot be used, or a network is not valid.
pub fn run(command: &Arch, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    match command {
        Arch::Hash(command) => hash(command, farm, out),
    }
}

fn hash(command: &ArchHash, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let NetworkSource { of, ops, farm: ask_farm } = &command.from;
    let names = of.network.iter().map(Path::new);
    let paths = of.arch.iter().chain(&ops.op_file).map(PathBuf::as_path);
    files::one_stdin(&names.chain(paths).collect::<Vec<_>>())?;
    let catalog = chosen::with_op_files(&super::ops::catalog(*ask_farm, farm)?, &ops.op_file)?;
    let mut session = Session { catalog: &catalog, out, networks: 0, invalid: 0 };
    for name in &of.network {
        if names_a_file(name) {
            session.file(Path::new(name))?;
        } else {
            session.spec(None, name, chosen::builtin_network(name, &catalog)?)?;
        }
    }
    for path in &of.arch {
        session.file(path)?;
    }
    session.out.flush()?;
    match (session.invalid, session.networks) {
        (0, _) => Ok(()),
        (1, 1) => Err(Reported.into()),
        (invalid, all) => bail!("{invalid} of {all} networks could not be used"),
    }
}

/// A line of output: the hashes of a network, or why there are none.
#[derive(Serialize)]
struct Line<'a> {
    line: Option<usize>,
    id: &'a Option<ExternalId>,
    name: &'a Option<String>,
    #[serde(flatten)]
    outcome: Outcome<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Outcome<'a> {
    Hashed {
        #[serde(flatten)]
        hashes: &'a ArchHashes,
        exact: bool,
    },
    Invalid {
        invalid: &'a str,
    },
}

struct Session<'a> {
    catalog: &'a Catalog,
    out: &'a mut dyn Write,
    networks: usize,
    invalid: usize,
}

impl Session<'_> {
    /// One network in JSON or YAML, or one in each line.
    fn file(&mut self, path: &Path) -> Result<()> {
        let mut file = NetworkFile::open(path)?;
        while let Some(Found { line, place, spec }) = file.next(self.out)? {
            match spec {
                Ok(spec) => self.spec(line, &place, &spec)?,
                Err((label, problem)) => self.invalid(line, &place, &label, &problem)?,
            }
        }
        Ok(())
    }

    fn spec(&mut self, line: Option<usize>, place: &str, spec: &NetworkSpec) -> Result<()> {
        let label = Label::of(spec);
        let canonical = Network::new(spec, self.catalog)
            .and_then(|network| Canonical::of(&network, self.catalog));
        let Canonical { hashes, exact, .. } = match canonical {
            Ok(canonical) => canonical,
            Err(problem) => return self.invalid(line, place, &label, &problem.to_string()),
        };
        self.networks += 1;
        self.write(line, &label, Outcome::Hashed { hashes: &hashes, exact })
    }

    fn invalid(
        &mut self,
        line: Option<usize>,
        place: &str,
        label: &Label,
        problem: &str,
    ) -> Result<()> {
        self.networks += 1;
        self.invalid += 1;
        eprintln!("error: {place}: {problem}");
        self.write(line, label, Outcome::Invalid { invalid: problem })
    }

    fn write(&mut self, line: Option<usize>, label: &Label, outcome: Outcome) -> Result<()> {
        write_json(self.out, &Line { line, id: &label.id, name: &label.name, outcome })
    }
}
