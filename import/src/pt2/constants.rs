//! Operators of `aten` that make constants.

use super::call::Call;
use crate::error::Step;
use crate::fold::MOST_NUMBERS;
use crate::graph::ValueId;
use crate::shapes;

impl Call<'_, '_> {
    /// The same number everywhere, or one that nobody knows.
    pub(super) fn full(&mut self, number: Option<f64>) -> Step<ValueId> {
        let (dims, kind, name) = (self.dims(), self.kind(), self.builder.here());
        let count = shapes::count(&dims).filter(|&n| n <= MOST_NUMBERS);
        let numbers = number.zip(count.and_then(|n| usize::try_from(n).ok()));
        let numbers = numbers.map(|(number, count)| vec![number; count]);
        Ok(self.builder.constant(&name, dims, kind, numbers)?)
    }

    pub(super) fn arange(&mut self) -> Step<ValueId> {
        let (start, end) = (self.float("start", 0.0)?, self.float("end", 0.0)?);
        let step = self.float("step", 1.0)?;
        let kind = self.kind();
        self.builder.range(start, end, step, kind)
    }
}
