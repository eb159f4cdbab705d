//! Tests of the whole coordinator on a real database file: `routes` calls the routes as clients do and compares whole
//! answers, `store` checks persistent data, and `serve` checks the background tasks.

pub mod harness;
mod routes;
mod serve;
mod store;
