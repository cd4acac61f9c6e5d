//! `postern-lab init`: writes the files of a small lab for docker/compose.yml.
//!
//! The portal, the gateway, the client and the name server each get a file, the first three their
//! secrets too. A second run writes the files again and keeps the secrets, so that running
//! programs stay connected. Not for real set-ups: its one client may reach everything.

use crate::dns::zone::{NameRecords, Zone};
use crate::secret;
use anyhow::{Context, Result};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Writes the files of a small lab
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Directory for the files; must exist
    pub directory: PathBuf,
    /// Address on which the portal listens
    #[arg(long, value_name = "IP:PORT")]
    pub portal: SocketAddr,
    /// File in which the portal keeps its grants
    #[arg(long, value_name = "FILE")]
    pub portal_state: PathBuf,
    /// Address on which the relay answers
    #[arg(long, value_name = "IP:PORT")]
    pub relay: SocketAddr,
    /// Name server of the gateway
    #[arg(long, value_name = "IP:PORT")]
    pub name_server: SocketAddr,
    /// Address of the web server, which only the gateway reaches
    #[arg(long, value_name = "IP")]
    pub web: Ipv4Addr,
}

/// The zone; all names below it lead to the web server.
pub const ORIGIN: &str = "lab.example";

/// Writes all files of the lab.
///
/// # Errors
/// When the directory cannot be written to.
#[expect(clippy::unused_async, reason = "as all programs of the lab")]
pub async fn run(args: Args) -> Result<()> {
    for secret in SECRETS {
        secret::read_or_create(&args.directory.join(secret))?;
    }
    for (name, text) in [
        ("portal.toml", portal(&args)),
        ("gateway.toml", gateway(&args)),
        ("client.toml", client(&args)),
        ("zone.toml", zone(&args)?),
    ] {
        write(&args.directory.join(name), &text)?;
    }
    tracing::info!(directory = %args.directory.display(), "the lab's files are written");
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn portal(args: &Args) -> String {
    let mut text = format!(
        "listen = [\"{}\"]\n\
         state_file = {:?}\n\
         [[relays]]\naddr = [\"{}\"]\nsecret_file = \"relay.secret\"\n\
         [[sites]]\nname = \"lab\"\n\
         [[gateways]]\nname = \"gateway\"\nsite = \"lab\"\ntoken_file = \"gateway.token\"\n\
         ipv4 = \"100.64.0.1\"\nipv6 = \"fd00:2021:1111::1\"\n\
         [[clients]]\nname = \"client\"\ntoken_file = \"client.token\"\n\
         ipv4 = \"100.64.1.2\"\nipv6 = \"fd00:2021:1111::102\"\n",
        args.portal, args.portal_state, args.relay,
    );
    let names = (format!("*.{ORIGIN}"), "dns");
    let address = (format!("{}/32", args.web), "cidr");
    for (resource, kind) in [names, address] {
        text += &format!(
            "[[resources]]\nname = \"{resource}\"\ntype = \"{kind}\"\naddress = \"{resource}\"\n\
             site = \"lab\"\nfilters = [\"tcp/80\", \"icmp\"]\n\
             [[policies]]\nclient = \"client\"\nresource = \"{resource}\"\n"
        );
    }
    text
}

fn gateway(args: &Args) -> String {
    format!(
        "[portal]\nurl = \"ws://{}\"\ntoken_file = \"gateway.token\"\n\
         id = \"lab-gateway\"\nname = \"gateway\"\n\
         [dns]\nservers = [\"{}\"]\n",
        args.portal, args.name_server
    )
}

fn client(args: &Args) -> String {
    format!(
        "[portal]\nurl = \"ws://{}\"\ntoken_file = \"client.token\"\nname = \"client\"\n",
        args.portal
    )
}

fn zone(args: &Args) -> Result<String> {
    let web = [IpAddr::from(args.web)];
    let names = [format!("app.{ORIGIN}"), format!("*.{ORIGIN}")];
    let records = names.map(|name| NameRecords::addresses(&name, TTL_SECONDS, &web));
    Zone::write(ORIGIN, &records)
}

const SECRETS: [&str; 3] = ["gateway.token", "client.token", "relay.secret"];
/// Short, so that the effect of a failed name server shows soon.
const TTL_SECONDS: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::config::Config as ClientConfig;
    use crate::portal::Config as PortalConfig;

    fn args(directory: &Path) -> Args {
        Args {
            directory: directory.to_owned(),
            portal: "203.0.113.10:8081".parse().expect("valid"),
            portal_state: "portal.state".into(),
            relay: "203.0.113.11:3478".parse().expect("valid"),
            name_server: "198.51.100.53:53".parse().expect("valid"),
            web: Ipv4Addr::new(198, 51, 100, 80),
        }
    }

    #[tokio::test]
    async fn every_program_can_read_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        run(args(directory)).await.expect("written");
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).expect("written");
        PortalConfig::parse(&read("portal.toml"), directory).expect("a portal's file");
        Zone::parse(&read("zone.toml")).expect("a zone");
        let client = ClientConfig::read(&directory.join("client.toml")).expect("a client's file");
        client.check().expect("nothing is missing");
        let gateway: toml::Table = read("gateway.toml").parse().expect("TOML");
        assert_eq!(
            gateway["portal"]["token_file"].as_str(),
            Some("gateway.token")
        );
    }

    #[tokio::test]
    async fn a_second_run_keeps_the_secrets() {
        let directory = tempfile::tempdir().expect("a directory");
        let directory = directory.path();
        let secrets = || SECRETS.map(|name| std::fs::read(directory.join(name)).expect("there"));
        run(args(directory)).await.expect("written");
        let first = secrets();
        run(args(directory)).await.expect("written again");
        assert_eq!(secrets(), first);
        assert_ne!(first[0], first[1]);
    }
}
