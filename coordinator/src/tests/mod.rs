//! Tests of the whole coordinator on a real database file: `routes` call the routes as clients do and
//! look at whole answers, `store` looks at what lasts, `serve` at what runs in the background.

pub mod harness;
mod routes;
mod serve;
mod store;
