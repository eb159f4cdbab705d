//! The fuzz targets' parsers on the texts of `fuzz/seeds`, where whatever once broke one is kept.

use std::fs;
use std::path::Path;

#[path = "../../../fuzz/src/parsers.rs"]
#[allow(dead_code, reason = "it is a part of another workspace")]
mod parsers;

#[test]
fn every_parser_survives_its_seeds() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds");
    for (name, parser) in parsers::ALL {
        let mut seeds = 0;
        for seed in fs::read_dir(folder.join(name)).unwrap() {
            let path = seed.unwrap().path();
            println!("{}", path.display());
            parser(&fs::read(&path).unwrap());
            seeds += 1;
        }
        assert!(seeds > 0, "{name} has no seeds");
    }
}
