//! Calls to routes, as clients make them. Each file is about one resource.

mod agents;
mod bad_boxes;
mod boxes;
mod clocks;
mod conventions;
mod leases;
mod limits;
mod metrics;
mod networks;
mod one_box;
mod ops;
mod predict;
mod requests;
mod results;
mod tables;
mod tokens;
