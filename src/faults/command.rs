//! The commands of the control socket, one a line: `KIND FAULT [CLIENT|SHARD]`.
//!
//! KIND is `supervisor`, `portal`, `dns`, `nat_table`, `tun`, `udp`, `admin` or `connection`.
//! CLIENT is the client's UUID, or `any`, for `connection` only. SHARD is a number, by default 0,
//! for `nat_table`, `tun` and `udp` only. Refuses impossible combinations.

use super::{FaultKind, Target};
use postern_core::ids::ClientId;

/// Parses one line, with or without its newline. The error says what to write instead.
pub(super) fn parse(line: &str) -> Result<(Target, FaultKind), String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (kind, fault, which) = match words[..] {
        [kind, fault] => (kind, fault, None),
        [kind, fault, which] => (kind, fault, Some(which)),
        _ => {
            let words = words.len();
            return Err(format!("{words} words; write KIND FAULT [CLIENT|SHARD]"));
        }
    };
    let fault = parse_fault(fault)?;
    let target = parse_target(kind, which)?;
    check(target, fault)?;
    Ok((target, fault))
}

fn parse_fault(word: &str) -> Result<FaultKind, String> {
    let found = FAULTS.iter().find(|(known, _)| *known == word);
    found.map(|(_, fault)| *fault).ok_or_else(|| {
        let known = FAULTS.map(|(known, _)| known).join(", ");
        format!("no fault is called {word:?}; there are {known}")
    })
}

fn parse_target(kind: &str, which: Option<&str>) -> Result<Target, String> {
    if kind == "connection" {
        let client = which.ok_or("connection needs the client's id, or any")?;
        return Ok(Target::Connection(parse_client(client)?));
    }
    let found = SINGLE.iter().find(|target| target.to_string() == kind);
    let target = found.ok_or_else(|| {
        let known = SINGLE.map(|target| target.to_string()).join(", ");
        format!("no kind is called {kind:?}; there are {known}, connection")
    })?;
    let Some(which) = which else {
        return Ok(*target);
    };
    let shard = || {
        let number = which.parse();
        number.map_err(|_| format!("{which:?} is no shard's number"))
    };
    Ok(match target {
        Target::NatTable(_) => Target::NatTable(shard()?),
        Target::Tun(_) => Target::Tun(shard()?),
        Target::Udp(_) => Target::Udp(shard()?),
        Target::Supervisor
        | Target::Portal
        | Target::Dns
        | Target::Admin
        | Target::Connection(_) => {
            return Err(format!(
                "there is one {kind}; only connection takes a client, and nat_table, tun and udp a shard"
            ));
        }
    })
}

fn parse_client(word: &str) -> Result<Option<ClientId>, String> {
    if word == "any" {
        return Ok(None);
    }
    let id = word.parse();
    let id = id.map_err(|error| format!("{word:?} is no client's id ({error}), nor any"))?;
    Ok(Some(ClientId(id)))
}

fn check(target: Target, fault: FaultKind) -> Result<(), String> {
    let has_clients = matches!(target, Target::Connection(_));
    let is_of_packets = matches!(fault, FaultKind::PanicOnPackets | FaultKind::AcceptPackets);
    if is_of_packets && !has_clients {
        Err(format!("{target} has no clients; only connection has"))
    } else if fault == FaultKind::PanicOnPackets && target == Target::Connection(None) {
        Err("panic-packets needs the client's id".to_owned())
    } else if target == Target::Supervisor && fault != FaultKind::PanicInHandler {
        Err("supervisor takes panic-handler only".to_owned())
    } else {
        Ok(())
    }
}

/// Each fault and its name.
const FAULTS: [(&str, FaultKind); 10] = [
    ("panic-handler", FaultKind::PanicInHandler),
    ("panic-started", FaultKind::PanicInStarted),
    ("panic-future", FaultKind::PanicInFuture),
    ("panic-timer", FaultKind::PanicInTimer),
    ("stop", FaultKind::Stop),
    ("hang", FaultKind::Hang),
    ("block", FaultKind::Block),
    ("fill", FaultKind::Fill),
    ("panic-packets", FaultKind::PanicOnPackets),
    ("calm", FaultKind::AcceptPackets),
];

/// The kinds of actor of which there is one, or one for each shard.
const SINGLE: [Target; 7] = [
    Target::Supervisor,
    Target::Portal,
    Target::Dns,
    Target::NatTable(0),
    Target::Tun(0),
    Target::Udp(0),
    Target::Admin,
];

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "00000000-0000-4000-8000-000000000007";

    fn client() -> ClientId {
        ClientId(CLIENT.parse().expect("a UUID"))
    }

    #[test]
    fn every_fault_of_every_kind_can_be_named() {
        for (word, fault) in FAULTS {
            let line = format!("connection {word} {CLIENT}\n");
            assert_eq!(
                parse(&line),
                Ok((Target::Connection(Some(client())), fault))
            );
            if matches!(fault, FaultKind::PanicOnPackets | FaultKind::AcceptPackets) {
                continue;
            }
            for target in SINGLE.into_iter().filter(|it| *it != Target::Supervisor) {
                assert_eq!(parse(&format!("{target} {word}")), Ok((target, fault)));
            }
        }
        for (line, target) in [
            ("nat_table stop 1", Target::NatTable(1)),
            ("tun stop 2", Target::Tun(2)),
            ("udp stop 0", Target::Udp(0)),
        ] {
            assert_eq!(parse(line), Ok((target, FaultKind::Stop)));
        }
        let any = (Target::Connection(None), FaultKind::Stop);
        assert_eq!(parse("  connection\tstop any\r\n"), Ok(any));
        let supervisor = (Target::Supervisor, FaultKind::PanicInHandler);
        assert_eq!(parse("supervisor panic-handler"), Ok(supervisor));
        let all = (Target::Connection(None), FaultKind::AcceptPackets);
        assert_eq!(parse("connection calm any"), Ok(all));
    }

    #[test]
    fn an_impossible_command_is_refused_with_the_reason() {
        let refused = [
            ("", "0 words; write KIND FAULT [CLIENT|SHARD]"),
            ("tun", "1 words; write KIND FAULT [CLIENT|SHARD]"),
            (
                "tun stop now or never",
                "5 words; write KIND FAULT [CLIENT|SHARD]",
            ),
            (
                "tun explode",
                "no fault is called \"explode\"; there are panic-handler, panic-started, \
                 panic-future, panic-timer, stop, hang, block, fill, panic-packets, calm",
            ),
            (
                "nat stop",
                "no kind is called \"nat\"; there are supervisor, portal, dns, nat_table, tun, udp, \
                 admin, connection",
            ),
            (
                "connection stop",
                "connection needs the client's id, or any",
            ),
            (
                "dns stop any",
                "there is one dns; only connection takes a client, and nat_table, tun and udp a \
                 shard",
            ),
            ("tun stop any", "\"any\" is no shard's number"),
            ("udp stop 256", "\"256\" is no shard's number"),
            ("supervisor hang", "supervisor takes panic-handler only"),
            (
                "connection panic-packets any",
                "panic-packets needs the client's id",
            ),
            ("udp calm", "udp has no clients; only connection has"),
        ];
        for (line, reason) in refused {
            assert_eq!(parse(line), Err(reason.to_owned()), "{line:?}");
        }
        let wrong = parse("connection stop me").expect_err("no UUID");
        assert!(wrong.starts_with("\"me\" is no client's id"), "{wrong}");
    }
}
