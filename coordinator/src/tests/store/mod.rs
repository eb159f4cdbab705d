//! Persistent data: the database file, work that is handed out, rows and the view.

mod alarms;
mod canaries;
mod derived;
mod durable;
mod effects;
mod expiry;
mod open;
mod plans;
mod tokens;
mod unreadable;
mod view;
mod work;
