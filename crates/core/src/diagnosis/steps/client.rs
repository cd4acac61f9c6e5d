//! The steps about the client and its transport.

use super::{Case, Outcome};
use crate::connection::TransportFacts;
use crate::diagnosis::words::title;
use crate::diagnosis::{ClientCause, Response, Seconds};
use crate::peer::PeerFacts;
use std::time::Duration;

impl Case<'_> {
    pub(super) fn client(&self) -> Outcome {
        let client = self.client;
        if let Some(rest) = client.cut_off_for {
            let rest = rest.into();
            return ClientCause::CutOff { rest }.into();
        }
        let at = client
            .tunnel
            .map(|tunnel| format!("{} at {}", client.id, tunnel.ipv4));
        Outcome::Passed(at.unwrap_or_else(|| client.id.to_string()))
    }

    pub(super) fn session(&self) -> Outcome {
        if self.client.cut_off_for.is_some() {
            return Outcome::Unknown;
        }
        match &self.client.connection {
            Response::Answer(facts) => match &facts.transport {
                TransportFacts::None { lost } => {
                    let lost = lost.map(Seconds::from);
                    ClientCause::NoTransport { lost }.into()
                }
                TransportFacts::Peer(peer) => of_peer(peer),
            },
            Response::Timeout => {
                let part = "client's connection".into();
                ClientCause::PartSilent { part }.into()
            }
            Response::Restarting => ClientCause::Rebuilding.into(),
            Response::Absent if !self.client.grants.is_empty() => ClientCause::Rebuilding.into(),
            Response::Absent => self.gone(),
        }
    }

    /// A client without grants has no connection: if it could reach the target before, the end of
    /// that grant is the reason.
    fn gone(&self) -> Outcome {
        if self.ended().is_some() {
            return Outcome::NotNeeded("closed: the client holds nothing here any more".into());
        }
        let last = self.client.ended.first();
        let now = self.facts.unix_now;
        let ago = last.map_or(0, |last| now.0.saturating_sub(last.at.0));
        let last = last.map(|last| title(&last.grant.resource));
        ClientCause::ClientLeft {
            last: last.unwrap_or_else(|| "nothing".into()),
            ago: Seconds(ago),
        }
        .into()
    }
}

fn of_peer(peer: &PeerFacts) -> Outcome {
    let waiting = peer.age.into();
    let heard = peer.heard.map(Seconds::from);
    let is_silent = peer.heard.is_some_and(|heard| heard > SILENCE);
    match (peer.session, peer.path, heard) {
        (session, _, Some(heard)) if is_silent => {
            let has_session = session.is_some();
            ClientCause::ClientSilent { heard, has_session }.into()
        }
        (Some(session), path, heard) => {
            let up = format!("up for {}", Seconds::from(session));
            let heard = heard.map(|heard| format!(", heard {heard} ago"));
            let by = path.map(|path| format!(", by {}", path.remote));
            let parts = [Some(up), heard, by];
            Outcome::Passed(parts.into_iter().flatten().collect())
        }
        (None, Some(path), _) => {
            let remote = path.remote.to_string();
            ClientCause::NoHandshake { remote, waiting }.into()
        }
        (None, None, _) => {
            let has_candidates = peer.has_candidates;
            ClientCause::NoPath {
                has_candidates,
                waiting,
            }
            .into()
        }
    }
}

/// WireGuard's keepalives come every 25 s, and one may get lost.
const SILENCE: Duration = Duration::from_secs(60);
