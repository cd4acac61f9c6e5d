//! DnsActor: looks names up, and answers the SRV and TXT queries of clients.
//!
//! Owns: the lookups (core), the name servers, the responder's sockets. Receives: `ResolveName`,
//! `ServeNames`, `UseSettings`. Emits: `NameAnswered` to the asker, `HealthNews`. When its mailbox
//! is full: questions and the supervisor's messages wait. When the supervisor's is full: news
//! waits. An answer finds room in any mailbox: each asker's sender has a place of its own, and the
//! core limits the questions. On death: rebuilt with an empty cache, and the askers repeat their
//! questions. A panic in a lookup fails only that lookup.

mod answers;
mod files;
mod probe;
mod reply;
mod resolver;
mod responder;
mod server;

use crate::config::UseSettings;
use crate::config::{DnsConfig, DnsServer, DnsSuffix};
use crate::faults;
use crate::messages::dns::{NameAnswered, ResolveName, ServeNames};
use crate::messages::supervisor::HealthNews;
use crate::metrics::Metrics;
use crate::post::{FOR_SUPERVISOR, Post, offer};
use crate::shell::{self, Driven, Posting, Retry, Wakeup, resend_later};
use crate::supervision::{DeathNotice, supervised};
use actix::prelude::*;
use files::Watched;
use postern_core::authorizations::ranges;
use postern_core::lookups::{FoundAddresses, LookupId, Lookups, LookupsConfig};
use postern_core::lookups::{LookupsEvent, Question};
use postern_core::names::{AddressFamily, DomainName, NameFailure};
use probe::Probe;
use resolver::Resolver;
use responder::{Responder, Service};
use std::net::IpAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The servers for names without a fitting suffix.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// The present content of this file, if it exists (docs/lessons.md 21).
    File {
        /// `/etc/resolv.conf`, except in tests.
        resolv_conf: PathBuf,
        /// 53, except in tests: the file has no ports.
        port: u16,
    },
    Given(Vec<DnsServer>),
}

impl Upstreams {
    pub fn system() -> Self {
        Self::File {
            resolv_conf: "/etc/resolv.conf".into(),
            port: 53,
        }
    }
}

#[derive(Clone, Debug)]
pub struct NameServers {
    pub upstreams: Upstreams,
    pub suffixes: Vec<DnsSuffix>,
    /// Authenticates encrypted servers.
    pub tls: rustls::ClientConfig,
}

impl NameServers {
    /// As configured, with what `reload::trust` made of it.
    pub fn new(config: &DnsConfig, tls: rustls::ClientConfig) -> Self {
        let upstreams = if config.servers.is_empty() {
            Upstreams::system()
        } else {
            Upstreams::Given(config.servers.clone())
        };
        Self {
            upstreams,
            suffixes: config.suffixes.clone(),
            tls,
        }
    }
}

/// The limits, as configured.
pub fn lookups_config(config: &DnsConfig) -> LookupsConfig {
    LookupsConfig {
        min_ttl: config.min_ttl,
        max_ttl: config.max_ttl,
        nat64: config.nat64,
        per_client: config.lookups_per_client,
        ..LookupsConfig::default()
    }
}

pub struct DnsSpec {
    pub upstreams: Upstreams,
    pub suffixes: Vec<DnsSuffix>,
    /// Names in this file need no server.
    pub hosts: PathBuf,
    /// Authenticates encrypted servers.
    pub tls: rustls::ClientConfig,
    pub lookups: LookupsConfig,
    /// Port for the queries of clients.
    pub serve_port: u16,
    /// Whether an address is a client's; other queries get no answer.
    pub is_client: fn(IpAddr) -> bool,
    pub metrics: Arc<Metrics>,
    /// Whether servers are probed periodically.
    pub probes: bool,
    /// Reports to the supervisor.
    pub news: Recipient<HealthNews>,
    pub death: DeathNotice,
}

impl DnsSpec {
    /// As configured, with what `reload::trust` made of it.
    pub fn new(
        config: &DnsConfig,
        tls: rustls::ClientConfig,
        metrics: Arc<Metrics>,
        (news, death): (Recipient<HealthNews>, DeathNotice),
    ) -> Self {
        let servers = NameServers::new(config, tls);
        Self {
            upstreams: servers.upstreams,
            suffixes: servers.suffixes,
            hosts: "/etc/hosts".into(),
            tls: servers.tls,
            lookups: lookups_config(config),
            serve_port: SERVE_PORT,
            is_client: ranges::is_tunnel,
            metrics,
            probes: true,
            news,
            death,
        }
    }
}

pub struct DnsActor {
    lookups: Lookups<Recipient<NameAnswered>>,
    patience: Duration,
    resolver: Rc<Resolver>,
    hosts: Watched,
    resolv_conf: Option<(Watched, u16)>,
    /// A lookup failed, so `resolv_conf` may have changed.
    is_suspicious: bool,
    looked_at: Option<Instant>,
    responder: Option<Responder>,
    serve_port: u16,
    is_client: fn(IpAddr) -> bool,
    metrics: Arc<Metrics>,
    news: Post<HealthNews>,
    retry: Retry,
    probe: Option<Probe>,
    wakeup: Wakeup,
    _death: DeathNotice,
}

impl DnsActor {
    /// Questions, from the clients of all shards together.
    pub const MAILBOX: usize = 1024;

    pub fn new(spec: DnsSpec) -> Self {
        let resolver = Resolver::new(&spec.suffixes, server::context(spec.tls));
        let resolv_conf = match spec.upstreams {
            Upstreams::File { resolv_conf, port } => Some((Watched::new(resolv_conf), port)),
            Upstreams::Given(servers) => {
                resolver.use_servers(servers);
                None
            }
        };
        Self {
            patience: spec.lookups.deadline.saturating_sub(TIME_TO_REPORT),
            lookups: Lookups::new(spec.lookups),
            resolver: Rc::new(resolver),
            hosts: Watched::new(spec.hosts),
            resolv_conf,
            is_suspicious: false,
            looked_at: None,
            responder: None,
            serve_port: spec.serve_port,
            is_client: spec.is_client,
            metrics: spec.metrics,
            news: Post::lossy(spec.news, FOR_SUPERVISOR),
            retry: Retry::default(),
            probe: spec.probes.then(Probe::default),
            wakeup: Wakeup::default(),
            _death: spec.death,
        }
    }

    /// Replaces the servers, also for lookups under way.
    fn use_name_servers(&mut self, servers: NameServers) {
        let context = server::context(servers.tls);
        self.resolver.use_suffixes(&servers.suffixes, context);
        match servers.upstreams {
            Upstreams::Given(servers) => {
                self.resolv_conf = None;
                self.resolver.use_servers(servers);
            }
            // Until the file can be read, the previous servers may still work.
            Upstreams::File { resolv_conf, port } => {
                self.resolv_conf = Some((Watched::new(resolv_conf), port));
                self.look_at_resolv_conf();
            }
        }
        self.lookups.forget_answers();
    }

    /// Reads changed files and forgets earlier answers. Returns whether something changed.
    fn look_at_files(&mut self) -> bool {
        let hosts = self.hosts.changed().map(files::hosts);
        let mut has_changed = hosts.is_some();
        if let Some(hosts) = hosts {
            self.resolver.use_hosts(hosts);
        }
        has_changed |= self.look_at_resolv_conf();
        if has_changed {
            self.lookups.forget_answers();
        }
        has_changed
    }

    /// Reads `resolv_conf` after a failure: the servers may have changed. Not after each failure:
    /// an outage has many, and reading blocks the actor.
    fn look_again(&mut self) {
        let now = shell::now();
        let is_due = |at: Instant| now.duration_since(at) >= LOOK_AGAIN;
        if self.is_suspicious && self.looked_at.is_none_or(is_due) && self.look_at_resolv_conf() {
            self.lookups.forget_answers();
        }
    }

    /// Returns whether the servers changed.
    fn look_at_resolv_conf(&mut self) -> bool {
        self.is_suspicious = false;
        self.looked_at = Some(shell::now());
        if let Some((watched, port)) = &mut self.resolv_conf
            && let Some(text) = watched.changed()
        {
            let servers = files::servers(text, *port);
            // An empty file is being written, or the host has no network: the previous servers may
            // still work.
            if !servers.is_empty() {
                tracing::info!(
                    count = servers.len(),
                    "the host's name servers are taken over"
                );
                self.resolver.use_servers(servers);
                return true;
            }
        }
        false
    }

    fn drive(&mut self, ctx: &mut Context<Self>) {
        while let Some(event) = self.lookups.poll_event() {
            match event {
                LookupsEvent::Start {
                    lookup,
                    name,
                    family,
                } => self.look_up(lookup, name, family, ctx),
                LookupsEvent::Answer { requester, answer } => {
                    // Each question brings a sender of its own, which always has a place.
                    offer(&requester, NameAnswered(answer));
                }
            }
        }
        self.metrics.dns.add(&self.lookups.take_counts());
        let deadline = self.lookups.poll_timeout();
        shell::arm(self, deadline, ctx);
        resend_later(self, ctx);
    }

    /// Runs in a task of its own: a panic becomes a failure.
    fn look_up(
        &mut self,
        lookup: LookupId,
        name: DomainName,
        family: AddressFamily,
        ctx: &mut Context<Self>,
    ) {
        let resolver = Rc::clone(&self.resolver);
        let deadline = shell::now() + self.patience;
        let task =
            actix_rt::spawn(async move { resolver.addresses(&name, family, deadline).await });
        let report = task.into_actor(self).map(move |result, actor, ctx| {
            actor.report(
                lookup,
                result.unwrap_or(Err(NameFailure::ServerFailure)),
                ctx,
            );
        });
        ctx.spawn(report);
    }

    fn report(
        &mut self,
        lookup: LookupId,
        result: Result<FoundAddresses, NameFailure>,
        ctx: &mut Context<Self>,
    ) {
        let failure = result.as_ref().err();
        if matches!(failure, Some(NameFailure::Timeout | NameFailure::Network)) {
            self.suspect_silence(ctx);
        }
        self.is_suspicious |= failure.is_some_and(|failure| !failure.is_definite());
        self.look_again();
        self.lookups.handle_result(lookup, result, shell::now());
        self.drive(ctx);
    }
}

supervised!(DnsActor, "dns");

impl Actor for DnsActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Context<Self>) {
        faults::on_started("dns");
        self.look_at_files();
        self.probe(ctx);
        ctx.run_interval(LOOK_AT_FILES, |actor, ctx| {
            if actor.look_at_files() {
                actor.probe(ctx);
            }
        });
    }
}

impl Driven for DnsActor {
    fn wakeup(&mut self) -> &mut Wakeup {
        &mut self.wakeup
    }

    fn on_deadline(&mut self, ctx: &mut Context<Self>) {
        self.lookups.handle_timeout(shell::now());
        self.drive(ctx);
    }
}

impl Posting for DnsActor {
    fn retry(&mut self) -> &mut Retry {
        &mut self.retry
    }

    fn is_waiting(&self) -> bool {
        self.news.is_waiting()
    }

    fn resend(&mut self, _: &mut Context<Self>) {
        self.news.resend();
    }
}

impl Handler<ResolveName> for DnsActor {
    type Result = ();

    fn handle(&mut self, message: ResolveName, ctx: &mut Context<Self>) {
        self.look_again();
        let question = Question {
            name: message.name,
            client: message.client,
            refresh: message.refresh,
            requester: message.reply_to,
        };
        self.lookups.handle_question(question, shell::now());
        self.drive(ctx);
    }
}

impl Handler<UseSettings> for DnsActor {
    type Result = ();

    fn handle(&mut self, UseSettings { before, after }: UseSettings, ctx: &mut Context<Self>) {
        let (former, dns) = (&before.config.dns, &after.config.dns);
        let servers = |dns: &DnsConfig| (dns.servers.clone(), dns.suffixes.clone());
        let is_trust_same = Arc::ptr_eq(&before.dns_trust, &after.dns_trust);
        if servers(former) != servers(dns) || !is_trust_same {
            let trust = rustls::ClientConfig::clone(&after.dns_trust);
            self.use_name_servers(NameServers::new(dns, trust));
            self.probe(ctx);
        }
        if lookups_config(former) != lookups_config(dns) {
            self.lookups.use_config(lookups_config(dns), shell::now());
        }
        self.drive(ctx);
    }
}

impl Handler<ServeNames> for DnsActor {
    type Result = ();

    fn handle(&mut self, ServeNames(addresses): ServeNames, _: &mut Context<Self>) {
        let current = self.responder.as_ref().map(Responder::addresses);
        if current != Some(addresses) {
            let service = Service::new(&self.resolver, self.is_client);
            // The old sockets close first, because one of the addresses may be the same.
            let previous = self.responder.take();
            let responder = Responder::start(addresses, self.serve_port, service, previous);
            self.responder = Some(responder);
        }
    }
}

/// How often the host's files are read: they are small, and a network that comes up should be
/// usable soon.
const LOOK_AT_FILES: Duration = Duration::from_secs(2);
/// How often they are read because of failures.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A lookup ends this long before the core's deadline, because it knows the reason better.
const TIME_TO_REPORT: Duration = Duration::from_millis(100);
/// docs/protocol.md 5.8.
const SERVE_PORT: u16 = 53_535;
