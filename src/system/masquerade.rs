//! The gateway's nftables table: accepts tunnel traffic and masquerades clients behind the
//! gateway's addresses.
//!
//! One table, `inet postern_<interface>`, applied in one transaction and removed when the guard is
//! dropped; the rest of the ruleset stays as it is. It cannot overrule another table: in nftables a
//! packet must be accepted by every base chain of a hook, so a host firewall with a forward chain
//! that drops by default must accept packets from and to the interface.
//!
//! After a kill the table stays until the next start, which replaces it.

use super::{TUNNEL_RANGE_V4, TUNNEL_RANGE_V6};
use crate::config::TunnelConfig;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};
use tracing::{debug, warn};

/// Removes the rules when it is dropped.
#[derive(Debug)]
pub struct Masquerade {
    table: String,
    applied: bool,
}

/// The rules could not be applied or removed.
#[derive(Debug, thiserror::Error)]
pub enum MasqueradeError {
    /// There is no `nft` program.
    #[error(
        "the nft program is missing; install the package nftables, or set tunnel.masquerade = false and masquerade by other means"
    )]
    NoNft,
    /// The program did not start.
    #[error("nft cannot be run: {0}")]
    CannotRun(#[source] io::Error),
    /// The kernel or nft refused the rules.
    #[error(
        "nft refused the rules: {0}; the kernel needs nf_tables with inet, nat and masquerade, and the gateway CAP_NET_ADMIN"
    )]
    Refused(String),
}

impl Masquerade {
    /// Applies the rules for `config` and replaces those of an earlier run. Idempotent. If
    /// masquerading is off, applies nothing and needs no nft.
    ///
    /// # Errors
    /// [`MasqueradeError`], with the remedy. The ruleset is then unchanged.
    pub fn apply(config: &TunnelConfig) -> Result<Self, MasqueradeError> {
        let table = table_name(config);
        if config.masquerade {
            run_nft(&ruleset(config, &table))?;
            debug!(table, "nftables rules applied");
        }
        Ok(Self {
            table,
            applied: config.masquerade,
        })
    }

    /// Removes the rules and reports an error, which a drop only logs.
    ///
    /// # Errors
    /// [`MasqueradeError`] when they cannot be removed. There is no further attempt.
    pub fn remove(mut self) -> Result<(), MasqueradeError> {
        self.remove_table()
    }

    /// Leaves the rules in the kernel, for a process that continues the flows they translate.
    pub fn leave(mut self) {
        self.applied = false;
    }

    fn remove_table(&mut self) -> Result<(), MasqueradeError> {
        if !std::mem::take(&mut self.applied) {
            return Ok(());
        }
        // Declared first, so that it is no error when another program has removed it already.
        let table = &self.table;
        run_nft(&format!(
            "add table inet {table}\ndelete table inet {table}\n"
        ))
    }
}

impl Drop for Masquerade {
    fn drop(&mut self) {
        if let Err(error) = self.remove_table() {
            warn!(%error, table = self.table, "the nftables rules stay; remove them with `nft delete table inet {}`", self.table);
        }
    }
}

/// Checks that nft and the kernel support the rules: applies them under another name and deletes
/// them in the same transaction, so that they are never in force.
pub fn probe(config: &TunnelConfig) -> Result<(), MasqueradeError> {
    let table = format!("{}_probe", table_name(config));
    let mut transaction = ruleset(config, &table);
    let _ = writeln!(transaction, "delete table inet {table}");
    run_nft(&transaction)
}

fn table_name(config: &TunnelConfig) -> String {
    format!("postern_{}", config.interface)
}

/// The transaction. It adds and deletes the table first, so that it is valid whether or not the
/// table exists.
fn ruleset(config: &TunnelConfig, table: &str) -> String {
    let interface = &config.interface;
    let mut rules = String::new();
    for (family, range) in [
        ("ip", TUNNEL_RANGE_V4.to_string()),
        ("ip6", TUNNEL_RANGE_V6.to_string()),
    ] {
        if config.egress_interfaces.is_empty() {
            let _ = writeln!(
                rules,
                "    {family} saddr {range} oifname != \"{interface}\" masquerade"
            );
        }
        for egress in &config.egress_interfaces {
            let _ = writeln!(
                rules,
                "    {family} saddr {range} oifname \"{egress}\" masquerade"
            );
        }
    }
    format!(
        "add table inet {table}\n\
         delete table inet {table}\n\
         table inet {table} {{\n\
         \x20 chain forward {{\n\
         \x20   type filter hook forward priority filter; policy accept;\n\
         \x20   iifname \"{interface}\" accept\n\
         \x20   oifname \"{interface}\" accept\n\
         \x20 }}\n\
         \x20 chain postrouting {{\n\
         \x20   type nat hook postrouting priority srcnat; policy accept;\n\
         {rules}\
         \x20 }}\n\
         }}\n"
    )
}

fn run_nft(transaction: &str) -> Result<(), MasqueradeError> {
    let spawned = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|error| match error.kind() == io::ErrorKind::NotFound {
        true => MasqueradeError::NoNft,
        false => MasqueradeError::CannotRun(error),
    })?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A ruleset fits into the pipe. If nft has ended already, its status says why.
    let _ = stdin.write_all(transaction.as_bytes());
    drop(stdin);
    let output = child.wait_with_output();
    let output = output.map_err(MasqueradeError::CannotRun)?;
    if output.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let first = errors.lines().map(str::trim).find(|line| !line.is_empty());
    let reason = first.unwrap_or("without a reason").to_owned();
    Err(MasqueradeError::Refused(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::netns::{in_private_netns, nft, tunnel};

    #[test]
    fn renders_one_transaction_that_replaces_the_table() {
        let expected = "\
add table inet postern_pt0
delete table inet postern_pt0
table inet postern_pt0 {
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname \"pt0\" accept
    oifname \"pt0\" accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 100.64.0.0/11 oifname != \"pt0\" masquerade
    ip6 saddr fd00:2021:1111::/107 oifname != \"pt0\" masquerade
  }
}
";
        assert_eq!(ruleset(&tunnel("pt0"), "postern_pt0"), expected);
    }

    #[test]
    fn masquerades_only_on_the_named_egress_interfaces() {
        let mut config = tunnel("pt0");
        for egress in ["eth1", "ens*"] {
            let pattern = egress.to_owned().try_into().expect("a valid pattern");
            config.egress_interfaces.push(pattern);
        }
        let rules = ruleset(&config, "t");
        assert!(
            rules.contains("ip saddr 100.64.0.0/11 oifname \"eth1\" masquerade"),
            "{rules}"
        );
        assert!(
            rules.contains("ip6 saddr fd00:2021:1111::/107 oifname \"ens*\" masquerade"),
            "{rules}"
        );
        assert!(!rules.contains("!="), "{rules}");
    }

    #[test]
    fn without_masquerading_the_ruleset_is_unchanged() {
        in_private_netns(|| {
            let mut config = tunnel("pt0");
            config.masquerade = false;
            let _guard = Masquerade::apply(&config).expect("nothing to do");
            assert_eq!(nft("list ruleset"), "");
        });
    }

    #[test]
    fn the_table_is_applied_idempotently_and_removed_with_the_guard() {
        in_private_netns(|| {
            nft("add table inet somebody_elses");
            let before = nft("list ruleset");
            let mut config = tunnel("pt-0.1");
            let pattern = "ens*".to_owned().try_into().expect("a valid pattern");
            config.egress_interfaces.push(pattern);
            probe(&config).expect("the kernel can masquerade");
            assert_eq!(nft("list ruleset"), before, "a probe leaves nothing behind");
            let guard = Masquerade::apply(&config).expect("applied");
            let once = nft("list ruleset");
            assert!(once.contains("table inet postern_pt-0.1"), "{once}");
            let again = Masquerade::apply(&config).expect("applied again");
            assert_eq!(nft("list ruleset"), once);
            drop(guard);
            assert_eq!(nft("list ruleset"), before);
            again
                .remove()
                .expect("it is no error that the table is gone");
        });
    }

    #[test]
    fn the_refusal_of_nft_becomes_one_line() {
        in_private_netns(|| {
            let error = run_nft("table inet x { chain y { nonsense\n").expect_err("refused");
            let shown = error.to_string();
            assert!(
                shown.starts_with("nft refused the rules: ") && !shown.contains('\n'),
                "{shown}"
            );
        });
    }
}
