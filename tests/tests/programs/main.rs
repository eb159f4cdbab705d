//! The programs together, and the farm's rules in a simulated world. One test program: linking one for each topic
//! takes minutes.

#![allow(clippy::unwrap_used, reason = "these are tests")]

mod bad_input;
mod documents;
mod faults;
mod fuzz_seeds;
mod gpu_check;
mod one_box;
mod operating;
mod presence;
mod reading;
mod restore;
mod simulated;
mod simulation;
mod whole_loop;
