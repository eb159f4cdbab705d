//! `latlas networks export`.

use std::io::Write;

use anyhow::Result;
use latlas_export::Model;
use latlas_program::exit::Usage;

use super::super::{Coordinator, onnx};
use super::{Named, chosen_plans};
use crate::cli::NetworkExport;

/// Runs the command.
///
/// # Errors
/// When there is no such network or more than one, a file cannot be used, or the coordinator does not answer.
pub fn run(command: &NetworkExport, farm: &Coordinator, out: &mut dyn Write) -> Result<()> {
    let plans = chosen_plans(&command.from, farm)?;
    let [Named { name, plan }] = plans.as_slice() else {
        let problem = format!("an ONNX file holds one network, and these are {}", plans.len());
        return Err(Usage(problem).into());
    };
    onnx::write(&Model::of_network(name, plan), &command.to, out)
}
