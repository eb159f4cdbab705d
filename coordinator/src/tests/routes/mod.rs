//! Calls to routes, as clients make them. Each file is about one resource.

mod agents;
mod bad_boxes;
mod bodies;
mod bounds;
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
mod presence;
mod requests;
mod results;
mod streams;
mod tables;
mod tokens;
