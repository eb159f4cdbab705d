//! Operators of `aten` that make constants.

use super::call::Call;
use crate::error::Step;
use crate::graph::ValueId;

impl Call<'_, '_> {
    /// The same number everywhere, or one that nobody knows.
    pub(super) fn full(&mut self, number: Option<f64>) -> Step<ValueId> {
        let (dims, kind) = (self.dims(), self.kind());
        self.builder.filled(dims, kind, number)
    }

    pub(super) fn arange(&mut self) -> Step<ValueId> {
        let (start, end) = (self.float("start", 0.0)?, self.float("end", 0.0)?);
        let step = self.float("step", 1.0)?;
        let kind = self.kind();
        self.builder.range(start, end, step, kind)
    }
}
