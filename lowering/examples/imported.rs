//! Compares an imported model's output with the model's own, given its weights.
//!
//! `imported MODEL VALUES.safetensors`: the values are `input` and `output`. Prints the largest difference over the
//! largest output.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;

use latlas_import::{Options, import};
use latlas_lowering::{Form, LoweredNetwork, Placement, Stored};
use ops_catalog::{Catalog, Network};
use tch::{Kind, Tensor};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, values] = &arguments[..] else {
        return Err("usage: imported MODEL VALUES.safetensors".into());
    };
    let catalog = Catalog::builtin();
    let imported = import(model, &Options::default(), catalog)?;
    let values: HashMap<String, Tensor> = Tensor::read_safetensors(values)?.into_iter().collect();
    let mut stored = imported.open_weights(model)?;
    let mut weights = Vec::with_capacity(imported.weights.len());
    for name in imported.weights.keys() {
        let weight = stored.read(name)?;
        let dims: Vec<i64> = weight.dims.iter().map(|&size| size as i64).collect();
        weights.push((name.clone(), Tensor::from_slice(&weight.values).f_view(&dims[..])?));
    }
    let plan = Network::new(&imported.network, catalog)?.plan(catalog)?;
    let weights: Stored = weights.into_iter().collect();
    let network = LoweredNetwork::new(&plan, Placement::default(), Form::Deployed, &weights)?;
    let dims = plan.input;
    let dims = [dims.n, dims.c, dims.h, dims.w].map(i64::from);
    let input = values["input"].to_kind(Kind::Float).view(dims);
    let wanted = &values["output"];
    let found = network.forward(&input)?.view_as(wanted);
    let difference = f64::try_from((found - wanted).abs().max())?;
    let scale = f64::try_from(wanted.abs().max())?;
    println!("{:e}", difference / scale);
    Ok(())
}
