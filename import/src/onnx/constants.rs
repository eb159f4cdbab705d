//! Operators of ONNX that make constants.

use super::call::Call;
use super::proto::{AttributeValue, Tensor};
use crate::error::{Step, malformed, unsupported};
use crate::fold::OnConstants;
use crate::graph::{Kind, ValueId};
use crate::shapes;

impl Call<'_, '_> {
    fn made(&mut self, dims: Vec<u64>, kind: Kind, numbers: Option<Vec<f64>>) -> Step<ValueId> {
        let name = self.builder.here();
        Ok(self.builder.made(&name, dims, kind, numbers)?)
    }

    fn stored(&mut self, tensor: &Tensor) -> Step<ValueId> {
        let name = self.builder.here();
        Ok(self.store.constant(self.builder, &name, tensor)?)
    }

    pub(super) fn constant(&mut self) -> Step<ValueId> {
        let value = self.attributes.first().map(|(_, value)| *value);
        let list = |n: usize| vec![n as u64];
        match value {
            Some(AttributeValue::Tensor(tensor)) => self.stored(tensor),
            Some(AttributeValue::Float(number)) => {
                self.made(Vec::new(), Kind::Float, Some(vec![*number]))
            }
            Some(AttributeValue::Integer(number)) => {
                self.made(Vec::new(), Kind::Integer, Some(vec![*number as f64]))
            }
            Some(AttributeValue::Floats(numbers)) => {
                self.made(list(numbers.len()), Kind::Float, Some(numbers.clone()))
            }
            Some(AttributeValue::Integers(numbers)) => {
                let numbers: Vec<f64> = numbers.iter().map(|&n| n as f64).collect();
                self.made(list(numbers.len()), Kind::Integer, Some(numbers))
            }
            Some(AttributeValue::Text(_) | AttributeValue::Other) | None => {
                unsupported("a constant that is no tensor of numbers")
            }
        }
    }

    /// Dimensions of the input, or a part of them.
    pub(super) fn shape(&mut self) -> Step<ValueId> {
        let dims = self.builder.dims(self.need(0)?).to_vec();
        let limit = |at: i64| {
            let from_start =
                if at < 0 { at.saturating_add_unsigned(dims.len() as u64) } else { at };
            usize::try_from(from_start).unwrap_or(0).min(dims.len())
        };
        let (start, end) = (limit(self.int("start", 0)?), limit(self.int("end", i64::MAX)?));
        let part: Vec<f64> = dims[start..end.max(start)].iter().map(|&d| d as f64).collect();
        self.made(vec![part.len() as u64], Kind::Integer, Some(part))
    }

    pub(super) fn size(&mut self) -> Step<ValueId> {
        let count = shapes::count(self.builder.dims(self.need(0)?));
        let numbers = count.map(|count| vec![count as f64]);
        self.made(Vec::new(), Kind::Integer, numbers)
    }

    pub(super) fn constant_of_shape(&mut self) -> Step<ValueId> {
        let sizes = self.builder.list(self.need(0)?, "its shape")?;
        let Some(dims) = sizes.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<u64>>>()
        else {
            return malformed(format!("its shape is {sizes:?}"));
        };
        let (number, kind) = match self.any("value") {
            Some(AttributeValue::Tensor(tensor)) => {
                let stored = self.stored(tensor)?;
                (self.builder.number(stored), self.builder.value(stored).kind)
            }
            _ => (Some(0.0), Kind::Float),
        };
        self.builder.filled(dims, kind, number)
    }

    pub(super) fn range(&mut self) -> Step<ValueId> {
        let all = self.all()?;
        let numbers: Option<Vec<f64>> = all.iter().map(|&id| self.builder.number(id)).collect();
        let Some([start, limit, step]) = numbers.as_deref() else {
            return unsupported("its limits are computed, or not in the file");
        };
        let kind = self.builder.value(all[0]).kind;
        let (start, limit, step) = (*start, *limit, *step);
        self.builder.range(start, limit, step, kind)
    }

    pub(super) fn trilu(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let diagonal = match self.input(1) {
            Some(id) => self.builder.list(id, "its diagonal")?.first().copied().unwrap_or(0),
            None => 0,
        };
        let upper = self.int("upper", 1)? != 0;
        self.builder.on_constants(&OnConstants::Triangle { upper, diagonal }, &[x])
    }
}
