//! Where weights come from, apart from what is computed with them.
//!
//! A primitive asks a [`Weights`] for each of its tensors by name. Names are paths:
//! `layers.3.project.weight` is the weight of the node `project` in layer 3 of a network. A node
//! without an id is named by its primitive and its index, as in `conv2d-2.bias`.

use std::collections::HashMap;
use std::path::Path;

use ops_catalog::{BATCH_NORM_EPSILON, Init};
use tch::nn::VarStore;
use tch::{Kind, TchError, Tensor};

use crate::Placement;

/// Why a weight is not to be had.
#[derive(Debug, thiserror::Error)]
pub enum WeightError {
    /// Nothing has this name.
    #[error("there is no weight `{name}`, which has the shape {wanted:?}")]
    Missing {
        /// The name.
        name: String,
        /// The shape that was asked for.
        wanted: Vec<i64>,
    },
    /// The weight has another shape.
    #[error("the weight `{name}` has the shape {found:?}, but the shape {wanted:?} is needed")]
    Shape {
        /// The name.
        name: String,
        /// The shape that was asked for.
        wanted: Vec<i64>,
        /// The shape that it has.
        found: Vec<i64>,
    },
    /// libtorch cannot make it.
    #[error("cannot prepare the weight `{name}` of the shape {wanted:?}")]
    Torch {
        /// The name.
        name: String,
        /// The shape that was asked for.
        wanted: Vec<i64>,
        /// What libtorch reports.
        #[source]
        source: TchError,
    },
}

/// One dimension of a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    /// Channels: a narrower op uses the first of them.
    Channels(i64),
    /// As many blocks of channels one after the other, such as query, key and value: a narrower op uses
    /// the first channels of each block.
    Blocks {
        /// Number of blocks.
        blocks: i64,
        /// Channels of one block.
        channels: i64,
    },
    /// Height or width of a kernel: a smaller kernel is the centre of a larger one.
    Window(i64),
    /// A dimension of one size only.
    Fixed(i64),
}

impl Axis {
    /// Elements along this dimension.
    pub fn size(self) -> i64 {
        match self {
            Axis::Channels(size) | Axis::Window(size) | Axis::Fixed(size) => size,
            Axis::Blocks { blocks, channels } => blocks * channels,
        }
    }
}

/// What a primitive asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    /// Its dimensions.
    pub axes: Vec<Axis>,
    /// Its values before training.
    pub init: Init,
    /// Whether training changes it through gradients. Running statistics have none.
    pub trained: bool,
}

impl Spec {
    /// The shape.
    pub fn dims(&self) -> Vec<i64> {
        self.axes.iter().map(|axis| axis.size()).collect()
    }
}

/// A provider of weights.
///
/// Whoever asks checks the shape, and brings the tensor to the device, element type and memory format
/// of its [`Placement`]. Where these are right already, the tensor is used and not copied, so that an
/// optimizer can change it.
pub trait Weights {
    /// The weight of this name.
    ///
    /// # Errors
    /// When there is none, or libtorch cannot make it.
    fn get(&self, name: &str, spec: &Spec) -> Result<Tensor, WeightError>;
}

/// New weights, scaled so that values neither explode nor vanish.
#[derive(Debug, Clone, Copy, Default)]
pub struct Random {
    seed: Option<u64>,
}

impl Random {
    /// Weights that depend on the seed and on their names alone. Each has a generator of its own, since the one of
    /// libtorch, from which [`Random::default`] draws, is shared by all threads of the process.
    pub fn seeded(seed: u64) -> Random {
        Random { seed: Some(seed) }
    }
}

impl Weights for Random {
    fn get(&self, name: &str, spec: &Spec) -> Result<Tensor, WeightError> {
        let dims = spec.dims();
        let options = (Kind::Float, tch::Device::Cpu);
        let made = match (self.seed, spec.init) {
            (Some(seed), init) => {
                let count = dims.iter().product::<i64>().unsigned_abs() as usize;
                let values: Vec<f32> = init.values(seed, name).take(count).collect();
                Tensor::f_from_slice(&values).and_then(|values| values.f_reshape(&dims))
            }
            (None, Init::Normal { deviation }) => Tensor::f_randn(&dims, options)
                .and_then(|mut values| values.f_mul_scalar_(deviation)),
            (None, Init::Ones) => Tensor::f_ones(&dims, options),
            (None, Init::Zeros) => Tensor::f_zeros(&dims, options),
        };
        made.map_err(|source| WeightError::Torch { name: name.to_owned(), wanted: dims, source })
    }
}

/// Named tensors.
#[derive(Debug, Default)]
pub struct Stored(HashMap<String, Tensor>);

impl FromIterator<(String, Tensor)> for Stored {
    fn from_iter<T: IntoIterator<Item = (String, Tensor)>>(tensors: T) -> Stored {
        Stored(tensors.into_iter().collect())
    }
}

impl From<&VarStore> for Stored {
    /// The variables themselves, so that gradients reach them.
    fn from(store: &VarStore) -> Stored {
        Stored(store.variables())
    }
}

impl Stored {
    /// The tensors of a safetensors file.
    ///
    /// # Errors
    /// When the file cannot be read; libtorch's message names it.
    pub fn read_safetensors(path: &Path) -> Result<Stored, TchError> {
        Ok(Tensor::read_safetensors(path)?.into_iter().collect())
    }

    fn find(&self, name: &str, spec: &Spec) -> Result<&Tensor, WeightError> {
        self.0
            .get(name)
            .ok_or_else(|| WeightError::Missing { name: name.to_owned(), wanted: spec.dims() })
    }

    /// The same weights for [`Form::Deployed`](crate::Form::Deployed): each batch norm that
    /// [`Form::Training`](crate::Form::Training) put after a convolution becomes part of the
    /// convolution's weight and bias.
    ///
    /// # Errors
    /// When a batch norm is incomplete, or its shape is not that of its convolution.
    pub fn folded(&self) -> Result<Stored, WeightError> {
        let _guard = tch::no_grad_guard();
        let mut folded: HashMap<String, Tensor> =
            self.0.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        for conv in self.0.keys().filter_map(|name| name.strip_suffix(".norm.running_var")) {
            let name = format!("{conv}.weight");
            let Some(weight) = self.0.get(&name) else { continue };
            let part = |part: &str| {
                let name = format!("{conv}.norm.{part}");
                let wanted = weight.size()[..1].to_vec();
                let found = self.0.get(&name).ok_or(WeightError::Missing { name, wanted })?;
                Ok(found)
            };
            let (scale, shift) = (part("weight")?, part("bias")?);
            let (mean, variance) = (part("running_mean")?, part("running_var")?);
            let (weight, bias) = fold(weight, scale, shift, mean, variance).map_err(|source| {
                WeightError::Torch { name: name.clone(), wanted: weight.size(), source }
            })?;
            folded.insert(name, weight);
            folded.insert(format!("{conv}.bias"), bias);
            for part in ["weight", "bias", "running_mean", "running_var"] {
                folded.remove(&format!("{conv}.norm.{part}"));
            }
        }
        Ok(Stored(folded))
    }
}

/// The weight and bias of a convolution that computes what this one and its batch norm compute:
/// `scale * (weight * x - mean) / sqrt(variance + epsilon) + shift`.
fn fold(
    weight: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    mean: &Tensor,
    variance: &Tensor,
) -> Result<(Tensor, Tensor), TchError> {
    let double = |tensor: &Tensor| tensor.f_to_kind(Kind::Double);
    let root = double(variance)?.f_add_scalar(BATCH_NORM_EPSILON)?.f_sqrt()?;
    let factor = double(scale)?.f_div(&root)?;
    let bias = double(shift)?.f_sub(&double(mean)?.f_mul(&factor)?)?;
    // One factor for each output channel, which is the first dimension.
    let mut along = vec![1; weight.dim()];
    along[0] = -1;
    let folded = double(weight)?.f_mul(&factor.f_view(along.as_slice())?)?;
    Ok((folded.f_to_kind(weight.kind())?, bias.f_to_kind(weight.kind())?))
}

impl Weights for Stored {
    fn get(&self, name: &str, spec: &Spec) -> Result<Tensor, WeightError> {
        Ok(self.find(name, spec)?.shallow_clone())
    }
}

/// Views of larger weights: the first channels, and the centre of a kernel. Gradients reach the
/// larger weights, so narrow and wide networks can share them.
#[derive(Debug)]
pub struct Sliced(Stored);

impl Sliced {
    /// Slices of these.
    pub fn new(larger: Stored) -> Sliced {
        Sliced(larger)
    }
}

impl Weights for Sliced {
    fn get(&self, name: &str, spec: &Spec) -> Result<Tensor, WeightError> {
        let larger = self.0.find(name, spec)?;
        let found = larger.size();
        let contains = |(&axis, &size): (&Axis, &i64)| match axis {
            Axis::Channels(wanted) => wanted <= size,
            // The centre is in the middle only if as much is left on both sides.
            Axis::Window(wanted) => wanted <= size && (size - wanted) % 2 == 0,
            Axis::Blocks { blocks, channels } => size % blocks == 0 && channels <= size / blocks,
            Axis::Fixed(wanted) => wanted == size,
        };
        let fits = found.len() == spec.axes.len() && spec.axes.iter().zip(&found).all(contains);
        if !fits {
            return Err(WeightError::Shape { name: name.to_owned(), wanted: spec.dims(), found });
        }
        let sliced = spec.axes.iter().zip(0..).try_fold(larger.shallow_clone(), slice);
        sliced.map_err(|source| WeightError::Torch {
            name: name.to_owned(),
            wanted: spec.dims(),
            source,
        })
    }
}

/// A view of what `axis` wants along dimension `dim`, which is large enough.
fn slice(tensor: Tensor, (&axis, dim): (&Axis, i64)) -> Result<Tensor, TchError> {
    let size = tensor.size()[dim as usize];
    match axis {
        Axis::Channels(wanted) => tensor.f_narrow(dim, 0, wanted),
        Axis::Window(wanted) => tensor.f_narrow(dim, (size - wanted) / 2, wanted),
        Axis::Blocks { blocks, channels } => {
            let block = size / blocks;
            if block == channels {
                return Ok(tensor);
            }
            let parts = (0..blocks).map(|index| tensor.f_narrow(dim, index * block, channels));
            // Blocks that do not touch have no view in common; this is a copy that gradients pass.
            Tensor::f_cat(&parts.collect::<Result<Vec<_>, _>>()?, dim)
        }
        Axis::Fixed(_) => Ok(tensor),
    }
}

/// Variables of a store, for an optimizer. What the store lacks is added to it.
#[derive(Debug)]
pub struct Variables<'a, W> {
    store: &'a VarStore,
    initial: W,
}

impl<'a, W: Weights> Variables<'a, W> {
    /// Variables of `store`, with values from `initial` at first.
    pub fn new(store: &'a VarStore, initial: W) -> Variables<'a, W> {
        Variables { store, initial }
    }
}

impl<W: Weights> Weights for Variables<'_, W> {
    fn get(&self, name: &str, spec: &Spec) -> Result<Tensor, WeightError> {
        let (path, last) = name.rsplit_once('.').unwrap_or(("", name));
        let parts = path.split('.').filter(|part| !part.is_empty());
        let path = parts.fold(self.store.root(), |path, part| path.sub(part));
        if let Some(variable) = path.get(last) {
            return Ok(variable);
        }
        let initial = self.initial.get(name, spec)?;
        let made = if spec.trained {
            path.f_zeros(last, &initial.size())
        } else {
            path.f_zeros_no_train(last, &initial.size())
        };
        // Copying brings it to the store's device and kind.
        let filled = made.and_then(|mut made| {
            tch::no_grad(|| made.f_copy_(&initial))?;
            Ok(made)
        });
        filled.map_err(|source| WeightError::Torch {
            name: name.to_owned(),
            wanted: spec.dims(),
            source,
        })
    }
}

/// A weight of a lowered op or network.
#[derive(Debug)]
pub struct Weight {
    /// Its path.
    pub name: String,
    /// The tensor that is computed with.
    pub tensor: Tensor,
    /// Whether training changes it through gradients.
    pub trained: bool,
}

/// The weights of one part of a network: what primitives ask.
pub(crate) struct Source<'a> {
    weights: &'a dyn Weights,
    placement: Placement,
    made: Vec<Weight>,
    path: String,
}

impl<'a> Source<'a> {
    pub(crate) fn new(weights: &'a dyn Weights, placement: Placement) -> Source<'a> {
        Source { weights, placement, made: vec![], path: String::new() }
    }

    /// The same weights, with names that begin with `path`.
    pub(crate) fn below(self, path: &str) -> Source<'a> {
        Source { path: format!("{path}."), ..self }
    }

    /// Runs `make` with names that begin with `part`.
    pub(crate) fn within<T>(&mut self, part: &str, make: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(part);
        self.path.push('.');
        let made = make(self);
        self.path.truncate(length);
        made
    }

    /// The weight of this name, checked and placed.
    pub(crate) fn get(&mut self, name: &str, spec: &Spec) -> Result<Tensor, WeightError> {
        let name = format!("{}{name}", self.path);
        let wanted = spec.dims();
        let found = self.weights.get(&name, spec)?;
        if found.size() != wanted {
            return Err(WeightError::Shape { name, wanted, found: found.size() });
        }
        let tensor = match self.placement.place(&found) {
            Ok(tensor) => tensor,
            Err(source) => return Err(WeightError::Torch { name, wanted, source }),
        };
        self.made.push(Weight { name, tensor: tensor.shallow_clone(), trained: spec.trained });
        Ok(tensor)
    }

    /// A trained weight for products over `fan_in` terms, which keep unit variance.
    pub(crate) fn scaled(
        &mut self,
        name: &str,
        axes: &[Axis],
        fan_in: i64,
    ) -> Result<Tensor, WeightError> {
        self.trained(name, axes, Init::scaled(fan_in))
    }

    /// A trained weight with small values, one for each channel.
    pub(crate) fn small(&mut self, name: &str, axis: Axis) -> Result<Tensor, WeightError> {
        self.trained(name, &[axis], Init::SMALL)
    }

    /// A trained weight.
    pub(crate) fn trained(
        &mut self,
        name: &str,
        axes: &[Axis],
        init: Init,
    ) -> Result<Tensor, WeightError> {
        self.get(name, &Spec { axes: axes.to_vec(), init, trained: true })
    }

    /// Values that nothing trains and that are no weights: they follow from the shape.
    pub(crate) fn constant(&self, values: &[f32], dims: &[i64]) -> Result<Tensor, WeightError> {
        let made = Tensor::f_from_slice(values).and_then(|made| made.f_view(dims));
        made.and_then(|made| self.placement.place(&made))
            .map_err(|source| self.failed(dims, source))
    }

    /// Indices into a weight.
    pub(crate) fn indices(&self, values: &[i64]) -> Result<Tensor, WeightError> {
        let made = Tensor::f_from_slice(values);
        let placed = made.and_then(|made| made.f_to_device(self.placement.device));
        placed.map_err(|source| self.failed(&[values.len() as i64], source))
    }

    fn failed(&self, dims: &[i64], source: TchError) -> WeightError {
        let name = self.path.trim_end_matches('.').to_owned();
        WeightError::Torch { name, wanted: dims.to_vec(), source }
    }

    /// A weight that was made before, seen with other dimensions.
    pub(crate) fn viewed(
        &self,
        name: &str,
        weight: &Tensor,
        dims: &[i64],
    ) -> Result<Tensor, WeightError> {
        weight.f_view(dims).map_err(|source| WeightError::Torch {
            name: format!("{}{name}", self.path),
            wanted: dims.to_vec(),
            source,
        })
    }

    /// What was asked for, in this order.
    pub(crate) fn into_weights(self) -> Vec<Weight> {
        self.made
    }
}
