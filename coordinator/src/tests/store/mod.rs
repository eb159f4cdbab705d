//! What lasts: the database file, work that is shared out, rows and the view.

mod canaries;
mod derived;
mod durable;
mod open;
mod tokens;
mod view;
mod work;
