//! The files of a set-up in the playground's directory: secrets, configurations, logs and sockets.

use super::control::Control;
use super::milestones::{self, Milestone};
use super::names::NameServer;
use super::programs::Programs;
use super::scene::{self, Device};
use super::setup::Setup;
use super::{Playground, Role, faults};
use anyhow::{Context, Result, anyhow};
use std::path::PathBuf;

/// A playground with the configurations of one set-up.
pub(super) struct Environment {
    pub(super) setup: Setup,
    pub(super) programs: Programs,
    pub(super) playground: Playground,
}

impl Environment {
    /// Writes tokens, secrets and configurations.
    pub(super) fn new(playground: Playground, programs: &Programs, setup: Setup) -> Result<Self> {
        let environment = Self {
            setup,
            programs: programs.clone(),
            playground,
        };
        for secret in ["gateway.token", "relay.secret"] {
            environment.write(secret, &random_hex()?)?;
        }
        let directory = environment.playground.directory();
        let setup = &environment.setup;
        for device in Device::all(setup) {
            environment.write(&device.token_file(), &random_hex()?)?;
            let config = scene::client(setup, &device, directory);
            environment.write(&format!("{}.toml", device.stem), &config)?;
        }
        environment.write("portal.toml", &scene::portal(setup, directory, None))?;
        environment.write("gateway.toml", &scene::gateway(setup, directory))?;
        environment.write("zone.toml", &scene::zone()?)?;
        faults::prepare(&environment.playground)?;
        Ok(environment)
    }

    /// Changes the setup and rewrites the gateway's configuration.
    pub(super) fn reconfigure_gateway(&mut self, change: impl FnOnce(&mut Setup)) -> Result<()> {
        change(&mut self.setup);
        let config = scene::gateway(&self.setup, self.playground.directory());
        self.write("gateway.toml", &config)
    }

    /// Rewrites the portal's configuration without the policy of one resource.
    pub(super) fn withdraw_policy(&self, resource: &str) -> Result<()> {
        let config = scene::portal(&self.setup, self.playground.directory(), Some(resource));
        // The portal must not read half a file: the new one is renamed into place.
        self.write("portal.toml.new", &config)?;
        std::fs::rename(self.path("portal.toml.new"), self.path("portal.toml"))?;
        Ok(())
    }

    /// The portal's control socket.
    pub(super) fn control(&self) -> Control {
        Control::new(&self.path("portal.sock"))
    }

    /// The name server's control socket.
    pub(super) fn names(&self) -> NameServer {
        NameServer::new(&self.path("names.sock"))
    }

    /// Milestones of all processes that the client at `role` has had.
    pub(super) fn milestones(&self, role: Role) -> Vec<Milestone> {
        let timeline = std::fs::read_to_string(self.timeline(role));
        milestones::of_timeline(&timeline.unwrap_or_default())
    }

    pub(super) fn timeline(&self, role: Role) -> PathBuf {
        self.path(&format!("{role}.timeline"))
    }

    /// A file in the playground's directory.
    pub(super) fn path(&self, file: &str) -> PathBuf {
        self.playground.directory().join(file)
    }

    fn write(&self, file: &str, content: &str) -> Result<()> {
        let path = self.path(file);
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Returns 32 random bytes in hex.
fn random_hex() -> Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
