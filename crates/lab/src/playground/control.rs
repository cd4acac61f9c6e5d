//! A client of the control socket of a lab program, above all the portal's: one line of JSON per
//! command, one line of JSON per answer.

use crate::portal::client_wire::ClientGrant;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The portal answers from memory, except `authorize`, which first sets up that many clients.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A control socket. Connects for each command, so it survives a restart of the program.
#[derive(Clone, Debug)]
pub struct Control(PathBuf);

impl Control {
    pub fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    /// Sends a command and returns the answer; an `error` in it is an error.
    pub fn ask(&self, question: &Value) -> Result<Value> {
        let line = exchange(&self.0, question, ANSWER_LIMIT)
            .with_context(|| format!("no answer from {}", self.0.display()))?;
        let answer: Value = serde_json::from_str(&line)
            .with_context(|| format!("{} answered {question} with: {line}", self.0.display()))?;
        if let Some(error) = answer.get("error").filter(|error| !error.is_null()) {
            bail!("{} refused {question}: {error}", self.0.display());
        }
        Ok(answer)
    }

    /// As [`Self::ask`], for an answer without content.
    pub(super) fn tell(&self, command: &Value) -> Result<()> {
        self.ask(command).map(drop)
    }

    /// Names of the resources that are granted to any client now.
    pub fn granted(&self) -> Result<Vec<String>> {
        let answer = self.ask(&json!({"op": "grants"}))?;
        let grants = answer["grants"].as_array().context("no list of grants")?;
        let given = grants.iter().filter(|grant| grant["state"] == "given");
        let names = given.filter_map(|grant| grant["resource"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// How long gateways took to acknowledge each authorization so far.
    pub fn ack_times(&self) -> Result<Vec<Duration>> {
        let answer = self.ask(&json!({"op": "ack_times"}))?;
        let times = answer["ack_times"].as_array().context("no list of times")?;
        times.iter().map(|time| duration(&time["micros"])).collect()
    }

    /// Authorizes `count` clients that do not exist for a resource, one after the other, in
    /// generation `v0` or `v2` of the signalling; returns how long its gateway took to acknowledge
    /// each. For a DNS resource, each client of generation 0 announces its own name.
    pub fn authorize(&self, generation: &str, resource: &str, count: u32) -> Result<Vec<Duration>> {
        let op = json!({"op": "authorize", "resource": resource, "count": count,
                        "generation": generation});
        let answer = self.ask(&op)?;
        let times = answer["micros"].as_array().context("no list of times")?;
        times.iter().map(duration).collect()
    }

    /// Authorizes a client that another program simulates; returns the grant for that program.
    pub fn admit(
        &self,
        client: &str,
        public_key: &str,
        number: usize,
        resource: &str,
    ) -> Result<ClientGrant> {
        let op = json!({"op": "admit", "client": client, "public_key": public_key,
                        "number": number, "resource": resource});
        let mut answer = self.ask(&op)?;
        serde_json::from_value(answer["grant"].take()).context("no grant")
    }

    pub fn reject_access(&self, client: &str, resource: &str) -> Result<()> {
        let op = json!({"op": "reject_access", "client": client, "resource": resource});
        self.tell(&op)
    }

    /// Makes the portal send `init` again to a gateway.
    pub fn init_again(&self, gateway: &str) -> Result<()> {
        self.tell(&json!({"op": "init_again", "gateway": gateway}))
    }

    /// Sends the authorization of a grant again to its gateway.
    pub fn repeat_authorization(&self, client: &str, resource: &str) -> Result<()> {
        let op = json!({"op": "repeat_authorization", "client": client, "resource": resource});
        self.tell(&op)
    }

    /// Lets a grant expire in `seconds`, and notifies its gateway.
    pub fn set_expiry(&self, client: &str, resource: &str, seconds: u64) -> Result<()> {
        let op = json!({"op": "set_expiry", "client": client, "resource": resource,
                        "expires_in_seconds": seconds});
        self.tell(&op)
    }

    /// Makes the portal refuse a gateway's join with 409, or ends that.
    pub fn refuse_gateway(&self, gateway: &str, refuse: bool) -> Result<()> {
        let op = json!({"op": "refuse_gateway", "gateway": gateway, "refuse": refuse});
        self.tell(&op)
    }

    /// Ids of all connected gateways and clients, by name.
    pub fn ids(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.ask(&json!({"op": "peers"}))?;
        let peers = answer["peers"].as_array().context("no list of peers")?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let pairs = peers
            .iter()
            .filter_map(|peer| text(&peer["name"]).zip(text(&peer["id"])));
        Ok(pairs.collect())
    }

    /// Sends a raw text frame to a gateway or client.
    pub fn push_text(&self, peer: &str, text: &str) -> Result<()> {
        self.tell(&json!({"op": "push_text", "peer": peer, "text": text}))
    }
}

/// Sends one line to a Unix socket and returns the line that comes back.
pub(super) fn exchange(path: &Path, line: &impl Display, limit: Duration) -> Result<String> {
    let socket = UnixStream::connect(path)?;
    socket.set_read_timeout(Some(limit))?;
    writeln!(&socket, "{line}")?;
    let mut answer = String::new();
    BufReader::new(&socket).read_line(&mut answer)?;
    Ok(answer)
}

fn duration(micros: &Value) -> Result<Duration> {
    let micros = micros.as_u64().context("a time is no number")?;
    Ok(Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// A portal that answers one command with `answer`; its thread returns the command.
    fn answering(
        answer: &'static str,
    ) -> (tempfile::TempDir, Control, std::thread::JoinHandle<String>) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("control");
        let listener = UnixListener::bind(&path).expect("listens");
        let portal = std::thread::spawn(move || {
            let (socket, _) = listener.accept().expect("a question");
            let mut question = String::new();
            BufReader::new(&socket)
                .read_line(&mut question)
                .expect("a line");
            writeln!(&socket, "{answer}").expect("answers");
            question
        });
        (directory, Control::new(&path), portal)
    }

    #[test]
    fn asks_in_one_line_and_reads_one() {
        let (_directory, control, portal) = answering(r#"{"ok":true}"#);
        control.push_text("gw", "not\njson").expect("accepted");
        let question = portal.join().expect("a portal");
        let question: Value = serde_json::from_str(&question).expect("one line of JSON");
        assert_eq!(
            question,
            json!({"op":"push_text","peer":"gw","text":"not\njson"})
        );
    }

    #[test]
    fn an_error_in_the_answer_is_an_error() {
        let (_directory, control, portal) = answering(r#"{"error":"no such gateway"}"#);
        let error = control
            .init_again("unknown")
            .expect_err("refused")
            .to_string();
        assert!(error.contains("no such gateway"), "{error}");
        portal.join().expect("a portal");
    }

    #[test]
    fn only_grants_that_were_given_count() {
        let (_directory, control, portal) = answering(concat!(
            r#"{"ok":true,"grants":[{"resource":"a","state":"given"},"#,
            r#"{"resource":"b","state":"asked"}]}"#
        ));
        assert_eq!(control.granted().expect("answered"), ["a"]);
        portal.join().expect("a portal");
    }

    #[test]
    fn peers_have_names_and_ids() {
        let (_directory, control, portal) = answering(concat!(
            r#"{"ok":true,"peers":[{"name":"gw","id":"1"},"#,
            r#"{"name":"alice","id":"2"},{"name":"unnamed"}]}"#
        ));
        let expected = [("alice", "2"), ("gw", "1")];
        let expected = expected.map(|(name, id)| (name.to_owned(), id.to_owned()));
        assert_eq!(control.ids().expect("answered"), expected.into());
        portal.join().expect("a portal");
    }

    #[test]
    fn times_are_microseconds() {
        let (_directory, control, portal) =
            answering(r#"{"ok":true,"ack_times":[{"micros":250},{"micros":1000}]}"#);
        let expected = [250, 1000].map(Duration::from_micros);
        assert_eq!(control.ack_times().expect("answered"), expected);
        portal.join().expect("a portal");
    }

    #[test]
    fn a_missing_portal_is_named() {
        let control = Control::new(Path::new("no/such/socket"));
        let error = control.init_again("gw").expect_err("no portal").to_string();
        assert!(error.contains("no/such/socket"), "{error}");
    }
}
