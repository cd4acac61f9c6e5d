//! The programs that a playground starts: three binaries of this workspace in one folder.
//!
//! Builds nothing: a binary that is missing is reported with the command that builds it.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// The folder that holds `postern`, `postern-lab` and `postern-bench`.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// The programs beside `program`, which is one of them.
    ///
    /// # Errors
    /// The gateway or the lab has not been built there.
    pub fn beside(program: &Path) -> Result<Self> {
        let folder = program.parent().context("a program without a folder")?;
        let programs = Self(folder.to_owned());
        for needed in [programs.gateway(), programs.lab()] {
            ensure!(
                needed.exists(),
                "there is no {}; build it with `cargo build --workspace --bins`",
                needed.display()
            );
        }
        Ok(programs)
    }

    /// The programs beside the running one.
    ///
    /// # Errors
    /// Those of [`Self::beside`].
    pub fn beside_this() -> Result<Self> {
        Self::beside(&std::env::current_exe().context("cannot find the own program")?)
    }

    /// The gateway, and what an operator asks it.
    #[must_use]
    pub fn gateway(&self) -> PathBuf {
        self.0.join("postern")
    }

    /// Portal, relay, client, name server and web server.
    #[must_use]
    pub fn lab(&self) -> PathBuf {
        self.0.join("postern-lab")
    }

    /// The floor, the fast client and the loads.
    #[must_use]
    pub fn bench(&self) -> PathBuf {
        self.0.join("postern-bench")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_the_command_that_builds_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let lab = folder.path().join("postern-lab");
        std::fs::write(&lab, "").expect("written");
        let error = Programs::beside(&lab).expect_err("no gateway");
        let error = error.to_string();
        assert!(
            error.contains("/postern;") && error.contains("cargo build"),
            "{error}"
        );
        std::fs::write(folder.path().join("postern"), "").expect("written");
        Programs::beside(&lab).expect("both are there");
    }
}
