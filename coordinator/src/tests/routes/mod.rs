//! Calls to routes, as clients make them. Each file is about one resource.

mod agent_identity;
mod agent_states;
mod agents;
mod bodies;
mod bounds;
mod clocks;
mod conventions;
mod failing_agents;
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
