//! A node of ONNX with its inputs and attributes, and the table of operators.

use super::proto::AttributeValue;
use super::tensors::Store;
use crate::build::{Builder, ON_CONSTANTS};
use crate::error::{Step, malformed, unsupported};
use crate::fold::{Comparison, OnConstants};
use crate::graph::{Binary, Function, Reduction, ValueId};

/// A node that is being translated.
pub(super) struct Call<'a, 'b> {
    pub(super) builder: &'b mut Builder,
    pub(super) store: &'b mut Store,
    /// Inputs; None for an optional one that is left out.
    pub(super) inputs: Vec<Option<ValueId>>,
    pub(super) attributes: Vec<(&'a str, &'a AttributeValue)>,
    pub(super) opset: i64,
    /// Number of outputs.
    pub(super) outputs: usize,
}

impl<'a> Call<'a, '_> {
    /// An input, if it is there.
    pub(super) fn input(&self, i: usize) -> Option<ValueId> {
        self.inputs.get(i).copied().flatten()
    }

    /// An input that has to be there.
    pub(super) fn need(&self, i: usize) -> Step<ValueId> {
        match self.input(i) {
            Some(id) => Ok(id),
            None => malformed(format!("its input {i} is missing")),
        }
    }

    /// All inputs, of an operator without optional ones.
    pub(super) fn all(&self) -> Step<Vec<ValueId>> {
        (0..self.inputs.len()).map(|i| self.need(i)).collect()
    }

    fn attribute(&self, name: &str) -> Option<&'a AttributeValue> {
        self.attributes.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }

    fn wrong<T>(name: &str, kind: &str) -> Step<T> {
        malformed(format!("its attribute `{name}` should be {kind}"))
    }

    /// An attribute that is a whole number, or its default.
    pub(super) fn int(&self, name: &str, default: i64) -> Step<i64> {
        match self.attribute(name) {
            None => Ok(default),
            Some(AttributeValue::Integer(number)) => Ok(*number),
            Some(_) => Self::wrong(name, "a whole number"),
        }
    }

    /// An attribute that is a number, or its default.
    pub(super) fn float(&self, name: &str, default: f64) -> Step<f64> {
        match self.attribute(name) {
            None => Ok(default),
            Some(AttributeValue::Float(number)) => Ok(*number),
            Some(_) => Self::wrong(name, "a number"),
        }
    }

    /// An attribute that is a text, or its default.
    pub(super) fn text(&self, name: &str, default: &'a str) -> Step<&'a str> {
        match self.attribute(name) {
            None => Ok(default),
            Some(AttributeValue::Text(text)) => Ok(text),
            Some(_) => Self::wrong(name, "a text"),
        }
    }

    /// An attribute that is a list of whole numbers, if it is there.
    pub(super) fn ints(&self, name: &str) -> Step<Option<Vec<i64>>> {
        match self.attribute(name) {
            None => Ok(None),
            Some(AttributeValue::Integers(numbers)) => Ok(Some(numbers.clone())),
            Some(_) => Self::wrong(name, "a list of whole numbers"),
        }
    }

    /// An attribute with any value.
    pub(super) fn any(&self, name: &str) -> Option<&'a AttributeValue> {
        self.attribute(name)
    }

    /// A list that older versions have as an attribute, and newer ones as an input.
    pub(super) fn list(&self, name: &str, input: usize) -> Step<Option<Vec<i64>>> {
        match self.input(input) {
            Some(id) => self.builder.list(id, &format!("the list `{name}`")).map(Some),
            None => self.ints(name),
        }
    }

    fn apply(&mut self, function: Function) -> Step<ValueId> {
        let x = self.need(0)?;
        self.builder.function(function, x)
    }

    fn chain(&mut self, function: Binary) -> Step<ValueId> {
        let all = self.all()?;
        let Some((&first, others)) = all.split_first() else {
            return malformed("it has no input");
        };
        others.iter().try_fold(first, |left, &right| self.builder.binary(function, left, right))
    }

    fn constants(&mut self, operation: &OnConstants) -> Step<ValueId> {
        let all = self.all()?;
        self.builder.on_constants(operation, &all)
    }

    /// What the node writes. Outputs at the end may be missing.
    pub(super) fn translate(&mut self, operator: &str) -> Step<Vec<ValueId>> {
        if operator == "Split" {
            return self.split();
        }
        Ok(vec![self.one(operator)?])
    }

    /// The only output that is read of an operator.
    fn one(&mut self, operator: &str) -> Step<ValueId> {
        match operator {
            "Conv" => self.conv(),
            "ConvTranspose" => self.conv_transpose(),
            "MaxPool" | "AveragePool" => self.pool(operator == "MaxPool"),
            "GlobalAveragePool" | "GlobalMaxPool" => self.global_pool(operator == "GlobalMaxPool"),
            "Resize" => self.resize(),
            "DepthToSpace" | "SpaceToDepth" => self.blocks(operator == "DepthToSpace"),
            "Gemm" => self.gemm(),
            "MatMul" => {
                let (left, right) = (self.need(0)?, self.need(1)?);
                crate::products::matmul(self.builder, left, right)
            }
            "Attention" => self.attention(),
            "Einsum" => {
                let (all, equation) = (self.all()?, self.text("equation", "")?);
                crate::products::einsum(self.builder, equation, &all)
            }
            "BatchNormalization" => self.batch_norm(),
            "LayerNormalization" => self.layer_norm(),
            "RMSNormalization" | "SimplifiedLayerNormalization" => self.rms_norm(),
            "GroupNormalization" => self.group_norm(),
            "InstanceNormalization" => self.instance_norm(),
            "Softmax" => self.softmax(),
            _ => self.elementwise(operator),
        }
    }

    fn elementwise(&mut self, operator: &str) -> Step<ValueId> {
        match operator {
            "Relu" => self.apply(Function::Relu),
            "Sigmoid" => self.apply(Function::Sigmoid),
            "HardSwish" => self.apply(Function::Hardswish),
            "Mish" => self.apply(Function::Mish),
            "Tanh" => self.apply(Function::Tanh),
            "Softplus" => self.apply(Function::Softplus),
            "Erf" => self.apply(Function::Erf),
            "Exp" => self.apply(Function::Exp),
            "Sqrt" => self.apply(Function::Sqrt),
            "Reciprocal" => self.apply(Function::Reciprocal),
            "Neg" => self.apply(Function::Negate),
            "Abs" => self.apply(Function::Abs),
            "Sin" => self.apply(Function::Sin),
            "Cos" => self.apply(Function::Cos),
            "LeakyRelu" | "Elu" | "HardSigmoid" | "Swish" | "Gelu" => self.activation(operator),
            "PRelu" => self.prelu(),
            "Clip" => self.clip(),
            "Add" | "Sum" => self.chain(Binary::Add),
            "Sub" => self.chain(Binary::Sub),
            "Mul" => self.chain(Binary::Mul),
            "Div" => self.chain(Binary::Div),
            "Pow" => self.chain(Binary::Pow),
            "Max" => self.chain(Binary::Max),
            "Min" => self.chain(Binary::Min),
            "ReduceMean" => self.reduce(Reduction::Mean),
            "ReduceSum" => self.reduce(Reduction::Sum),
            "ReduceMax" => self.reduce(Reduction::Max),
            "ReduceL2" => self.reduce_norm(),
            "Identity" => self.need(0),
            "Dropout" => self.dropout(),
            "Cast" | "CastLike" => self.cast(operator == "CastLike"),
            _ => self.moves(operator),
        }
    }

    fn moves(&mut self, operator: &str) -> Step<ValueId> {
        match operator {
            "Reshape" => self.reshape(),
            "Flatten" => self.flatten(),
            "Squeeze" => self.squeeze(),
            "Unsqueeze" => self.unsqueeze(),
            "Transpose" => self.transpose(),
            "Expand" => self.expand(),
            "Concat" => self.concat(),
            "Slice" => self.slice(),
            "Gather" => self.gather(),
            "Pad" => self.pad(),
            "Tile" => self.tile(),
            "Shape" => self.shape(),
            "Size" => self.size(),
            "Constant" => self.constant(),
            "ConstantOfShape" => self.constant_of_shape(),
            "Range" => self.range(),
            "Trilu" => self.trilu(),
            "Where" => self.choice(),
            "Equal" => self.constants(&OnConstants::Compare(Comparison::Equal)),
            "Less" => self.constants(&OnConstants::Compare(Comparison::Less)),
            "LessOrEqual" => self.constants(&OnConstants::Compare(Comparison::LessOrEqual)),
            "Greater" => self.constants(&OnConstants::Compare(Comparison::Greater)),
            "GreaterOrEqual" => self.constants(&OnConstants::Compare(Comparison::GreaterOrEqual)),
            "Not" => self.constants(&OnConstants::Not),
            "And" => self.constants(&OnConstants::And),
            "Or" => self.constants(&OnConstants::Or),
            "Xor" => self.constants(&OnConstants::Xor),
            "Floor" => self.constants(&OnConstants::Floor),
            "Ceil" => self.constants(&OnConstants::Ceil),
            "Round" => self.constants(&OnConstants::Round),
            "Sign" => self.constants(&OnConstants::Sign),
            "Log" => self.constants(&OnConstants::Log),
            "Mod" => match self.int("fmod", 0)? {
                0 => self.constants(&OnConstants::Mod),
                _ => self.constants(&OnConstants::Remainder),
            },
            "ScatterND" | "ScatterElements" | "CumSum" | "IsInf" | "IsNaN" => self.uncounted(0),
            "GatherElements" | "GatherND" => self.gather_constants(operator == "GatherND"),
            _ => unsupported(why(operator)),
        }
    }

    /// A constant with the dimensions of one of several constants. Masks are built so, and their numbers do not matter.
    fn uncounted(&mut self, like: usize) -> Step<ValueId> {
        if self.all()?.iter().any(|&id| !self.builder.is_constant(id)) {
            return unsupported(ON_CONSTANTS);
        }
        let like = self.need(like)?;
        Ok(self.builder.without_numbers(like)?)
    }

    fn choice(&mut self) -> Step<ValueId> {
        let all = [self.need(0)?, self.need(1)?, self.need(2)?];
        match self.builder.is_safe_softmax(all) {
            true => Ok(all[2]),
            false => self.builder.on_constants(&OnConstants::Where, &all),
        }
    }
}

/// Why an operator has no translation.
fn why(operator: &str) -> String {
    match operator {
        "If" | "Loop" | "Scan" | "SequenceMap" => {
            "control flow: what it runs depends on the input; export a model without it".to_owned()
        }
        _ if operator.to_lowercase().contains("quantize")
            || operator.starts_with("QLinear")
            || operator.ends_with("Integer") =>
        {
            "a quantized graph: export the model before its quantization; a runtime measures int8"
                .to_owned()
        }
        _ if operator.contains("Sequence") || operator.starts_with("Optional") => {
            "a list of tensors: export a model without it".to_owned()
        }
        "LSTM" | "GRU" | "RNN" => "a recurrent layer, which the catalog does not have".to_owned(),
        _ => "no operator of this name is read".to_owned(),
    }
}
