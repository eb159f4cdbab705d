//! Definitions of ops for what the catalog does not have.

use std::sync::Arc;

use ops_catalog::{Node, Op, OpDef, Pair, Primitive, Size, TensorShape, Variable};

use super::matching::{layout, op_shape, square_stride};
use super::primitive;
use super::split::Piece;
use crate::flat::{Flat, Problem, Source};

/// The largest numerator and denominator of a multiple of the op's channels.
const MOST_RATIO: u32 = 8;

/// The op that computes a piece. Its sizes are multiples of the op's channels where they can be, so that pieces of
/// different widths share it.
pub(super) fn define(flat: &Flat, piece: &Piece, model: &str) -> Result<Arc<Op>, Vec<Problem>> {
    let input = piece.input_shape(flat);
    let sizes = Sizes {
        c_in: input.channels(),
        c_out: flat.shape(piece.output).channels(),
        stride: stride_of(flat, piece),
    };
    let nodes = if piece.steps.is_empty() {
        vec![Node { id: None, inputs: None, when: None, apply: Primitive::Identity }]
    } else {
        piece.steps.iter().map(|&step| node(flat, piece, step, &sizes)).collect()
    };
    let place =
        piece.steps.first().map(|&step| flat.steps[step].place.as_str()).unwrap_or_default();
    let def = OpDef {
        name: "Imported".to_owned(),
        doc: format!("Part of {model}, from {place} on."),
        aliases: vec![],
        input: layout(input),
        usual_stride: 1,
        nodes,
    };
    let problem = |why: String| {
        let step = piece.steps.first().map(|&step| &flat.steps[step]);
        vec![Problem {
            node: place.to_owned(),
            operator: step.map(|step| step.operator.clone()).unwrap_or_default(),
            why,
        }]
    };
    // The name has the digest, which the name does not change.
    let digest = Op::new(def.clone()).map_err(|e| problem(e.to_string()))?.digest().to_string();
    let short: String = digest.chars().skip_while(|&c| c != '-').skip(1).take(8).collect();
    let name = format!("{}_{short}", described(flat, piece));
    let op = Op::new(OpDef { name, ..def }).map_err(|e| problem(e.to_string()))?;
    let stride = sizes.stride.unwrap_or(1);
    op.at(&op_shape(input, sizes.c_out, stride)).map_err(|e| problem(e.to_string()))?;
    Ok(Arc::new(op))
}

/// The variables of an op at a piece's shape.
struct Sizes {
    c_in: u32,
    c_out: u32,
    /// The stride, if the op has one.
    stride: Option<u32>,
}

impl Sizes {
    /// A number of channels.
    fn channels(&self, number: u32) -> Size {
        if number == self.c_out {
            return Size::of(Variable::COut);
        }
        if number == self.c_in {
            return Size::of(Variable::CIn);
        }
        let multiple = |variable: Variable, of: u32| {
            let common = gcd(number, of);
            let (numerator, denominator) = (number / common, of / common);
            (numerator <= MOST_RATIO && denominator <= MOST_RATIO).then_some(Size::Multiple {
                variable,
                numerator,
                denominator,
            })
        };
        // A picture has few channels, of which anything would be a multiple.
        let of_in = (self.c_in > 4).then(|| multiple(Variable::CIn, self.c_in)).flatten();
        multiple(Variable::COut, self.c_out).or(of_in).unwrap_or(Size::Number(number))
    }

    /// A number of groups: 1, or one that grows with the channels.
    fn groups(&self, number: u32) -> Size {
        if number == 1 { Size::Number(1) } else { self.channels(number) }
    }

    /// A number of heads, whose size stays.
    fn heads(&self, number: u32) -> Size {
        match self.c_in.is_multiple_of(number) {
            true => Size::Multiple {
                variable: Variable::CIn,
                numerator: 1,
                denominator: self.c_in / number,
            },
            false => Size::Number(number),
        }
    }

    fn stride(&self, stride: Pair<u32>) -> Pair<Size> {
        let size = |number: u32| match self.stride {
            Some(stride) if stride == number => Size::of(Variable::Stride),
            _ => Size::Number(number),
        };
        if stride.h == stride.w { Pair::square(size(stride.h)) } else { fixed(stride) }
    }
}

fn fixed(pair: Pair<u32>) -> Pair<Size> {
    Pair { h: Size::Number(pair.h), w: Size::Number(pair.w) }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The stride that a piece has as an op: that of its steps with a stride, or that of its only layer with one.
fn stride_of(flat: &Flat, piece: &Piece) -> Option<u32> {
    // A stride is at most the size of the op's input, which a map inside the op can exceed.
    let most = match piece.input_shape(flat) {
        TensorShape::Map { h, w, .. } => h.min(w),
        TensorShape::Tokens { .. } => 1,
    };
    let strides = piece.steps.iter().filter_map(|&step| square_stride(primitive(flat, step)));
    let strides = strides.filter(|&stride| stride <= most);
    let one = |&&step: &&usize| matches!(primitive(flat, step), Primitive::Conv2d { stride, .. } if *stride == Pair::square(1));
    let layers = piece.steps.iter().filter(one).count();
    strides.max().or_else(|| (layers == 1 && piece.steps.len() <= 3).then_some(1))
}

fn node(flat: &Flat, piece: &Piece, step: usize, sizes: &Sizes) -> Node {
    let id = |step: usize| format!("n{}", piece.steps.iter().position(|&s| s == step).unwrap_or(0));
    let inputs = flat.steps[step].inputs.iter().map(|&source| match source {
        source if source == piece.entry() => "input".to_owned(),
        Source::Input => "input".to_owned(),
        Source::Step(step) => id(step),
    });
    Node {
        id: Some(id(step)),
        inputs: Some(inputs.collect()),
        when: None,
        apply: sized(primitive(flat, step), sizes),
    }
}

/// A primitive with sizes that follow the op's shape.
fn sized(primitive: &Primitive<u32>, sizes: &Sizes) -> Primitive {
    let mut general = primitive.clone().numbered();
    match (&mut general, primitive) {
        (
            Primitive::Conv2d { out, stride, groups, .. },
            Primitive::Conv2d { out: width, stride: by, groups: into, .. },
        )
        | (
            Primitive::ConvTranspose2d { out, stride, groups, .. },
            Primitive::ConvTranspose2d { out: width, stride: by, groups: into, .. },
        ) => {
            *out = sizes.channels(*width);
            *stride = sizes.stride(*by);
            *groups = sizes.groups(*into);
        }
        (
            Primitive::Conv1d { out, groups, .. },
            Primitive::Conv1d { out: width, groups: into, .. },
        ) => {
            *out = sizes.channels(*width);
            *groups = sizes.groups(*into);
        }
        (
            Primitive::MaxPool { stride, .. } | Primitive::AvgPool { stride, .. },
            Primitive::MaxPool { stride: by, .. } | Primitive::AvgPool { stride: by, .. },
        ) => *stride = sizes.stride(*by),
        (Primitive::Linear { out, .. }, Primitive::Linear { out: width, .. })
        | (Primitive::Embedding { out, .. }, Primitive::Embedding { out: width, .. }) => {
            *out = sizes.channels(*width);
        }
        (
            Primitive::SqueezeExcite { squeeze, .. },
            Primitive::SqueezeExcite { squeeze: width, .. },
        ) => {
            *squeeze = sizes.channels(*width);
        }
        (Primitive::SelfAttention { heads }, Primitive::SelfAttention { heads: number })
        | (
            Primitive::WindowAttention { heads, .. },
            Primitive::WindowAttention { heads: number, .. },
        )
        | (Primitive::Rotary { heads }, Primitive::Rotary { heads: number }) => {
            *heads = sizes.heads(*number);
        }
        _ => {}
    }
    general
}

/// A name for people: the layer and what follows it, or the number of primitives.
fn described(flat: &Flat, piece: &Piece) -> String {
    let names: Vec<String> = piece.steps.iter().map(|&step| title(primitive(flat, step))).collect();
    match &names[..] {
        [] => "Identity".to_owned(),
        names if names.len() <= 3 => names.join("_").chars().take(36).collect(),
        names => format!("Block{}", names.len()),
    }
}

fn title(primitive: &Primitive<u32>) -> String {
    let word = primitive.name().split('_').map(|part| {
        let mut letters = part.chars();
        letters.next().map_or(String::new(), |first| {
            first.to_ascii_uppercase().to_string() + letters.as_str()
        })
    });
    let word: String = word.collect();
    match primitive {
        Primitive::Conv2d { kernel, groups, .. } => {
            let kind = if *groups > 1 { "GroupConv" } else { "Conv" };
            format!("{kind}{}x{}", kernel.h, kernel.w)
        }
        Primitive::MaxPool { kernel, .. } | Primitive::AvgPool { kernel, .. } => {
            format!("{word}{}x{}", kernel.h, kernel.w)
        }
        _ => word,
    }
}
