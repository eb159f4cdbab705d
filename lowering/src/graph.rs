//! Graphs of steps, and the order in which values are made, read and freed.

use tch::{TchError, Tensor};

use crate::primitive::Argument;

/// Where the executor finds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    Input,
    Temporary(usize),
}

/// A step with its wires resolved to slots.
#[derive(Debug)]
pub(crate) struct Wired<T> {
    pub(crate) run: T,
    pub(crate) inputs: Vec<Slot>,
    /// First of its output slots.
    pub(crate) output: usize,
    /// Slots that nothing reads after this step.
    pub(crate) freed: Vec<usize>,
}

/// Fills in which slots each step is the last to read. The result is read after the last step. A
/// slot that is read twice by one step is left alone: it can be handed over only once.
pub(crate) fn mark_last_uses<T>(steps: &mut [Wired<T>], result: Slot) {
    let mut seen: Vec<usize> = match result {
        Slot::Temporary(slot) => vec![slot],
        Slot::Input => vec![],
    };
    for step in steps.iter_mut().rev() {
        for input in &step.inputs {
            if let Slot::Temporary(slot) = *input
                && !seen.contains(&slot)
            {
                seen.push(slot);
                if step.inputs.iter().filter(|&other| other == input).count() == 1 {
                    step.freed.push(slot);
                }
            }
        }
    }
}

/// Runs wired steps over an input. With `hand_over`, a step owns the values that nothing reads after
/// it, and frees or overwrites them; without it, all values live to the end.
pub(crate) fn execute<T>(
    steps: &[Wired<T>],
    slots: usize,
    result: Slot,
    input: &Tensor,
    hand_over: bool,
    run: impl Fn(&T, Vec<Argument>) -> Result<Vec<Tensor>, TchError>,
) -> Result<Tensor, TchError> {
    let mut values: Vec<Option<Tensor>> = Vec::new();
    values.resize_with(slots, || None);
    for step in steps {
        // Values with their last use here are handed over; the others are lent. Taking comes first, so that lending can
        // borrow the rest.
        let mut owned: Vec<Option<Tensor>> = step
            .inputs
            .iter()
            .map(|slot| match *slot {
                Slot::Temporary(slot) if hand_over && step.freed.contains(&slot) => {
                    values[slot].take()
                }
                _ => None,
            })
            .collect();
        let arguments = step
            .inputs
            .iter()
            .zip(&mut owned)
            .map(|(slot, owned)| match (owned.take(), *slot) {
                (Some(tensor), _) => Argument::Owned(tensor),
                (None, Slot::Input) => Argument::Shared(input),
                (None, Slot::Temporary(slot)) => Argument::Shared(
                    values[slot].as_ref().expect("a step reads what an earlier step wrote"),
                ),
            })
            .collect();
        let outputs = run(&step.run, arguments)?;
        for (offset, output) in outputs.into_iter().enumerate() {
            values[step.output + offset] = Some(output);
        }
    }
    Ok(match result {
        Slot::Input => input.shallow_clone(),
        Slot::Temporary(slot) => values[slot].take().expect("the result was written"),
    })
}
