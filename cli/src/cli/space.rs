//! `latlas space`.

use std::path::PathBuf;

use clap::Subcommand;

/// `latlas space`.
#[derive(Debug, Subcommand)]
pub enum Space {
    /// List the built-in spaces of architectures
    #[command(after_help = "Example:\n  latlas space list")]
    List {
        /// Print one JSON object a line
        #[arg(long)]
        json: bool,
    },
    /// Show the choices of a space, its size and an example
    #[command(after_help = "\
Example:
  latlas space show nas_bench_macro
  latlas space show nas_bench_macro --definition > mine.yaml    # to make one of your own")]
    Show {
        /// Name of a built-in space, or a file (recognized by `/` or an extension)
        space: String,
        /// Print its definition in YAML instead
        #[arg(long, conflicts_with = "json")]
        definition: bool,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Print the number of genotypes of a space
    #[command(after_help = "Example:\n  latlas space size ofa_mobilenet_v3")]
    Size {
        /// Name of a built-in space, or a file
        space: String,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
    /// Draw random networks of a space, one JSON object a line
    #[command(after_help = "\
Every genotype is equally likely. A network depends on the space, the seed and its place only.

Example:
  latlas space draw nas_bench_201 --count 40 --seed 7 > set.ndjson
  latlas space draw ofa_mobilenet_v3 --count 1000000 --seed 7 --genotypes > candidates.txt")]
    Draw {
        /// Name of a built-in space, or a file
        space: String,
        /// Number of networks
        #[arg(long, value_name = "N")]
        count: usize,
        /// Seed of the random numbers; by default a new one, which is printed to stderr
        #[arg(long, value_name = "S")]
        seed: Option<u64>,
        /// Print genotypes instead, one a line
        #[arg(long)]
        genotypes: bool,
    },
    /// Print the networks of genotypes, one JSON object a line
    #[command(after_help = "\
A genotype is `SPACE@VERSION:LETTERS`, or its letters alone. It is the `id` of its network.

Example:
  latlas space decode nas_bench_macro 22212220
  latlas space decode nas_bench_macro - < genotypes.txt | latlas predict --table table.json --arch -")]
    Decode {
        /// Name of a built-in space, or a file
        space: String,
        /// Genotypes; `-` reads them from stdin, one a line
        #[arg(required = true)]
        genotype: Vec<String>,
    },
    /// Print the genotypes of networks, one a line
    #[command(after_help = "\
Example:
  latlas space encode nas_bench_macro network.json
  latlas space draw darts --count 3 --seed 7 | latlas space encode darts -")]
    Encode {
        /// Name of a built-in space, or a file
        space: String,
        /// A file of networks, as for `latlas predict`; `-` is stdin
        file: PathBuf,
        /// Print one JSON object a line, with the id and the name of each network
        #[arg(long)]
        json: bool,
    },
    /// Print all op keys of the networks of a space of architectures, as a space of op keys
    #[command(after_help = "\
The output is a space file in YAML, for `latlas profile --space FILE` and `latlas-agent bench --space FILE`. A table
of this space predicts every network of the space of architectures.

Example:
  latlas space keys nas_bench_macro > space.yaml
  latlas profile --hardware HARDWARE --space space.yaml --wait")]
    Keys {
        /// Name of a built-in space, or a file
        space: String,
        /// Print the space of op keys as a JSON object
        #[arg(long)]
        json: bool,
    },
}
