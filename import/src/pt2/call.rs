//! A node of `torch.export` with its arguments, and the table of operators.

use super::schema;
use crate::build::Builder;
use crate::build::dimensions;
use crate::error::{Step, malformed, shown, unsupported};
use crate::fold::{Comparison, OnConstants};
use crate::graph::{Function, Kind, Reduction, ValueId};

/// An argument, with names replaced by values.
#[derive(Debug, Clone)]
pub(super) enum Arg<'a> {
    None,
    Tensor(ValueId),
    Tensors(Vec<Option<ValueId>>),
    Int(i64),
    Float(f64),
    Bool(bool),
    Text(&'a str),
    Ints(Vec<i64>),
    Floats(Vec<f64>),
    Graph(&'a schema::Graph),
    /// A number that is not known before the model runs.
    Unknown,
    /// Something that is never read.
    Other,
}

/// A node that is being translated.
pub(super) struct Call<'a, 'b> {
    pub(super) builder: &'b mut Builder,
    pub(super) arguments: Vec<(&'a str, Arg<'a>)>,
    /// Dimensions and kinds of its outputs, from the file. There is at least one.
    pub(super) outputs: Vec<(Vec<u64>, Kind)>,
}

/// The parts of a target: namespace, name and overload.
fn parts(target: &str) -> (&str, &str, &str) {
    let mut parts = target.splitn(3, '.');
    let mut next = || parts.next().unwrap_or_default();
    (next(), next(), next())
}

/// Whether a target changes its first argument in place.
pub(super) fn is_in_place(target: &str) -> bool {
    parts(target).1.ends_with('_')
}

/// Whether the result of a target can share memory with its first argument.
pub(super) fn is_view(target: &str) -> bool {
    matches!(
        parts(target).1,
        "view"
            | "reshape"
            | "_unsafe_view"
            | "_reshape_alias"
            | "flatten"
            | "unflatten"
            | "squeeze"
            | "unsqueeze"
            | "permute"
            | "transpose"
            | "t"
            | "numpy_T"
            | "movedim"
            | "swapaxes"
            | "mT"
            | "expand"
            | "expand_as"
            | "broadcast_to"
            | "slice"
            | "select"
            | "narrow"
            | "split"
            | "split_with_sizes"
            | "chunk"
            | "unbind"
            | "tensor_split"
            | "alias"
            | "detach"
            | "contiguous"
            | "to"
            | "type_as"
            | "dropout"
            | "diagonal"
            | "unfold"
            | "view_as"
            | "reshape_as"
            | "as_strided"
    )
}

/// Whether a target without tensors among its arguments always has the same result.
pub(super) fn is_determined(target: &str) -> bool {
    let (namespace, name, _) = parts(target);
    namespace == "aten" && !name.contains("rand") && !name.contains("normal")
}

/// Whether a target only runs a graph, in a mode that has no effect on inference.
pub(super) fn runs_a_graph(target: &str) -> bool {
    matches!(target, "higher_order.wrap_with_set_grad_enabled" | "higher_order.wrap_with_autocast")
}

impl<'a> Call<'a, '_> {
    /// An argument that is there.
    fn argument(&self, name: &str) -> Option<&Arg<'a>> {
        let found = self.arguments.iter().find(|(own, _)| *own == name).map(|(_, arg)| arg);
        found.filter(|arg| !matches!(arg, Arg::None))
    }

    fn wrong<T>(name: &str, found: &Arg<'a>, wanted: &str) -> Step<T> {
        match found {
            Arg::Unknown => {
                unsupported(format!("its argument `{name}` depends on what the model computes"))
            }
            _ => malformed(format!("its argument `{name}` should be {wanted}")),
        }
    }

    /// A tensor, if it is there.
    pub(super) fn tensor(&self, name: &str) -> Step<Option<ValueId>> {
        match self.argument(name) {
            None => Ok(None),
            Some(Arg::Tensor(id)) => Ok(Some(*id)),
            Some(other) => Self::wrong(name, other, "a tensor"),
        }
    }

    /// A tensor that has to be there.
    pub(super) fn need(&self, name: &str) -> Step<ValueId> {
        match self.tensor(name)? {
            Some(id) => Ok(id),
            None => malformed(format!("its argument `{name}` is missing")),
        }
    }

    /// The first argument.
    pub(super) fn first(&self) -> Step<ValueId> {
        match self.arguments.first() {
            Some((_, Arg::Tensor(id))) => Ok(*id),
            _ => malformed("its first argument should be a tensor"),
        }
    }

    /// A list of tensors.
    pub(super) fn tensors(&self, name: &str) -> Step<Vec<Option<ValueId>>> {
        match self.argument(name) {
            Some(Arg::Tensors(list)) => Ok(list.clone()),
            Some(other) => Self::wrong(name, other, "a list of tensors"),
            None => malformed(format!("its argument `{name}` is missing")),
        }
    }

    /// A whole number, if it is there.
    pub(super) fn maybe_int(&self, name: &str) -> Step<Option<i64>> {
        match self.argument(name) {
            None => Ok(None),
            Some(Arg::Int(number)) => Ok(Some(*number)),
            Some(other) => Self::wrong(name, other, "a whole number"),
        }
    }

    /// A whole number, or its default.
    pub(super) fn int(&self, name: &str, default: i64) -> Step<i64> {
        Ok(self.maybe_int(name)?.unwrap_or(default))
    }

    /// A number, if it is there. A tensor with one known number is one, too.
    pub(super) fn maybe_float(&self, name: &str) -> Step<Option<f64>> {
        Ok(match self.argument(name) {
            None => None,
            Some(Arg::Int(number)) => Some(*number as f64),
            Some(Arg::Float(number)) => Some(*number),
            Some(Arg::Bool(truth)) => Some(f64::from(u8::from(*truth))),
            Some(Arg::Tensor(id)) => match self.builder.number(*id) {
                Some(number) => Some(number),
                None => {
                    return unsupported(format!(
                        "its argument `{name}` is computed, or not in the file"
                    ));
                }
            },
            Some(other) => return Self::wrong(name, other, "a number"),
        })
    }

    /// A number, or its default.
    pub(super) fn float(&self, name: &str, default: f64) -> Step<f64> {
        Ok(self.maybe_float(name)?.unwrap_or(default))
    }

    /// A truth value, or its default.
    pub(super) fn bool(&self, name: &str, default: bool) -> Step<bool> {
        match self.argument(name) {
            None => Ok(default),
            Some(Arg::Bool(truth)) => Ok(*truth),
            Some(Arg::Int(number)) => Ok(*number != 0),
            Some(other) => Self::wrong(name, other, "a truth value"),
        }
    }

    /// A text, or its default.
    pub(super) fn text(&self, name: &str, default: &'a str) -> Step<&'a str> {
        match self.argument(name) {
            None => Ok(default),
            Some(Arg::Text(text)) => Ok(*text),
            Some(other) => Self::wrong(name, other, "a text"),
        }
    }

    /// A list of whole numbers, or an empty one. A single number is a list of one.
    pub(super) fn ints(&self, name: &str) -> Step<Vec<i64>> {
        match self.argument(name) {
            None => Ok(Vec::new()),
            Some(Arg::Ints(list)) => Ok(list.clone()),
            Some(Arg::Int(number)) => Ok(vec![*number]),
            // An empty list has no type.
            Some(Arg::Tensors(list)) if list.is_empty() => Ok(Vec::new()),
            Some(Arg::Floats(list)) if list.is_empty() => Ok(Vec::new()),
            Some(other) => Self::wrong(name, other, "a list of whole numbers"),
        }
    }

    /// Whether an argument is there.
    pub(super) fn has(&self, name: &str) -> bool {
        self.argument(name).is_some()
    }

    /// A tensor, or a number as a constant.
    pub(super) fn operand(&mut self, name: &str) -> Step<ValueId> {
        match self.argument(name).cloned() {
            Some(Arg::Tensor(id)) => Ok(id),
            Some(Arg::Int(number)) => Ok(self.builder.scalar(number as f64, Kind::Integer)?),
            Some(Arg::Float(number)) => Ok(self.builder.scalar(number, Kind::Float)?),
            Some(Arg::Bool(truth)) => {
                Ok(self.builder.scalar(f64::from(u8::from(truth)), Kind::Boolean)?)
            }
            Some(other) => Self::wrong(name, &other, "a tensor or a number"),
            None => malformed(format!("its argument `{name}` is missing")),
        }
    }

    /// Dimensions of the first output.
    pub(super) fn dims(&self) -> Vec<u64> {
        self.outputs[0].0.clone()
    }

    /// Kind of the first output.
    pub(super) fn kind(&self) -> Kind {
        self.outputs[0].1
    }

    pub(super) fn apply(&mut self, function: Function) -> Step<ValueId> {
        let x = self.first()?;
        self.builder.function(function, x)
    }

    pub(super) fn compare(&mut self, comparison: Comparison) -> Step<ValueId> {
        let (left, right) = (self.first()?, self.operand("other")?);
        self.builder.on_constants(&OnConstants::Compare(comparison), &[left, right])
    }

    pub(super) fn constant_function(&mut self, operation: &OnConstants) -> Step<ValueId> {
        let x = self.first()?;
        self.builder.on_constants(operation, &[x])
    }

    pub(super) fn constant_pair(&mut self, operation: &OnConstants) -> Step<ValueId> {
        let (left, right) = (self.first()?, self.operand("other")?);
        self.builder.on_constants(operation, &[left, right])
    }

    /// What the node writes. Outputs at the end may be missing.
    pub(super) fn translate(&mut self, target: &str) -> Step<Vec<ValueId>> {
        let (namespace, name, overload) = parts(target);
        if namespace != "aten" {
            return unsupported(foreign(namespace, target));
        }
        // A last `_` says that a value changes in place. Names such as `__and__` end with two.
        let in_place = name.strip_suffix('_').filter(|name| !name.ends_with('_'));
        let name = in_place.unwrap_or(name);
        let name = match name {
            "_to_copy" | "lift_fresh_copy" | "copy" => name,
            _ => name.strip_suffix("_copy").unwrap_or(name),
        };
        match name {
            "split" | "split_with_sizes" | "chunk" | "unbind" | "tensor_split" => self.parts(name),
            _ => Ok(vec![self.one(name, overload)?]),
        }
    }

    /// The only output that is read of an operator.
    fn one(&mut self, name: &str, overload: &str) -> Step<ValueId> {
        match name {
            "conv1d" | "conv2d" | "conv3d" | "convolution" | "_convolution" => self.conv(),
            "conv_transpose1d" | "conv_transpose2d" | "conv_transpose3d" => self.conv_transpose(),
            "max_pool1d" | "max_pool2d" | "max_pool2d_with_indices" | "max_pool1d_with_indices" => {
                self.pool(true)
            }
            "avg_pool1d" | "avg_pool2d" => self.pool(false),
            "adaptive_max_pool1d" | "adaptive_max_pool2d" => self.adaptive_pool(true),
            "adaptive_avg_pool1d" | "adaptive_avg_pool2d" | "_adaptive_avg_pool2d" => {
                self.adaptive_pool(false)
            }
            "upsample_nearest1d" | "upsample_nearest2d" => self.resize(false),
            "upsample_linear1d" | "upsample_bilinear2d" => self.resize(true),
            "pixel_shuffle" | "pixel_unshuffle" | "channel_shuffle" | "native_channel_shuffle" => {
                self.blocks(name)
            }
            "linear" | "addmm" | "mm" | "bmm" | "matmul" | "baddbmm" | "dot" | "mv" | "einsum" => {
                self.product(name)
            }
            _ if name == "scaled_dot_product_attention"
                || name.starts_with("_scaled_dot_product_") =>
            {
                self.attention()
            }
            "embedding" => self.embedding(),
            "batch_norm" | "native_batch_norm" | "cudnn_batch_norm" | "layer_norm"
            | "native_layer_norm" | "group_norm" | "native_group_norm" | "instance_norm"
            | "rms_norm" => self.norm(name),
            _ if name.starts_with("_native_batch_norm_legit") => self.legit_norm(name, overload),
            "softmax" | "_softmax" | "_safe_softmax" => self.softmax(),
            "linalg_vector_norm" | "norm" => self.vector_norm(),
            "mean" => self.reduce(Reduction::Mean),
            "sum" => self.reduce(Reduction::Sum),
            "amax" | "max" if overload != "other" => self.reduce(Reduction::Max),
            _ => self.elementwise(name, overload),
        }
    }

    pub(super) fn constant(&mut self, name: &str) -> Step<ValueId> {
        match name {
            "zeros" | "new_zeros" | "zeros_like" | "zero" => self.full(Some(0.0)),
            "ones" | "new_ones" | "ones_like" => self.full(Some(1.0)),
            "full" | "new_full" | "full_like" => {
                let number = self.float("fill_value", 0.0)?;
                self.full(Some(number))
            }
            "fill" => {
                let number = self.float("value", 0.0).ok();
                self.full(number)
            }
            "scalar_tensor" => {
                let number = self.float("s", 0.0)?;
                self.full(Some(number))
            }
            "empty" | "new_empty" | "empty_like" | "empty_strided" | "new_empty_strided" => {
                self.full(None)
            }
            "arange" => self.arange(),
            "tril" | "triu" => {
                let diagonal = self.int("diagonal", 0)?;
                let upper = name == "triu";
                self.constant_function(&OnConstants::Triangle { upper, diagonal })
            }
            "where" => {
                let all = [self.need("condition")?, self.operand("self")?, self.operand("other")?];
                match self.builder.is_safe_softmax(all) {
                    true => Ok(all[2]),
                    false => self.builder.on_constants(&OnConstants::Where, &all),
                }
            }
            "masked_fill" => {
                let all = [self.need("mask")?, self.operand("value")?, self.first()?];
                self.builder.on_constants(&OnConstants::Where, &all)
            }
            "cumsum" => {
                let x = self.first()?;
                let axis = dimensions::axis(self.int("dim", 0)?, self.builder.rank(x))?;
                self.builder.on_constants(&OnConstants::CumulativeSum(axis), &[x])
            }
            "diff" => self.differences(),
            "gather" => {
                let (x, positions) = (self.first()?, self.need("index")?);
                let axis = dimensions::axis(self.int("dim", 0)?, self.builder.rank(x))?;
                self.builder.on_constants(&OnConstants::Along(axis), &[x, positions])
            }
            "eq" => self.compare(Comparison::Equal),
            "ne" => self.compare(Comparison::Unequal),
            "lt" => self.compare(Comparison::Less),
            "le" => self.compare(Comparison::LessOrEqual),
            "gt" => self.compare(Comparison::Greater),
            "ge" => self.compare(Comparison::GreaterOrEqual),
            "logical_not" | "bitwise_not" => self.constant_function(&OnConstants::Not),
            "logical_and" | "bitwise_and" | "__and__" => self.constant_pair(&OnConstants::And),
            "logical_or" | "bitwise_or" | "__or__" => self.constant_pair(&OnConstants::Or),
            "logical_xor" | "bitwise_xor" | "__xor__" => self.constant_pair(&OnConstants::Xor),
            "floor" => self.constant_function(&OnConstants::Floor),
            "ceil" => self.constant_function(&OnConstants::Ceil),
            "round" => self.constant_function(&OnConstants::Round),
            "sign" => self.constant_function(&OnConstants::Sign),
            "log" => self.constant_function(&OnConstants::Log),
            "floor_divide" => self.constant_pair(&OnConstants::FloorDiv),
            "remainder" => self.constant_pair(&OnConstants::Mod),
            "fmod" => self.constant_pair(&OnConstants::Remainder),
            _ => unsupported(why(name)),
        }
    }
}

/// Why an operator of another library has no translation.
fn foreign(namespace: &str, target: &str) -> String {
    if namespace == "higher_order" {
        return "control flow: what it runs depends on the input; export a model without it"
            .to_owned();
    }
    if target.contains("quant") || namespace == "torchao" {
        return QUANTIZED.to_owned();
    }
    format!("it is an operator of `{}`, and those of `aten` are read", shown(namespace))
}

const QUANTIZED: &str =
    "a quantized graph: export the model before its quantization; a runtime measures int8";

/// Why an operator has no translation.
fn why(name: &str) -> String {
    match name {
        _ if name.contains("quantize") || name.starts_with("fake_quant") => QUANTIZED.to_owned(),
        "lstm" | "gru" | "rnn_tanh" | "rnn_relu" => {
            "a recurrent layer, which the catalog does not have".to_owned()
        }
        _ if name.contains("rand") || name.contains("bernoulli") => {
            "it draws random numbers: call model.eval() before the export".to_owned()
        }
        _ => "no operator of this name is read".to_owned(),
    }
}
