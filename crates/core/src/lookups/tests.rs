//! Tests of the lookups as a whole, in virtual time.

use super::*;
use crate::testing::beginning;
use proptest::prelude::*;
use std::collections::BTreeSet;
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

/// The lookups with their clock, and the events they have emitted.
struct Scene {
    lookups: Lookups<u32>,
    now: Instant,
    started: Vec<(LookupId, DomainName, AddressFamily)>,
    answers: Vec<(u32, NameAnswer)>,
}

impl Scene {
    fn new(config: LookupsConfig) -> Self {
        Self {
            lookups: Lookups::new(config),
            now: beginning(),
            started: Vec::new(),
            answers: Vec::new(),
        }
    }

    fn ask(&mut self, text: &str, client_number: u8, requester: u32) {
        self.question(text, client_number, requester, false);
    }

    fn refresh(&mut self, text: &str, client_number: u8, requester: u32) {
        self.question(text, client_number, requester, true);
    }

    /// Warms the cache for client 1.
    fn warm(&mut self, text: &str) {
        let question = Question {
            name: name(text),
            client: client(1),
            refresh: false,
            requester: None,
        };
        self.lookups.handle_question(question, self.now);
        self.drain();
    }

    fn question(&mut self, text: &str, client_number: u8, requester: u32, refresh: bool) {
        let question = Question {
            name: name(text),
            client: client(client_number),
            refresh,
            requester: Some(requester),
        };
        self.lookups.handle_question(question, self.now);
        self.drain();
    }

    fn result(&mut self, lookup: LookupId, result: Result<FoundAddresses, NameFailure>) {
        self.lookups.handle_result(lookup, result, self.now);
        self.drain();
    }

    /// Reports both families of the oldest unreported lookup.
    fn result_of_both(&mut self, v4: &str, v6: Result<&str, NameFailure>, ttl: Duration) {
        let (lookup, _, family) = self.started.remove(0);
        assert_eq!(family, AddressFamily::V4);
        self.result(lookup, found(v4, ttl));
        let (lookup, ..) = self.started.remove(0);
        self.result(lookup, v6.and_then(|ip| found(ip, ttl)));
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.lookups.handle_timeout(self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(event) = self.lookups.poll_event() {
            match event {
                LookupsEvent::Start {
                    lookup,
                    name,
                    family,
                } => self.started.push((lookup, name, family)),
                LookupsEvent::Answer { requester, answer } => {
                    self.answers.push((requester, answer))
                }
            }
        }
    }

    /// The answers since the last call, without the names.
    fn take_answers(&mut self) -> Vec<(u32, AddressFamily, Outcome)> {
        let answers = std::mem::take(&mut self.answers);
        let parts =
            |(requester, answer): (u32, NameAnswer)| (requester, answer.family, answer.outcome);
        answers.into_iter().map(parts).collect()
    }

    fn started_names(&mut self) -> Vec<String> {
        let started = std::mem::take(&mut self.started);
        let mut seen = BTreeSet::new();
        let names = started.iter().map(|(_, name, _)| name.to_string());
        names.filter(|name| seen.insert(name.clone())).collect()
    }
}

fn name(text: &str) -> DomainName {
    text.parse().expect("a name")
}

fn client(number: u8) -> ClientId {
    ClientId(Uuid::from_u128(u128::from(number)))
}

fn found(ip: &str, ttl: Duration) -> Result<FoundAddresses, NameFailure> {
    let ip = ip.parse().expect("an address");
    Ok(FoundAddresses { ips: vec![ip], ttl })
}

fn ok(ip: &str, ttl: Duration) -> Outcome {
    let ip = ip.parse().expect("an address");
    Ok(ResolvedAddresses { ips: vec![ip], ttl })
}

use AddressFamily::{V4, V6};

/// docs/lessons.md 9: the families are independent.
#[test]
fn each_family_is_answered_as_soon_as_its_result_arrives() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 7);
    assert_eq!(scene.started.len(), 2);
    let (v6, _, family) = scene.started[1].clone();
    assert_eq!(family, V6);
    scene.result(v6, found("2001:db8::1", 60 * SECOND));
    assert_eq!(
        scene.take_answers(),
        [(7, V6, ok("2001:db8::1", 60 * SECOND))]
    );
    let (v4, ..) = scene.started[0].clone();
    scene.result(v4, Err(NameFailure::NoData));
    assert_eq!(scene.take_answers(), [(7, V4, Err(NameFailure::NoData))]);
    assert_eq!(scene.lookups.clients.len(), 0);
}

#[test]
fn later_requesters_and_refreshes_join_a_question_in_flight() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    scene.ask("APP.example.", 2, 2);
    scene.refresh("app.example", 3, 3);
    assert_eq!(scene.started.len(), 2);
    scene.result_of_both("10.0.0.1", Err(NameFailure::NoData), 60 * SECOND);
    let requesters: Vec<u32> = scene
        .take_answers()
        .iter()
        .map(|(requester, ..)| *requester)
        .collect();
    assert_eq!(requesters, [1, 2, 3, 1, 2, 3]);
}

#[test]
fn changed_limits_apply_immediately() {
    let limit = |per_client, queued_per_client, max_ttl| LookupsConfig {
        per_client,
        queued_per_client,
        max_ttl,
        ..LookupsConfig::default()
    };
    let mut scene = Scene::new(limit(1, 8, 10 * SECOND));
    for (requester, name) in [(1, "a.example"), (2, "b.example"), (3, "c.example")] {
        scene.ask(name, 1, requester);
    }
    let one = scene.started.len();
    scene
        .lookups
        .use_config(limit(2, 8, 60 * SECOND), scene.now);
    scene.drain();
    assert_eq!((one, scene.started.len()), (2, 4), "at once");
    scene
        .lookups
        .use_config(limit(1, 0, 60 * SECOND), scene.now);
    scene.result_of_both("10.0.0.1", found_v6(), 60 * SECOND);
    assert_eq!(
        scene.take_answers()[0],
        (1, V4, ok("10.0.0.1", 60 * SECOND))
    );
    scene.result_of_both("10.0.0.1", found_v6(), SECOND);
    assert_eq!(scene.take_answers().len(), 2, "questions in flight finish");
    assert_eq!(
        scene.started_names(),
        ["c.example"],
        "and waiting questions start"
    );
    scene.ask("d.example", 1, 4);
    let quota = (4, V4, Err(NameFailure::Quota));
    assert_eq!(scene.take_answers()[0], quota);
}

/// docs/lessons.md 22: the cache follows the TTL.
#[test]
fn answers_are_kept_for_their_ttl_within_limits() {
    let hour = 3_600 * SECOND;
    for (ttl, kept) in [
        (SECOND, 5 * SECOND),
        (60 * SECOND, 60 * SECOND),
        (2 * hour, hour),
    ] {
        let mut scene = Scene::new(LookupsConfig::default());
        scene.ask("app.example", 1, 1);
        scene.result_of_both("10.0.0.1", found_v6(), ttl);
        assert_eq!(scene.take_answers()[0], (1, V4, ok("10.0.0.1", kept)));
        scene.pass(kept - Duration::from_millis(1));
        scene.ask("app.example", 2, 2);
        let left = 5 * SECOND;
        assert_eq!(
            scene.take_answers()[0],
            (2, V4, ok("10.0.0.1", left)),
            "{ttl:?}"
        );
        assert_eq!(scene.started.len(), 0);
        scene.pass(Duration::from_millis(1));
        scene.ask("app.example", 2, 3);
        assert_eq!(scene.take_answers(), []);
        assert_eq!(scene.started.len(), 2);
    }
}

fn found_v6() -> Result<&'static str, NameFailure> {
    Ok("2001:db8::1")
}

/// docs/lessons.md 7: NXDOMAIN, SERVFAIL and timeouts are kept apart.
#[test]
fn definite_negatives_are_cached_briefly_and_transient_failures_for_half_a_second() {
    for failure in [NameFailure::NoSuchName, NameFailure::NoData] {
        let mut scene = Scene::new(LookupsConfig::default());
        scene.ask("app.example", 1, 1);
        scene.result_of_both("10.0.0.1", Err(failure), 60 * SECOND);
        scene.pass(4 * SECOND);
        scene.ask("app.example", 1, 2);
        assert_eq!(scene.started.len(), 0);
        scene.pass(SECOND);
        scene.ask("app.example", 1, 3);
        // Only the family without a cached answer is asked for again.
        let families: Vec<_> = scene.started.iter().map(|(.., family)| *family).collect();
        assert_eq!(families, [V6]);
    }
    for failure in [
        NameFailure::ServerFailure,
        NameFailure::Timeout,
        NameFailure::Network,
    ] {
        let mut scene = Scene::new(LookupsConfig::default());
        scene.ask("app.example", 1, 1);
        scene.result_of_both("10.0.0.1", Err(failure), 60 * SECOND);
        scene.take_answers();
        scene.pass(TRANSIENT_TTL - Duration::from_millis(1));
        scene.ask("app.example", 2, 2);
        scene.ask("app.example", 3, 3);
        assert_eq!(scene.started.len(), 0, "{failure:?}");
        assert_eq!(scene.take_answers().len(), 4);
        scene.pass(Duration::from_millis(1));
        scene.ask("app.example", 1, 4);
        assert_eq!(scene.started.len(), 1, "{failure:?}");
    }
}

#[test]
fn a_refresh_bypasses_the_cache_and_renews_it() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    scene.result_of_both("10.0.0.1", found_v6(), 60 * SECOND);
    scene.refresh("app.example", 1, 2);
    scene.result_of_both("10.0.0.2", found_v6(), 60 * SECOND);
    scene.take_answers();
    scene.ask("app.example", 1, 3);
    assert_eq!(
        scene.take_answers()[0],
        (3, V4, ok("10.0.0.2", 60 * SECOND))
    );
}

#[test]
fn an_answer_tells_whether_it_is_cached_except_to_a_refresh() {
    let mut scene = Scene::new(LookupsConfig::default());
    let failed = Err(NameFailure::ServerFailure);
    scene.ask("app.example", 1, 1);
    scene.result_of_both("10.0.0.1", failed, 60 * SECOND);
    scene.ask("app.example", 2, 2);
    scene.refresh("app.example", 2, 3);
    let answered: Vec<(u32, AddressFamily, bool)> = scene
        .answers
        .iter()
        .map(|(requester, answer)| (*requester, answer.family, answer.from_cache))
        .collect();
    assert_eq!(
        answered[..4],
        [(1, V4, false), (1, V6, false), (2, V4, true), (2, V6, true)]
    );
    assert_eq!(
        answered[4..],
        [(3, V6, false)],
        "the address is queried again"
    );
    assert_eq!(scene.started.len(), 1);
}

#[test]
fn a_requester_for_hundreds_of_clients_is_answered_once() {
    let mut scene = Scene::new(LookupsConfig::default());
    for client_number in 0..=255 {
        scene.ask("app.example", client_number, 1);
    }
    scene.ask("app.example", 1, 2);
    scene.result_of_both("10.0.0.1", Err(NameFailure::ServerFailure), 60 * SECOND);
    let requesters: Vec<u32> = scene
        .take_answers()
        .iter()
        .map(|(requester, ..)| *requester)
        .collect();
    assert_eq!(requesters, [1, 2, 1, 2]);
    assert_eq!(scene.lookups.clients.len(), 0);
}

#[test]
fn unusable_addresses_are_reported_as_no_data() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    scene.result_of_both("127.0.0.1", Ok("64:ff9b::192.0.2.1"), 60 * SECOND);
    let no_data = Err(NameFailure::NoData);
    assert_eq!(
        scene.take_answers(),
        [(1, V4, no_data.clone()), (1, V6, no_data)]
    );
}

#[test]
fn no_question_waits_longer_than_the_deadline() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    assert_eq!(scene.lookups.poll_timeout(), Some(scene.now + 6 * SECOND));
    scene.pass(5 * SECOND);
    scene.ask("app.example", 2, 2);
    assert_eq!(scene.take_answers(), []);
    scene.pass(SECOND);
    assert_eq!(scene.take_answers().len(), 4);
    let (late, ..) = scene.started[0].clone();
    scene.started.clear();
    scene.pass(TRANSIENT_TTL);
    scene.ask("app.example", 1, 3);
    assert_eq!(scene.started.len(), 2);
    scene.result(late, found("10.0.0.1", 60 * SECOND));
    assert_eq!(scene.take_answers(), [], "an answer to an expired question");
}

#[test]
fn a_full_cache_evicts_the_oldest_entry() {
    let config = LookupsConfig {
        cached_names: 2,
        ..LookupsConfig::default()
    };
    let mut scene = Scene::new(config);
    for text in ["a.example", "b.example", "c.example"] {
        scene.ask(text, 1, 1);
        scene.result_of_both("10.0.0.1", found_v6(), 60 * SECOND);
    }
    scene.ask("b.example", 1, 1);
    scene.ask("c.example", 1, 1);
    assert_eq!(scene.started.len(), 0);
    scene.ask("a.example", 1, 1);
    assert_eq!(scene.started.len(), 2);
}

/// docs/lessons.md 22: a quota per client.
#[test]
fn a_client_with_many_questions_does_not_starve_the_rest() {
    let config = LookupsConfig {
        concurrent: 2,
        per_client: 1,
        queued_per_client: 3,
        ..LookupsConfig::default()
    };
    let mut scene = Scene::new(config);
    for text in ["a", "b", "c", "d"] {
        scene.ask(text, 1, 1);
    }
    assert_eq!(scene.take_answers(), []);
    scene.ask("e", 1, 1);
    let quota = Err(NameFailure::Quota);
    assert_eq!(
        scene.take_answers(),
        [(1, V4, quota.clone()), (1, V6, quota)]
    );
    assert_eq!(scene.started_names(), ["a"], "one name per client");
    scene.ask("x", 2, 2);
    assert_eq!(
        scene.started_names(),
        ["x"],
        "the other client is not queued behind it"
    );
    for text in ["y", "z"] {
        scene.ask(text, 3, 3);
    }
    assert_eq!(
        scene.started_names(),
        [""; 0],
        "the global limit is reached"
    );
    // Client 3 has waited for less time, and yet has a turn before the second name of client 1.
    scene.pass(6 * SECOND);
    assert_eq!(scene.started_names(), ["b", "y"]);
}

#[test]
fn a_waiting_question_starts_with_the_first_turn_of_any_requester() {
    let config = LookupsConfig {
        per_client: 1,
        ..LookupsConfig::default()
    };
    let mut scene = Scene::new(config);
    scene.ask("a", 1, 1);
    scene.ask("b", 1, 1);
    assert_eq!(scene.started_names(), ["a"]);
    scene.ask("b", 2, 2);
    assert_eq!(scene.started_names(), ["b"]);
}

#[test]
fn a_question_without_a_turn_before_its_deadline_fails_with_quota() {
    let config = LookupsConfig {
        concurrent: 1,
        deadline: 6 * SECOND,
        ..LookupsConfig::default()
    };
    let mut scene = Scene::new(config);
    scene.ask("a", 1, 1);
    scene.pass(SECOND);
    scene.ask("b", 2, 2);
    scene.pass(5 * SECOND);
    // The deadline of the first question freed the slot of the second.
    assert_eq!(scene.started_names(), ["a", "b"]);
    scene.take_answers();
    scene.ask("c", 3, 3);
    scene.now += 6 * SECOND;
    scene.ask("d", 3, 4);
    scene.lookups.config.concurrent = 0;
    scene.pass(Duration::ZERO);
    let answered = scene.take_answers();
    assert!(answered.contains(&(2, V4, Err(NameFailure::Timeout))));
    assert!(answered.contains(&(3, V4, Err(NameFailure::Quota))));
}

#[test]
fn a_question_without_a_requester_only_warms_the_cache() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.warm("app.example");
    scene.result_of_both("10.0.0.1", found_v6(), 60 * SECOND);
    assert_eq!(scene.take_answers(), []);
    scene.ask("app.example", 1, 1);
    assert_eq!(scene.take_answers().len(), 2);
}

#[test]
fn a_change_of_servers_clears_the_cache() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    scene.result_of_both("10.0.0.1", found_v6(), 60 * SECOND);
    scene.lookups.forget_answers();
    scene.ask("app.example", 1, 1);
    assert_eq!(scene.started.len(), 2);
}

#[test]
fn late_answers_of_old_servers_are_neither_cached_nor_joined() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    scene.lookups.forget_answers();
    scene.ask("app.example", 2, 2);
    scene.lookups.forget_answers();
    scene.ask("app.example", 3, 3);
    assert_eq!(scene.started.len(), 6);
    for (ip, requester) in [("10.0.0.1", 1), ("10.0.0.2", 2), ("10.0.0.3", 3)] {
        scene.result_of_both(ip, Err(NameFailure::NoData), 60 * SECOND);
        let answered = scene.take_answers();
        assert_eq!(answered[0], (requester, V4, ok(ip, 60 * SECOND)));
        assert_eq!(answered.len(), 2);
    }
    scene.ask("app.example", 4, 4);
    assert_eq!(
        scene.take_answers()[0],
        (4, V4, ok("10.0.0.3", 60 * SECOND))
    );
    assert_eq!(scene.lookups.clients.len(), 0);
}

#[test]
fn questions_to_old_servers_time_out() {
    let mut scene = Scene::new(LookupsConfig::default());
    scene.ask("app.example", 1, 1);
    scene.lookups.forget_answers();
    scene.pass(6 * SECOND);
    let timeout = Err(NameFailure::Timeout);
    assert_eq!(
        scene.take_answers(),
        [(1, V4, timeout.clone()), (1, V6, timeout)]
    );
    assert_eq!(scene.lookups.poll_timeout(), None);
}

#[test]
fn a_warming_question_starts_immediately_or_not_at_all() {
    let config = LookupsConfig {
        per_client: 2,
        queued_per_client: 0,
        ..LookupsConfig::default()
    };
    let mut scene = Scene::new(config);
    for text in ["a", "b", "c"] {
        scene.warm(text);
        scene.warm(text);
    }
    assert_eq!(scene.started_names(), ["a", "b"]);
    scene.pass(6 * SECOND);
    assert_eq!(scene.started_names(), [""; 0], "nothing was queued");
    scene.ask("d", 1, 1);
    scene.ask("e", 1, 1);
    assert_eq!(scene.started_names(), ["d", "e"]);
    assert_eq!(scene.take_answers(), []);
}

/// One random input of the property test.
#[derive(Clone, Debug)]
enum Step {
    Ask { name: u8, client: u8, refresh: bool },
    Result { which: usize, outcome: u8 },
    Pass { millis: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8, 0..4_u8, any::<bool>()).prop_map(|(name, client, refresh)| Step::Ask {
            name, client, refresh,
        }),
        3 => (any::<usize>(), 0..6_u8).prop_map(|(which, outcome)| Step::Result { which, outcome }),
        1 => (0..8_000_u64).prop_map(|millis| Step::Pass { millis }),
    ]
}

fn outcome(number: u8, family: AddressFamily) -> Result<FoundAddresses, NameFailure> {
    let ip = if family == V4 { "10.0.0.1" } else { "fd00::1" };
    match number {
        0 => Err(NameFailure::NoSuchName),
        1 => Err(NameFailure::ServerFailure),
        2 => found("127.0.0.1", SECOND),
        _ => found(ip, Duration::from_secs(u64::from(number) * 10)),
    }
}

/// A reference model that only counts, with the invariants of the lookups.
struct Model {
    scene: Scene,
    config: LookupsConfig,
    in_flight: BTreeMap<LookupId, (Key, Instant)>,
    due: BTreeSet<(u32, AddressFamily)>,
    asked: u32,
}

impl Model {
    fn take(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Ask {
                name,
                client,
                refresh,
            } => {
                self.asked += 1;
                self.due.extend([(self.asked, V4), (self.asked, V6)]);
                let text = format!("n{name}.example");
                self.scene.question(&text, client, self.asked, refresh);
            }
            Step::Result { which, outcome: o } => {
                let nth = which.checked_rem(self.in_flight.len()).unwrap_or_default();
                if let Some(lookup) = self.in_flight.keys().nth(nth).copied() {
                    let (key, _) = self.in_flight.remove(&lookup).expect("one of the keys");
                    self.scene.result(lookup, outcome(o, key.1));
                }
            }
            Step::Pass { millis } => self.scene.pass(Duration::from_millis(millis)),
        }
        let now = self.scene.now;
        self.in_flight
            .retain(|_, (_, deadline)| *deadline > now || matches!(step, Step::Ask { .. }));
        self.check()
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let deadline = self.scene.now + self.config.deadline;
        for (lookup, name, family) in std::mem::take(&mut self.scene.started) {
            let key = (name, family);
            let twice = self.in_flight.values().any(|(other, _)| *other == key);
            prop_assert!(!twice, "{key:?} twice at once");
            self.in_flight.insert(lookup, (key, deadline));
        }
        for (requester, answer) in std::mem::take(&mut self.scene.answers) {
            let was_due = self.due.remove(&(requester, answer.family));
            prop_assert!(was_due, "{requester} is answered twice: {answer:?}");
        }
        prop_assert!(self.in_flight.len() <= 2 * self.config.concurrent);
        let mut charged: BTreeMap<ClientId, usize> = BTreeMap::new();
        for flight in self.scene.lookups.in_flight.values() {
            *charged.entry(flight.client).or_default() += 1;
        }
        let most = charged.values().max().copied().unwrap_or_default();
        prop_assert!(most <= 2 * self.config.per_client);
        let pending = self.due.is_empty();
        prop_assert_eq!(pending, self.scene.lookups.poll_timeout().is_none());
        Ok(())
    }
}

proptest! {
    #[test]
    fn every_requester_is_answered_once_and_no_limit_is_exceeded(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let config = LookupsConfig {
            concurrent: 3,
            per_client: 2,
            queued_per_client: 2,
            cached_names: 4,
            ..LookupsConfig::default()
        };
        let mut model = Model {
            scene: Scene::new(config),
            config,
            in_flight: BTreeMap::new(),
            due: BTreeSet::new(),
            asked: 0,
        };
        for step in &steps {
            model.take(step)?;
        }
        for _ in 0..20 {
            model.take(&Step::Pass { millis: 6_000 })?;
        }
        prop_assert_eq!(model.due.len(), 0);
        prop_assert_eq!(model.scene.lookups.clients.len(), 0);
        prop_assert_eq!(model.scene.lookups.pending.len(), 0);
    }
}

#[test]
fn ended_questions_are_counted_with_outcome_and_duration() {
    let mut scene = Scene::new(LookupsConfig {
        per_client: 1,
        queued_per_client: 0,
        ..LookupsConfig::default()
    });
    scene.ask("app.example", 1, 7);
    scene.pass(SECOND);
    let [v4, v6] = [scene.started[0].0, scene.started[1].0];
    scene.result(v4, found("192.0.2.1", 60 * SECOND));
    scene.pass(SECOND);
    scene.result(v6, Err(NameFailure::NoData));
    scene.started.clear();
    let counts = scene.lookups.take_counts();
    let ended = [(Ok(()), SECOND), (Err(NameFailure::NoData), 2 * SECOND)];
    assert_eq!(counts.ended, ended);
    assert_eq!((counts.cached, counts.refused), (0, 0));

    scene.ask("app.example", 1, 7);
    assert_eq!(scene.lookups.take_counts().cached, 2);

    scene.ask("slow.example", 1, 7);
    scene.ask("one-too-many.example", 1, 7);
    assert_eq!(scene.lookups.take_counts().refused, 2);
    scene.pass(6 * SECOND);
    let timeouts = [(Err(NameFailure::Timeout), 6 * SECOND); 2];
    assert_eq!(scene.lookups.take_counts().ended, timeouts);
    assert_eq!(scene.lookups.take_counts(), LookupCounts::default());
}
