//! Prints the graph of a model: `cargo run -p latlas_import --example graph FILE [1,3,224,224]`.

use std::path::Path;
use std::process::ExitCode;

use latlas_import::graph::Graph;
use latlas_import::{ReadOptions, read};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (file, input) = match arguments.as_slice() {
        [file] => (file, None),
        [file, input] => (file, Some(input)),
        _ => {
            eprintln!("usage: graph FILE [INPUT_SHAPE]");
            return ExitCode::from(2);
        }
    };
    let sizes = input.map(|text| text.split(',').map(str::parse).collect::<Result<_, _>>());
    let Ok(input) = sizes.transpose() else {
        eprintln!("an input shape is written as 1,3,224,224");
        return ExitCode::from(2);
    };
    match read(Path::new(file), &ReadOptions { input }) {
        Ok(graph) => {
            print(&graph);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{file}: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print(graph: &Graph) {
    let shown = |&id: &usize| {
        let value = &graph.values[id];
        let mark = match (&value.numbers, value.constant) {
            (Some(numbers), _) if numbers.len() == 1 => format!("={}", numbers[0]),
            (_, true) => "#".to_owned(),
            _ => String::new(),
        };
        format!("{}{mark}{:?}", value.name, value.dims)
    };
    let list = |ids: &[usize]| ids.iter().map(shown).collect::<Vec<_>>().join(" ");
    println!("inputs: {}", list(&graph.inputs));
    for node in &graph.nodes {
        println!(
            "{} = {:?} <{}> ({})",
            shown(&node.output),
            node.operation,
            node.operator,
            list(&node.inputs)
        );
    }
    println!("outputs: {}", list(&graph.outputs));
}
