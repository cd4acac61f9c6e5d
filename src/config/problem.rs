//! What is wrong with a configuration, and where.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A position in the file; both numbers start at 1, the column counts characters.
    File {
        /// As the user named it.
        path: String,
        line: usize,
        column: usize,
    },
    Whole(String),
    /// An environment variable.
    Environment(String),
    /// A credential of systemd, in the directory that this variable names.
    Credential(&'static str),
}

impl Place {
    /// As the origin of a value.
    pub(super) fn origin(&self) -> String {
        match self {
            Self::File { path, line, .. } => format!("{path}:{line}"),
            Self::Whole(path) => path.clone(),
            Self::Environment(variable) => format!("env {variable}"),
            Self::Credential(_) => "systemd credential".to_owned(),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line, column } => write!(f, "{path}:{line}:{column}"),
            Self::Whole(path) => f.write_str(path),
            Self::Environment(variable) => f.write_str(variable),
            Self::Credential(variable) => f.write_str(variable),
        }
    }
}

/// One problem, in one line: the place, what is wrong, what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct Problem {
    pub place: Place,
    /// What is wrong, and the remedy. Never contains a secret.
    pub message: String,
}

/// All problems of a configuration; at least one. In the order of the file, then the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(Problem::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError {
    pub problems: Vec<Problem>,
}

/// What reading the sources finds, beside values.
#[derive(Default)]
pub(super) struct Findings {
    pub(super) problems: Vec<Problem>,
    /// Paths of keys that a source means to set but whose value or spelling is refused; that they
    /// are missing is no further problem.
    pub(super) refused: BTreeSet<&'static str>,
    /// Things that look like mistakes but are not refused.
    pub(super) warnings: Vec<String>,
}

impl Problem {
    pub(super) fn new(place: Place, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { place, message }
    }
}

impl ConfigError {
    /// One problem of the file as a whole.
    pub(super) fn of_file(path: &Path, message: impl fmt::Display) -> Self {
        let place = Place::Whole(path.display().to_string());
        Self {
            problems: vec![Problem::new(place, message.to_string())],
        }
    }
}

/// Why a file cannot be read, in words that follow its name.
pub(super) fn unreadable(error: &io::Error) -> String {
    if error.kind() == io::ErrorKind::NotFound {
        "does not exist".to_owned()
    } else if error.kind() == io::ErrorKind::PermissionDenied {
        "may not be read by this user".to_owned()
    } else {
        format!("cannot be read: {error}")
    }
}
