//! Calls to routes, as clients make them. Each file is about one resource.

mod agents;
mod boxes;
mod conventions;
mod leases;
mod limits;
mod metrics;
mod networks;
mod ops;
mod predict;
mod presence;
mod requests;
mod results;
mod tables;
mod tokens;
