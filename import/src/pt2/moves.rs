//! Operators of `aten` that move elements. The file has the dimensions of all their results.

use super::call::Call;
use crate::build::dimensions::{axes, axis, smalls};
use crate::error::{Step, malformed, unsupported};
use crate::fold::OnConstants;
use crate::graph::{Binary, Kind, Operation, ValueId};

impl Call<'_, '_> {
    pub(super) fn moves(&mut self, name: &str) -> Step<ValueId> {
        match name {
            "view" | "reshape" | "_unsafe_view" | "_reshape_alias" | "flatten" | "unflatten"
            | "squeeze" | "unsqueeze" | "view_as" | "reshape_as" => {
                let (x, dims) = (self.first()?, self.dims());
                self.builder.reshape(x, &dims)
            }
            "as_strided" => self.strided(),
            "expand" | "expand_as" | "broadcast_to" => {
                let (x, dims) = (self.first()?, self.dims());
                self.builder.expand(x, &dims)
            }
            "permute" | "transpose" | "swapaxes" | "t" | "numpy_T" | "mT" | "movedim" => {
                self.reordered(name)
            }
            "clone" | "contiguous" | "alias" | "detach" | "lift_fresh_copy" | "lift_fresh"
            | "positive" | "to" | "_to_copy" | "type_as" | "float" | "half" | "double" => {
                self.converted()
            }
            "copy" => {
                let (source, dims) = (self.need("src")?, self.dims());
                self.builder.expand(source, &dims)
            }
            "cat" | "concat" | "concatenate" | "stack" => self.joined(name == "stack"),
            "slice" | "select" | "narrow" => self.part(name),
            "index" | "index_select" => self.indexed(name),
            "repeat" | "tile" => self.repeated(name),
            "constant_pad_nd" | "pad" => self.padded(),
            "roll" => self.rolled(),
            _ => self.constant(name),
        }
    }

    /// A view by distances in memory, where that is the value itself: core ATen has it after a mean over a map.
    fn strided(&mut self) -> Step<ValueId> {
        let (x, dims, strides) = (self.first()?, self.dims(), self.ints("stride")?);
        let is_moved = self.builder.producer(x).is_some_and(|node| {
            matches!(
                node.operation,
                Operation::Permute { .. } | Operation::Expand | Operation::Slice { .. }
            )
        });
        let mut distance = 1;
        let mut in_order = strides.len() == dims.len() && self.int("storage_offset", 0)? == 0;
        for (&size, &stride) in dims.iter().zip(&strides).rev().filter(|&(&size, _)| size != 1) {
            in_order &= u64::try_from(stride) == Ok(distance);
            distance = distance.saturating_mul(size);
        }
        let larger = |dims: &[u64]| dims.iter().copied().filter(|&d| d != 1).collect::<Vec<_>>();
        if is_moved || !in_order || larger(&dims) != larger(self.builder.dims(x)) {
            return unsupported("a view by distances in memory, which is not the whole value");
        }
        self.builder.reshape(x, &dims)
    }

    fn reordered(&mut self, name: &str) -> Step<ValueId> {
        let x = self.first()?;
        let rank = self.builder.rank(x);
        let all = |list: &[i64]| list.iter().map(|&n| axis(n, rank)).collect::<Step<Vec<_>>>();
        let (one, other) = match name {
            "permute" => {
                let order = all(&self.ints("dims")?)?;
                return self.builder.permute(x, order);
            }
            "movedim" => {
                let (from, to) = (all(&self.ints("source")?)?, all(&self.ints("destination")?)?);
                let mut order: Vec<usize> = (0..rank).filter(|i| !from.contains(i)).collect();
                let mut pairs: Vec<(usize, usize)> = to.into_iter().zip(from).collect();
                pairs.sort_unstable();
                for (to, from) in pairs {
                    order.insert(to.min(order.len()), from);
                }
                return self.builder.permute(x, order);
            }
            "numpy_T" => return self.builder.permute(x, (0..rank).rev().collect()),
            "t" if rank < 2 => return Ok(x),
            "t" => (0, 1),
            "mT" if rank >= 2 => (rank - 2, rank - 1),
            "swapaxes" => (axis(self.int("axis0", 0)?, rank)?, axis(self.int("axis1", 1)?, rank)?),
            _ => (axis(self.int("dim0", 0)?, rank)?, axis(self.int("dim1", 1)?, rank)?),
        };
        self.builder.transpose(x, one, other)
    }

    /// Its input in another type or another memory. Between types of one kind nothing changes.
    fn converted(&mut self) -> Step<ValueId> {
        let (x, kind) = (self.first()?, self.kind());
        match self.builder.value(x).kind == kind {
            true => Ok(x),
            false => self.builder.on_constants(&OnConstants::Cast(kind), &[x]),
        }
    }

    fn joined(&mut self, stacked: bool) -> Step<ValueId> {
        let tensors = self.tensors("tensors")?.into_iter().flatten();
        let dim = self.int("dim", 0)?;
        if stacked {
            let raised: Vec<ValueId> =
                tensors.map(|x| self.builder.unsqueeze(x, &[dim])).collect::<Step<_>>()?;
            let at = axis(dim, self.dims().len())?;
            return self.builder.concat(&raised, at);
        }
        // Empty tensors of one dimension are passed over, as a rule from old times.
        let parts: Vec<ValueId> = tensors.filter(|&x| self.builder.dims(x) != [0]).collect();
        let at = axis(dim, self.dims().len())?;
        self.builder.concat(&parts, at)
    }

    fn part(&mut self, name: &str) -> Step<ValueId> {
        let x = self.first()?;
        let at = axis(self.int("dim", 0)?, self.builder.rank(x))?;
        match name {
            "select" => {
                let index = self.int("index", 0)?;
                self.builder.select(x, at, index)
            }
            "narrow" => {
                let (start, length) = (self.int("start", 0)?, self.int("length", 0)?);
                self.builder.slice(x, at, (start, start.saturating_add(length), 1))
            }
            _ => {
                let range =
                    (self.int("start", 0)?, self.int("end", i64::MAX)?, self.int("step", 1)?);
                self.builder.slice(x, at, range)
            }
        }
    }

    /// Parts along a dimension. Their lengths are those of the outputs.
    pub(super) fn parts(&mut self, name: &str) -> Step<Vec<ValueId>> {
        let x = self.first()?;
        let at = axis(self.int("dim", 0)?, self.builder.rank(x))?;
        if name == "unbind" {
            let count = i64::try_from(self.outputs.len()).unwrap_or(i64::MAX);
            return (0..count).map(|i| self.builder.select(x, at, i)).collect();
        }
        let length = |(dims, _): &(Vec<u64>, Kind)| dims.get(at).copied();
        match self.outputs.iter().map(length).collect::<Option<Vec<u64>>>() {
            Some(lengths) => self.builder.split(x, at, &lengths),
            None => malformed("its outputs have fewer dimensions than its input"),
        }
    }

    /// Positions of a value, or rows of a table.
    fn indexed(&mut self, name: &str) -> Step<ValueId> {
        let x = self.first()?;
        let (at, positions) = if name == "index_select" {
            (axis(self.int("dim", 0)?, self.builder.rank(x))?, self.need("index")?)
        } else {
            let list = self.tensors("indices")?;
            if list.len() == self.builder.rank(x)
                && let Some(all) = list.iter().copied().collect::<Option<Vec<ValueId>>>()
                && all.len() > 1
                && all.iter().all(|&id| self.builder.value(id).kind == Kind::Integer)
            {
                let inputs: Vec<ValueId> = [x].into_iter().chain(all).collect();
                return self.builder.on_constants(&OnConstants::Elements, &inputs);
            }
            let at = list.iter().position(Option::is_some);
            let several = list.iter().flatten().count() != 1;
            let Some((at, Some(positions))) = at.map(|at| (at, list[at])).filter(|_| !several)
            else {
                return unsupported("positions of several dimensions");
            };
            (at, positions)
        };
        if self.builder.value(positions).kind != Kind::Integer || at >= self.builder.rank(x) {
            return unsupported("elements that are chosen by a mask");
        }
        let constant = |id: ValueId| self.builder.is_constant(id);
        match (constant(x), constant(positions)) {
            (true, true) => self.builder.on_constants(&OnConstants::Gather(at), &[x, positions]),
            (true, false) if at == 0 && self.builder.rank(x) == 2 => {
                self.builder.apply(Operation::Embedding, &[x, positions])
            }
            (true, false) => unsupported("positions that are computed: rows of a table are read"),
            (false, _) => self.builder.positions(x, at, positions),
        }
    }

    /// Differences of neighbours along a dimension.
    pub(super) fn differences(&mut self) -> Step<ValueId> {
        let mut x = self.first()?;
        let axis = axis(self.int("dim", -1)?, self.builder.rank(x))?;
        if self.int("n", 1)? != 1 || self.tensor("append")?.is_some() {
            return unsupported("differences of differences");
        }
        if let Some(before) = self.tensor("prepend")? {
            x = self.builder.concat(&[before, x], axis)?;
        }
        let Some(length) = self.builder.dims(x)[axis].checked_sub(1) else {
            return unsupported("differences of nothing");
        };
        let length = i64::try_from(length).unwrap_or(i64::MAX);
        let later = self.builder.slice(x, axis, (1, length + 1, 1))?;
        let earlier = self.builder.slice(x, axis, (0, length, 1))?;
        self.builder.apply(Operation::Binary(Binary::Sub), &[later, earlier])
    }

    fn repeated(&mut self, name: &str) -> Step<ValueId> {
        let list = self.ints(if name == "tile" { "dims" } else { "repeats" })?;
        let Some(mut repeats) =
            list.iter().map(|&n| u64::try_from(n).ok()).collect::<Option<Vec<u64>>>()
        else {
            return malformed(format!("the repeats {list:?}"));
        };
        let mut x = self.first()?;
        let own = self.builder.dims(x).to_vec();
        while repeats.len() < own.len() {
            repeats.insert(0, 1);
        }
        x = self.builder.reshape(x, &[vec![1; repeats.len() - own.len()], own].concat())?;
        self.builder.tile(x, repeats)
    }

    /// Zeros around a value. The list begins with the last dimension.
    fn padded(&mut self) -> Step<ValueId> {
        let x = self.first()?;
        let pads = self.ints("pad")?;
        let rank = self.builder.rank(x);
        if pads.len() % 2 != 0 || pads.len() / 2 > rank {
            return malformed(format!("its padding is {pads:?}"));
        }
        if pads.iter().all(|&pad| pad == 0) {
            return Ok(x);
        }
        let mode = self.text("mode", "constant")?;
        if mode != "constant" {
            return unsupported(format!("padding of the mode `{mode}`: a constant is read"));
        }
        let number = self.float("value", 0.0)?;
        if pads.iter().any(|&pad| pad < 0) {
            return unsupported("a negative padding");
        }
        let (mut before, mut after) = (vec![0; rank], vec![0; rank]);
        for (i, pair) in smalls(&pads)?.chunks_exact(2).enumerate() {
            (before[rank - 1 - i], after[rank - 1 - i]) = (pair[0], pair[1]);
        }
        self.builder.pad(x, before, after, number)
    }

    fn rolled(&mut self) -> Step<ValueId> {
        let (x, shifts, dims) = (self.first()?, self.ints("shifts")?, self.ints("dims")?);
        let rank = self.builder.rank(x);
        if dims.is_empty() || dims.len() != shifts.len() {
            return unsupported("a roll of the flattened value");
        }
        axes(&dims, rank)?;
        let pairs = dims.iter().zip(&shifts).map(|(&dim, &shift)| Ok((axis(dim, rank)?, shift)));
        let shifts: Vec<(usize, i64)> = pairs.collect::<Step<_>>()?;
        self.builder.apply(Operation::Roll { shifts }, &[x])
    }
}
