//! `latlas space`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result};
use latlas_program::text_table::TextTable;
use ops_catalog::arch_space::{CompiledSpace, Gene, builtin_spaces, letter_of};
use ops_catalog::{Catalog, ExternalId, Network, NetworkSpec, OpDef, SpaceDef};
use serde::Serialize;
use uuid::Uuid;

use super::write_json;
use crate::chosen;
use crate::cli::Space;
use crate::files;
use crate::text::{count, plain};

/// Runs the command.
///
/// # Errors
/// When there is no such space, a file cannot be used, or a genotype or network is not of the space.
pub fn run(command: &Space, out: &mut dyn Write) -> Result<()> {
    match command {
        Space::List { json } => list(*json, out),
        Space::Show { space, definition: true, .. } => {
            Ok(write!(out, "{}", chosen::ArchSpaceText::new(space)?.text)?)
        }
        Space::Show { space, json, .. } => show(&compiled(space)?, *json, out),
        Space::Size { space, json } => size(&compiled(space)?, *json, out),
        Space::Draw { space, count, seed, genotypes } => {
            draw(&compiled(space)?, *count, *seed, *genotypes, out)
        }
        Space::Decode { space, genotype } => decode(space, genotype, out),
        Space::Encode { space, file, json } => encode(space, file, *json, out),
        Space::Keys { space, json } => keys(&compiled(space)?, *json, out),
    }
}

/// A space by its name on a command line, compiled.
fn compiled(name: &str) -> Result<CompiledSpace> {
    chosen::arch_space(name, Catalog::builtin())
}

/// The number of genotypes.
#[derive(Serialize)]
struct Size {
    /// As a text: the number can have more digits than a reader of JSON keeps.
    size: String,
    /// Whether there are more than the largest number of 128 bits, which stands in its place.
    more: bool,
    log10_size: f64,
}

impl Size {
    fn of(space: &CompiledSpace) -> Size {
        let size = space.size();
        let (more, log10_size) = (size == u128::MAX, space.log10_size());
        Size { size: size.to_string(), more, log10_size }
    }

    /// `6561`, `1076746950455072400 (1.1e18)`.
    fn words(&self) -> String {
        let short = format!("{:.1e}", 10f64.powf(self.log10_size));
        match self {
            Size { more: true, .. } => format!("more than {} (about {short})", u128::MAX),
            Size { size, .. } if self.log10_size < 7.0 => size.clone(),
            Size { size, .. } => format!("{size} ({short})"),
        }
    }
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    version: u32,
    #[serde(flatten)]
    size: Size,
    genes: usize,
    op_keys: usize,
    doc: &'a str,
}

impl<'a> Listed<'a> {
    fn of(space: &'a CompiledSpace) -> Listed<'a> {
        Listed {
            name: space.name(),
            version: space.version(),
            size: Size::of(space),
            genes: space.genes().len(),
            op_keys: space.keys().len(),
            doc: space.doc().trim(),
        }
    }
}

fn list(json: bool, out: &mut dyn Write) -> Result<()> {
    let mut columns = TextTable::new(["SPACE", "GENOTYPES", "GENES", "OP KEYS", "WHAT IT IS"]);
    for builtin in builtin_spaces() {
        let space = builtin.compile();
        let listed = Listed::of(&space);
        if json {
            write_json(out, &listed)?;
        }
        columns.push([
            listed.name.to_owned(),
            format!("{:.1e}", 10f64.powf(listed.size.log10_size)),
            listed.genes.to_string(),
            listed.op_keys.to_string(),
            listed.doc.to_owned(),
        ]);
    }
    if !json {
        columns.write(out)?;
    }
    Ok(())
}

#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    listed: Listed<'a>,
    choices: Vec<ShownGene<'a>>,
    example: String,
}

#[derive(Serialize)]
struct ShownGene<'a> {
    name: &'a str,
    options: &'a [String],
    optional: bool,
}

impl<'a> ShownGene<'a> {
    fn of(gene: &'a Gene) -> ShownGene<'a> {
        ShownGene { name: &gene.name, options: &gene.options, optional: gene.optional }
    }
}

/// The seed of the example in `latlas space show`.
const EXAMPLE_SEED: u64 = 1;

fn show(space: &CompiledSpace, json: bool, out: &mut dyn Write) -> Result<()> {
    let letters = space.draws(EXAMPLE_SEED).next().context("a space has a network")?;
    let example = space.genotype(&letters);
    let listed = Listed::of(space);
    if json {
        let choices = space.genes().iter().map(ShownGene::of).collect();
        return write_json(out, &Shown { listed, choices, example });
    }
    writeln!(out, "{}@{}", listed.name, listed.version)?;
    if !listed.doc.is_empty() {
        writeln!(out, "{}", plain(listed.doc))?;
    }
    writeln!(out, "\ngenotypes  {}", listed.size.words())?;
    writeln!(out, "genes      {}", listed.genes)?;
    writeln!(out, "op keys    {}", listed.op_keys)?;
    writeln!(out, "example    {example}\n")?;
    let mut columns = TextTable::new(["LETTER", "CHOOSES", "OPTIONS"]);
    let mut before = 0;
    // Genes in a row with the same options stand in one line.
    for genes in space.genes().chunk_by(|a, b| a.options == b.options) {
        let name = match genes {
            [one] => one.name.clone(),
            [first, .., last] => format!("{} to {}", first.name, last.name),
            [] => String::new(),
        };
        let after = before + genes.len();
        let letters: Vec<usize> = (before + 1..=after).collect();
        columns.push([ranges(&letters), name, options(&genes[0])]);
        before = after;
    }
    columns.write(out)?;
    let optional = (1..).zip(space.genes()).filter(|(_, gene)| gene.optional);
    let optional: Vec<usize> = optional.map(|(letter, _)| letter).collect();
    if !optional.is_empty() {
        writeln!(out, "\nNot in every network, and written `.` elsewhere: {}", ranges(&optional))?;
    }
    Ok(())
}

/// `3-4, 7`: ascending numbers.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b).map(|run| match run {
        [first, .., last] => format!("{first}-{last}"),
        one => one.iter().map(usize::to_string).collect(),
    });
    runs.collect::<Vec<_>>().join(", ")
}

fn options(gene: &Gene) -> String {
    let letter = |number: u8| char::from(letter_of(number));
    let options = (0u8..).zip(&gene.options);
    let options: Vec<String> =
        options.map(|(number, label)| format!("{}: {}", letter(number), plain(label))).collect();
    options.join("; ")
}

fn size(space: &CompiledSpace, json: bool, out: &mut dyn Write) -> Result<()> {
    let size = Size::of(space);
    match json {
        true => write_json(out, &size),
        false => Ok(writeln!(out, "{}", size.words())?),
    }
}

fn draw(
    space: &CompiledSpace,
    count: usize,
    seed: Option<u64>,
    genotypes: bool,
    out: &mut dyn Write,
) -> Result<()> {
    let seed = seed.unwrap_or_else(|| {
        // Short, because people type it.
        let seed = u64::from(Uuid::new_v4().as_fields().0);
        eprintln!("seed {seed}");
        seed
    });
    for letters in space.draws(seed).take(count) {
        let genotype = space.genotype(&letters);
        match genotypes {
            true => writeln!(out, "{genotype}")?,
            false => write_json(out, &space.decode(&genotype)?)?,
        }
    }
    Ok(())
}

fn decode(name: &str, genotypes: &[String], out: &mut dyn Write) -> Result<()> {
    let streams = genotypes.iter().filter(|genotype| *genotype == "-");
    let names: Vec<&Path> = streams.map(Path::new).chain([Path::new(name)]).collect();
    files::one_stdin(&names)?;
    let space = compiled(name)?;
    for genotype in genotypes {
        if genotype != "-" {
            write_json(out, &space.decode(genotype)?)?;
            continue;
        }
        for (number, line) in std::io::stdin().lock().lines().enumerate() {
            let place = || format!("stdin, line {}", number + 1);
            let line = line.with_context(place)?;
            let genotype = line.trim();
            if !genotype.is_empty() {
                write_json(out, &space.decode(genotype).with_context(place)?)?;
            }
        }
    }
    Ok(())
}

#[derive(Serialize)]
struct Encoded<'a> {
    id: &'a Option<ExternalId>,
    name: &'a Option<String>,
    genotype: String,
}

fn encode(name: &str, file: &Path, json: bool, out: &mut dyn Write) -> Result<()> {
    files::one_stdin(&[Path::new(name), file])?;
    let space = compiled(name)?;
    for (place, spec) in chosen::read_networks(file)? {
        let genotype = encoded(&space, &spec).context(place)?;
        match json {
            true => write_json(out, &Encoded { id: &spec.id, name: &spec.name, genotype })?,
            false => writeln!(out, "{genotype}")?,
        }
    }
    Ok(())
}

fn encoded(space: &CompiledSpace, spec: &NetworkSpec) -> Result<String> {
    let network = Network::new(spec, space.catalog())?;
    Ok(space.genotype(space.encode(&network)?.as_bytes()))
}

fn keys(space: &CompiledSpace, json: bool, out: &mut dyn Write) -> Result<()> {
    let keys: BTreeSet<_> = space.keys().iter().map(|key| key.key()).collect();
    let own = space.keys().iter().filter(|key| Catalog::builtin().op(key.op.name()).is_err());
    let ops: BTreeMap<&str, OpDef> = own.map(|key| (key.op.name(), key.op.def().clone())).collect();
    let def = SpaceDef {
        name: space.name().to_owned(),
        doc: format!(
            "What the networks of {}@{} are made of, {}.",
            space.name(),
            space.version(),
            count(keys.len(), "key", "keys")
        ),
        ops: ops.into_values().collect(),
        grids: vec![],
        keys: keys.into_iter().collect(),
        networks: vec![],
    };
    if json {
        return write_json(out, &def);
    }
    Ok(write!(out, "{}", serde_saphyr::to_string(&def).context("the space as YAML")?)?)
}
