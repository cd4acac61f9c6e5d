//! The steps about flows and replies.

use super::*;
use crate::DropReason;

fn silence(packets: u32) -> ReplyFacts {
    ReplyFacts {
        waiting: Some(seconds(30)),
        unanswered: packets,
        span: seconds(20),
        ..ReplyFacts::default()
    }
}

#[test]
fn success_shows_the_last_reply_and_no_remedy() {
    let report = Scene::new("10.20.0.7:443")
        .grant(wiki())
        .replies(replied(3))
        .report();
    assert_says(
        &report,
        "It works: the last reply came 3 s ago.",
        "nothing to do",
    );
    assert_eq!(marks(&report), "✓✓✓✓---✓");
}

#[test]
fn without_packets_points_to_the_client() {
    let report = Scene::new("10.20.0.7").grant(wiki()).report();
    let verdict = "Nothing stands in the way, but the client has sent nothing to 10.20.0.7 that \
                   the gateway remembers.";
    assert_says(&report, verdict, "do not enter the tunnel");
    assert_eq!(report.severity, Severity::Limited);
}

#[test]
fn silence_shows_the_packets_and_the_last_reply() {
    let report = Scene::new("10.20.0.7")
        .grant(wiki())
        .replies(silence(4))
        .report();
    let verdict = "Nobody answers: 4 packets went to 10.20.0.7 in the last 30 s.";
    assert_says(&report, verdict, "a route back to the gateway");
    assert_eq!(marks(&report), "✓✓✓✓---✗");

    let mut fallen = silence(4);
    fallen.replied = Some(seconds(45));
    let report = Scene::new("10.20.0.7")
        .grant(wiki())
        .replies(fallen)
        .report();
    assert!(report.verdict.ends_with("; the last reply came 45 s ago."));
}

#[test]
fn one_packet_without_a_reply_is_too_early_to_tell() {
    let awaited = ReplyFacts {
        waiting: Some(seconds(1)),
        unanswered: 1,
        ..ReplyFacts::default()
    };
    let report = Scene::new("10.20.0.7")
        .grant(wiki())
        .replies(awaited)
        .report();
    let verdict = "1 packet went to 10.20.0.7 since 1 s ago; a reply is still to come.";
    assert_says(&report, verdict, "Ask again");
    assert_eq!(report.severity, Severity::Limited);
}

#[test]
fn explains_each_kind_of_refusal() {
    for (how, verdict) in [
        (
            RefusalKind::Reset,
            "10.20.0.7 refused the connection 2 s ago (TCP reset).",
        ),
        (
            RefusalKind::PortUnreachable,
            "10.20.0.7 said 2 s ago that nobody listens there (ICMP).",
        ),
        (
            RefusalKind::AddressUnreachable,
            "The network said 2 s ago that 10.20.0.7 cannot be reached (ICMP).",
        ),
        (
            RefusalKind::Other,
            "The network refused a packet to 10.20.0.7 2 s ago (ICMP).",
        ),
    ] {
        let refused = Refusal { how, port: None };
        let seen = ReplyFacts {
            refused: Some((seconds(2), refused)),
            ..ReplyFacts::default()
        };
        let report = Scene::new("10.20.0.7").grant(wiki()).replies(seen).report();
        assert_eq!(report.verdict, verdict);
        assert_eq!(report.severity, Severity::Broken);
    }
}

#[test]
fn a_silent_name_shows_its_next_lookup() {
    let family = FamilyFacts {
        replies: silence(4),
        next_try: Some(seconds(8)),
        ..resolved("192.0.2.7")
    };
    let scene = Scene::new("app.example").grant(dns(1, "App", "*.example"));
    let report = scene.announce("app.example", family).report();
    let verdict = "Nobody answers: 4 packets went to 192.0.2.7 in the last 30 s.";
    assert_says(&report, verdict, "asked again in 8 s for another address");
    assert_eq!(marks(&report), "✓✓✓✓✓✓✓✗");
}

#[test]
fn flow_limits_count_until_a_reply() {
    let refused = |reason, replied: Option<u64>| {
        let mut family = resolved("192.0.2.7");
        family.replies.replied = replied.map(seconds);
        let scene = Scene::new("app.example").grant(dns(1, "App", "*.example"));
        let scene = scene.announce("app.example", family).with(|scene| {
            scene.nat().flows = (16_384, 16_384);
            scene.nat().refused_flow = Some((seconds(3), reason));
        });
        scene.report()
    };
    let full = refused(DropReason::FlowTableFull, None);
    let verdict = "No room for another flow: the client has 16384 of at most 16384, all of them \
                   in use.";
    assert_says(&full, verdict, "limits.flows_per_client");
    let spent = refused(DropReason::PortsExhausted, None);
    let verdict = "No port was free for another flow of the client 3 s ago.";
    assert_says(&spent, verdict, "to one address");
    let works = refused(DropReason::FlowTableFull, Some(1));
    assert_eq!(works.severity, Severity::Works);
}
