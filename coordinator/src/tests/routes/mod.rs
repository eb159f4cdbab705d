//! Calls to routes, as clients make them. Each file is about one resource.

mod agents;
mod bounds;
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
mod streams;
mod tables;
mod tokens;
