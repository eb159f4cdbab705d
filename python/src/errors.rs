//! The exceptions of the package.

use latlas_client::ClientError;
use latlas_files::Unreadable;
use latlas_shared::MissingOp;
use pyo3::call::PyCallArgs;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// An exception class of `latlas/_support.py`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
pub(crate) enum Class {
    CoordinatorError,
    Error,
    FileError,
    MissingRows,
    NetworkError,
    TableError,
    UnknownKey,
    UsageError,
}

impl Class {
    /// An exception of this class, with its message.
    pub(crate) fn with(self, py: Python<'_>, message: impl ToString) -> PyErr {
        self.made(py, (message.to_string(),))
    }

    fn made<'py>(self, py: Python<'py>, args: impl PyCallArgs<'py>) -> PyErr {
        let made = py
            .import("latlas._support")
            .and_then(|module| module.getattr(<&str>::from(self)))
            .and_then(|class| class.call1(args));
        made.map_or_else(|error| error, PyErr::from_value)
    }
}

/// The exception for a file: `content` says what is wrong unless the file cannot be read at all.
pub(crate) fn of_file(py: Python<'_>, content: Class, error: &anyhow::Error) -> PyErr {
    let class = if error.is::<Unreadable>() { Class::FileError } else { content };
    class.with(py, format!("{error:#}"))
}

/// The exception for a failed call, with more to say about it where there is more.
pub(crate) fn of_call(
    py: Python<'_>,
    error: &ClientError,
    token_sent: bool,
    more: Option<&str>,
) -> PyErr {
    let mut message = error.to_string();
    for part in [error.remedy(token_sent), more].into_iter().flatten() {
        message += if message.ends_with('.') { " " } else { ". " };
        message += part;
    }
    match error {
        ClientError::Address(_) => Class::UsageError.with(py, message),
        _ => Class::CoordinatorError.made(py, (message, error.status())),
    }
}

/// The exception for missing rows, each with the reason.
pub(crate) fn of_missing(py: Python<'_>, missing: Vec<MissingOp>) -> PyErr {
    let why = PyDict::new(py);
    for op in &missing {
        if let Err(error) = why.set_item(op.key.to_string(), &op.why) {
            return error;
        }
    }
    let message = latlas_predict::PredictError::Missing(missing).to_string();
    Class::MissingRows.made(py, (message, why))
}
