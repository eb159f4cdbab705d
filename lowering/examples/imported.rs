//! Compares an imported model's output with the model's own, given its weights.
//!
//! `imported MODEL WEIGHTS.safetensors VALUES.safetensors`: the weights have the model's names, and the values are
//! `input` and `output`. Prints the largest difference over the largest output.

use std::collections::HashMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use latlas_import::{Given, Norm, Options, import};
use latlas_lowering::{Form, LoweredNetwork, Placement, Stored};
use ops_catalog::{Catalog, Network};
use tch::{Kind, TchError, Tensor};

type Tensors = HashMap<String, Tensor>;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [model, weights, values] = &arguments[..] else {
        return Err("usage: imported MODEL WEIGHTS.safetensors VALUES.safetensors".into());
    };
    let catalog = Catalog::builtin();
    let imported = import(model, &Options::default(), catalog)?;
    let stored = tensors(weights)?;
    let values = tensors(values)?;
    let mut made = Vec::with_capacity(imported.weights.len());
    for (name, given) in &imported.weights {
        made.push((name.clone(), evaluated(given, &stored).map_err(|e| format!("{name}: {e}"))?));
    }
    let plan = Network::new(&imported.network, catalog)?.plan(catalog)?;
    let weights: Stored = made.into_iter().collect();
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

fn tensors(path: &Path) -> Result<Tensors, TchError> {
    Ok(Tensor::read_safetensors(path)?.into_iter().collect())
}

fn evaluated(given: &Given, stored: &Tensors) -> Result<Tensor, Box<dyn Error>> {
    let of = |given: &Given| evaluated(given, stored);
    Ok(match given {
        Given::Stored(name) => stored
            .get(name)
            .ok_or_else(|| format!("the model has no `{name}`"))?
            .to_kind(Kind::Float),
        Given::Reshaped(given, dims) => of(given)?.f_reshape(sizes(dims))?,
        Given::Transposed(given) => of(given)?.f_transpose(0, 1)?.f_contiguous()?,
        Given::Ordered { given, axis, order } => {
            let order: Vec<i64> = order.iter().map(|&place| place as i64).collect();
            of(given)?.f_index_select(*axis as i64, &Tensor::from_slice(&order))?
        }
        Given::Constant(number, dims) => {
            Tensor::f_full(sizes(dims), *number, (Kind::Float, tch::Device::Cpu))?
        }
        Given::FoldedWeight { weight, norm } => {
            let weight = of(weight)?;
            let mut along = vec![1; weight.dim()];
            along[0] = -1;
            let folded = weight.to_kind(Kind::Double) * factor(norm, stored)?.view(&along[..]);
            folded.to_kind(Kind::Float)
        }
        Given::FoldedBias { bias, norm } => {
            let double = |given: &Given| of(given).map(|tensor| tensor.to_kind(Kind::Double));
            let bias = match bias {
                Some(bias) => double(bias)?,
                None => Tensor::from(0.0).to_kind(Kind::Double),
            };
            let centred = bias - double(&norm.mean)?;
            (double(&norm.shift)? + centred * factor(norm, stored)?).to_kind(Kind::Float)
        }
        Given::Unknown => return Err("the file does not say from what it is computed".into()),
    })
}

/// `scale / sqrt(variance + epsilon)`.
fn factor(norm: &Norm, stored: &Tensors) -> Result<Tensor, Box<dyn Error>> {
    let variance = evaluated(&norm.variance, stored)?.to_kind(Kind::Double);
    let scale = evaluated(&norm.scale, stored)?.to_kind(Kind::Double);
    Ok(scale / (variance + norm.epsilon).sqrt())
}

fn sizes(dims: &[u64]) -> Vec<i64> {
    dims.iter().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect()
}
