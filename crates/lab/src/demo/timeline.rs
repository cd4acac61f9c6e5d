//! Timeline of the first page, from curl's first packet to the first byte, from the milestones of
//! client and gateway.

use super::screen::Screen;
use crate::playground::lab::Lab;
use crate::playground::milestones::Milestone;
use crate::playground::traffic::Fetched;
use anyhow::{Context, Result};

/// One line of the timeline.
struct Entry {
    unix_ms: f64,
    program: &'static str,
    event: String,
}

/// Shows the timeline of the first fetch, which began no earlier than `begun_ms`.
///
/// curl and the programs share no clock. curl's first packet connects them: it makes the client ask
/// the portal, and curl reports how long after it the first byte came.
pub(super) fn show(screen: &mut Screen, lab: &Lab, begun_ms: f64, fetched: &Fetched) -> Result<()> {
    let client = lab.client_milestones();
    let asked = client
        .iter()
        .find(|it| it.name == "authorization_requested" && it.unix_ms >= begun_ms)
        .context("the client did not ask the portal for access during the first fetch")?;
    let first_packet_ms = asked.unix_ms;
    let first_byte_ms = first_packet_ms + fetched.wait().as_secs_f64() * 1000.0;
    let mut entries = vec![
        entry(first_packet_ms, "client", "curl sends its first packet"),
        entry(
            first_byte_ms,
            "client",
            "curl has the first byte of the page",
        ),
    ];
    for (program, milestones) in [("client", &client), ("gateway", &lab.gateway_milestones())] {
        let within = milestones.iter().filter(|milestone| {
            // A millisecond of slack: a program may truncate its times to milliseconds.
            (first_packet_ms - 1.0..=first_byte_ms + 1.0).contains(&milestone.unix_ms)
        });
        entries.extend(within.map(|milestone| Entry {
            unix_ms: milestone.unix_ms,
            program,
            event: described(program, milestone),
        }));
    }
    screen.heading("Timeline of the first page (ms)")?;
    write(screen, entries)?;
    let times = lab.control().ack_times()?;
    let answered = times.first().map_or(0.0, |it| it.as_secs_f64() * 1000.0);
    screen.line(&format!(
        "  the portal waited {answered:.2} ms for the gateway's answer"
    ))
}

fn entry(unix_ms: f64, program: &'static str, event: &str) -> Entry {
    Entry {
        unix_ms,
        program,
        event: event.to_owned(),
    }
}

/// Writes entries in order of time, relative to the first.
fn write(screen: &mut Screen, mut entries: Vec<Entry>) -> Result<()> {
    entries.sort_by(|a, b| a.unix_ms.total_cmp(&b.unix_ms));
    let zero = entries.first().map_or(0.0, |first| first.unix_ms);
    for entry in entries {
        let program = screen.dim(&format!("{:<8}", entry.program));
        let (after, event) = (entry.unix_ms - zero, entry.event);
        screen.line(&format!("  {after:>8.1}  {program} {event}"))?;
    }
    Ok(())
}

/// Describes a milestone; unknown ones keep their names.
fn described(program: &str, milestone: &Milestone) -> String {
    let field = |name| milestone.field(name);
    match (program, &*milestone.name) {
        ("client", "authorization_requested") => "asks the portal for access".to_owned(),
        ("client", "authorization_created") => "is told by the portal: granted".to_owned(),
        ("client", "first_packet_received") => "has a packet through the tunnel".to_owned(),
        ("gateway", "authorization_requested") => "is asked by the portal".to_owned(),
        ("gateway", "authorization_created") => "has answered the portal: ready".to_owned(),
        (_, "path_nominated") => {
            let (local, remote) = (field("local"), field("remote"));
            match local.is_empty() && remote.is_empty() {
                true => "path nominated".to_owned(),
                false => format!("path nominated: {local} – {remote}"),
            }
        }
        (_, "handshake_completed") => "WireGuard handshake completed".to_owned(),
        (_, other) => other.replace('_', " "),
    }
}

#[cfg(test)]
mod tests {
    use super::super::screen::tests::Recorder;
    use super::*;
    use serde_json::json;

    #[test]
    fn entries_are_sorted_and_counted_from_the_first() {
        let recorder = Recorder::default();
        let entries = vec![
            entry(1_000_012.5, "gateway", "later"),
            entry(1_000_000.0, "client", "first"),
        ];
        write(&mut recorder.screen(false), entries).expect("written");
        let expected = "       0.0  client   first\n      12.5  gateway  later\n";
        assert_eq!(recorder.text(), expected);
    }

    #[test]
    fn unknown_milestones_keep_their_names() {
        let mut milestone = Milestone {
            unix_ms: 0.0,
            name: "candidates_gathered".to_owned(),
            fields: serde_json::Map::new(),
        };
        assert_eq!(described("gateway", &milestone), "candidates gathered");
        milestone.name = "path_nominated".to_owned();
        assert_eq!(described("gateway", &milestone), "path nominated");
        milestone.fields.insert("local".to_owned(), json!("a:1"));
        milestone.fields.insert("remote".to_owned(), json!("b:2"));
        assert_eq!(described("client", &milestone), "path nominated: a:1 – b:2");
    }
}
