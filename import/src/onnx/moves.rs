//! Operators of ONNX that move elements.

use super::call::Call;
use crate::build::dimensions::{axes, axis, smalls};
use crate::error::{Step, Stop, malformed, unsupported};
use crate::fold::OnConstants;
use crate::graph::{Kind, Operation, ValueId};
use crate::shapes;

impl Call<'_, '_> {
    pub(super) fn reshape(&mut self) -> Step<ValueId> {
        let (x, sizes) = (self.need(0)?, self.need(1)?);
        let sizes = self.builder.list(sizes, "its shape")?;
        let zero_copies = self.int("allowzero", 0)? == 0;
        self.builder.reshape_as(x, &sizes, zero_copies)
    }

    /// Two dimensions: those before an axis, and the others.
    pub(super) fn flatten(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let dims = self.builder.dims(x);
        // The axis may lie behind the last dimension.
        let at = axis(self.int("axis", 1)?, dims.len() + 1)?;
        let sizes = [&dims[..at], &dims[at..]].map(shapes::count);
        let [Some(rows), Some(columns)] = sizes else { return malformed("it is too large") };
        self.builder.reshape(x, &[rows, columns])
    }

    pub(super) fn squeeze(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let list = self.list("axes", 1)?;
        let rank = self.builder.rank(x);
        let which = list.map(|list| axes(&list, rank)).transpose()?;
        self.builder.squeeze(x, which.as_deref())
    }

    pub(super) fn unsqueeze(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        match self.list("axes", 1)? {
            Some(list) => self.builder.unsqueeze(x, &list),
            None => malformed("it has no axes"),
        }
    }

    pub(super) fn transpose(&mut self) -> Step<ValueId> {
        let x = self.need(0)?;
        let rank = self.builder.rank(x);
        let order = match self.ints("perm")? {
            Some(list) => list.iter().map(|&n| axis(n, rank)).collect::<Step<_>>()?,
            None => (0..rank).rev().collect(),
        };
        self.builder.permute(x, order)
    }

    pub(super) fn expand(&mut self) -> Step<ValueId> {
        let (x, sizes) = (self.need(0)?, self.need(1)?);
        let sizes = self.builder.list(sizes, "its shape")?;
        let wanted = sizes.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<u64>>>();
        let dims = wanted.and_then(|wanted| shapes::broadcast(self.builder.dims(x), &wanted));
        match dims {
            Some(dims) => self.builder.expand(x, &dims),
            None => malformed(format!("{:?} cannot become {sizes:?}", self.builder.dims(x))),
        }
    }

    pub(super) fn concat(&mut self) -> Step<ValueId> {
        let all = self.all()?;
        let rank = all.first().map_or(0, |&id| self.builder.rank(id));
        let at = axis(self.int("axis", 0)?, rank)?;
        self.builder.concat(&all, at)
    }

    pub(super) fn split(&mut self) -> Step<Vec<ValueId>> {
        let x = self.need(0)?;
        let at = axis(self.int("axis", 0)?, self.builder.rank(x))?;
        let length = self.builder.dims(x)[at];
        let lengths = match self.list("split", 1)? {
            Some(list) => {
                let lengths =
                    list.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<u64>>>();
                lengths.ok_or_else(|| Stop::Malformed(format!("the lengths {list:?}")))?
            }
            None => {
                let parts = u64::try_from(self.int("num_outputs", 0)?).unwrap_or(0);
                let parts = if parts == 0 { self.outputs as u64 } else { parts };
                if parts == 0 || parts > self.outputs as u64 {
                    return malformed(format!(
                        "it has {} outputs, and {parts} parts",
                        self.outputs
                    ));
                }
                // The last part is the shorter one.
                let part = length.div_ceil(parts);
                (0..parts).map(|i| part.min(length.saturating_sub(i * part))).collect()
            }
        };
        self.builder.split(x, at, &lengths)
    }

    pub(super) fn slice(&mut self) -> Step<ValueId> {
        let mut x = self.need(0)?;
        let list = |i: usize, name: &str| {
            self.input(i).map(|id| self.builder.list(id, &format!("its `{name}`"))).transpose()
        };
        let (Some(starts), Some(ends)) = (list(1, "starts")?, list(2, "ends")?) else {
            return malformed("it has no starts and ends");
        };
        let rank = self.builder.rank(x);
        let which = match list(3, "axes")? {
            Some(list) => list,
            None => (0..starts.len()).map(|i| i as i64).collect(),
        };
        let steps = list(4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), which.len(), steps.len()] != [starts.len(); 3] {
            return malformed("its starts, ends, axes and steps have different lengths");
        }
        axes(&which, rank)?;
        for (i, &at) in which.iter().enumerate() {
            x = self.builder.slice(x, axis(at, rank)?, (starts[i], ends[i], steps[i]))?;
        }
        Ok(x)
    }

    /// Positions of a computed value, or rows of a table.
    pub(super) fn gather(&mut self) -> Step<ValueId> {
        let (x, positions) = (self.need(0)?, self.need(1)?);
        let at = axis(self.int("axis", 0)?, self.builder.rank(x))?;
        if self.builder.is_constant(x) && self.builder.is_constant(positions) {
            return self.builder.on_constants(&OnConstants::Gather(at), &[x, positions]);
        }
        if self.builder.is_constant(x) {
            let whole = self.builder.value(positions).kind == Kind::Integer;
            if at != 0 || self.builder.rank(x) != 2 || !whole {
                return unsupported("positions that are computed: rows of a table are read");
            }
            return self.builder.apply(Operation::Embedding, &[x, positions]);
        }
        self.builder.positions(x, at, positions)
    }

    /// Elements of a constant: one for each position along an axis, or slices of its first dimension.
    pub(super) fn gather_constants(&mut self, slices: bool) -> Step<ValueId> {
        let (x, positions) = (self.need(0)?, self.need(1)?);
        let rank = self.builder.rank(x);
        if !slices {
            let along = OnConstants::Along(axis(self.int("axis", 0)?, rank)?);
            return self.builder.on_constants(&along, &[x, positions]);
        }
        let dims = self.builder.dims(positions).to_vec();
        let Some((&1, places)) = dims.split_last().filter(|_| rank > 0) else {
            return unsupported("positions of several dimensions");
        };
        if self.int("batch_dims", 0)? != 0 {
            return unsupported("positions for each element of a batch");
        }
        let positions = self.builder.reshape(positions, places)?;
        self.builder.on_constants(&OnConstants::Gather(0), &[x, positions])
    }

    pub(super) fn pad(&mut self) -> Step<ValueId> {
        let (x, pads) = (self.need(0)?, self.need(1)?);
        let pads = self.builder.list(pads, "its padding")?;
        let rank = self.builder.rank(x);
        let which = match self.input(3) {
            Some(id) => {
                let list = self.builder.list(id, "its axes")?;
                list.iter().map(|&n| axis(n, rank)).collect::<Step<Vec<_>>>()?
            }
            None => (0..rank).collect(),
        };
        if pads.len() != 2 * which.len() {
            return malformed(format!("its padding is {pads:?}"));
        }
        if pads.iter().all(|&pad| pad == 0) {
            return Ok(x);
        }
        let mode = self.text("mode", "constant")?;
        if mode != "constant" {
            return unsupported(format!("padding of the mode `{mode}`: a constant is read"));
        }
        let number = self.input(2).map_or(Some(0.0), |value| self.builder.number(value));
        let Some(number) = number else {
            return unsupported("padding with a number that is computed, or not in the file");
        };
        if pads.iter().any(|&pad| pad < 0) {
            return unsupported("a negative padding");
        }
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        let pads = smalls(&pads)?;
        for (i, &at) in which.iter().enumerate() {
            (before[at], after[at]) = (pads[i], pads[which.len() + i]);
        }
        self.builder.pad(x, before, after, number)
    }

    pub(super) fn tile(&mut self) -> Step<ValueId> {
        let (x, repeats) = (self.need(0)?, self.need(1)?);
        let list = self.builder.list(repeats, "its repeats")?;
        let Some(repeats) =
            list.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<u64>>>()
        else {
            return malformed(format!("the repeats {list:?}"));
        };
        self.builder.tile(x, repeats)
    }
}
