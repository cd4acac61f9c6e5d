//! One playground for each measured gateway, all up at the same time, so that loads can take turns.

use super::contender::Contender;
use crate::fast_client::{Admitted, INTERFACE, Keys, Place, wait_ready};
use crate::floor::Peer;
use crate::measure::{FILTERS, ceiling};
use anyhow::{Context, Result, bail, ensure};
use postern_lab::playground::component::Component;
use postern_lab::playground::iperf::Endpoints;
use postern_lab::playground::lab::Lab;
use postern_lab::playground::network::{GATEWAY_V4, RESOURCE_NET_V4, WEB_V4, feed};
use postern_lab::playground::process::Process;
use postern_lab::playground::programs::Programs;
use postern_lab::playground::scene::APP;
use postern_lab::playground::setup::{RESOURCE_V4, Setup};
use postern_lab::playground::wait::Interrupt;
use postern_lab::playground::{Playground, Role};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A gateway with a client before it and a resource behind it. Fields are dropped, and programs
/// stopped, in order of declaration.
pub(super) struct Arena {
    /// Contenders that are measured here, each with the client's address of the resource.
    pub(super) contenders: Vec<(Contender, IpAddr)>,
    _client: Option<Process>,
    gateway: Option<Process>,
    _server: Process,
    network: Network,
    /// Control socket that a killed program leaves behind.
    leftover: Option<PathBuf>,
}

enum Network {
    Lab(Lab),
    Bare(Playground),
}

impl Arena {
    /// Builds the arena of some contenders: both of Postern's paths, or one other.
    pub(super) fn build(
        contenders: &[Contender],
        programs: &Programs,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let [first, ..] = contenders else {
            bail!("no contender to build for");
        };
        match first {
            Contender::Postern | Contender::PosternByName => {
                Self::postern(contenders, programs, interrupt)
            }
            Contender::Floor => Self::floor(programs, interrupt),
            Contender::Kernel => Self::kernel(programs, interrupt),
            Contender::BoringtunOne
            | Contender::Boringtun
            | Contender::Gotatun
            | Contender::WireguardGo => Self::wireguard(*first, programs, interrupt),
        }
    }

    fn postern(
        contenders: &[Contender],
        programs: &Programs,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        let playground = Playground::with_interrupt(interrupt.clone())?;
        let setup = Setup {
            filters: FILTERS,
            relay: false,
            ..Setup::default()
        };
        let mut lab = Lab::new(playground, programs, setup)?;
        lab.start_all(&[Component::Names, Component::Portal, Component::Gateway])?;
        let mut guest = Admitted::new(1)?;
        guest.admit(&lab, RESOURCE_V4, None)?;
        guest.admit(&lab, APP, Some(PROXY))?;
        let place = Place {
            playground: lab.playground(),
            role: Role::Client,
            address: guest.address(),
            routes: &[RESOURCE_NET_V4, PROXY_NET],
        };
        let client = place.start(programs, guest.peer()?)?;
        let server = serve_udp(lab.playground(), programs)?;
        let target = |contender: &Contender| match *contender == Contender::PosternByName {
            true => (*contender, PROXY.into()),
            false => (*contender, WEB_V4.into()),
        };
        Ok(Self {
            contenders: contenders.iter().map(target).collect(),
            _client: Some(client),
            gateway: None,
            _server: server,
            network: Network::Lab(lab),
            leftover: None,
        })
    }

    fn floor(programs: &Programs, interrupt: &Interrupt) -> Result<Self> {
        let playground = forwarding(interrupt)?;
        let end = |role| {
            let mut command = playground.command(role, programs.bench());
            command.args(["floor", "--key", "bench"]);
            command
        };
        let mut command = end(Role::Gateway);
        command.args(["--listen", &at_gateway().to_string()]);
        command.args(["--interface", INTERFACE]);
        command.args(["--address", &format!("{GATEWAY_TUNNEL}/32")]);
        command.args(["--route", &format!("{CLIENT_TUNNEL}/32")]);
        let gateway = wait_ready(&playground, playground.spawn("floor", command)?)?;
        let mut command = end(Role::Client);
        command.args(["--listen", "0.0.0.0:0"]);
        command.args(["--peer", &at_gateway().to_string()]);
        let client = client_place(&playground).spawn("floor-client", command)?;
        Self::bare(
            Contender::Floor,
            (Some(client), Some(gateway)),
            playground,
            programs,
        )
    }

    fn kernel(programs: &Programs, interrupt: &Interrupt) -> Result<Self> {
        let playground = ceiling::forwarding(interrupt)?;
        Self::bare(Contender::Kernel, (None, None), playground, programs)
    }

    fn wireguard(contender: Contender, programs: &Programs, interrupt: &Interrupt) -> Result<Self> {
        let program = contender.wireguard().context("not a WireGuard program")?;
        let playground = forwarding(interrupt)?;
        let keys = (Keys::generate()?, Keys::generate()?);
        // The control sockets of all namespaces share one directory.
        let interface = format!("b{}{}", std::process::id() % 1_000_000, contender as u8);
        let socket = Path::new(SOCKETS).join(format!("{interface}.sock"));
        let mut command = playground.command(Role::Gateway, program[0]);
        command.args(&program[1..]).arg(&interface);
        // wireguard-go warns about the kernel's module without this variable.
        command.env("WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD", "1");
        command.env("LOG_LEVEL", "error");
        let mut gateway = playground.spawn(&contender.to_string(), command)?;
        let waited = interrupt.until_ok("its control socket", READY_LIMIT, || {
            if let Some(status) = gateway.ended()? {
                bail!("{contender} ended with {status}: {}", gateway.log_tail(5));
            }
            Ok(socket.exists().then_some(()))
        });
        waited?;
        configure(&playground, &interface, &keys)?;
        let peer = Peer {
            private_key: keys.1.private,
            public_key: keys.0.public,
            preshared_key: None,
            endpoint: at_gateway(),
            ice: None,
            announce: Vec::new(),
        };
        let client = client_place(&playground).start(programs, &peer)?;
        let mut arena = Self::bare(
            contender,
            (Some(client), Some(gateway)),
            playground,
            programs,
        )?;
        arena.leftover = Some(socket);
        Ok(arena)
    }

    fn bare(
        contender: Contender,
        (client, gateway): (Option<Process>, Option<Process>),
        playground: Playground,
        programs: &Programs,
    ) -> Result<Self> {
        Ok(Self {
            contenders: vec![(contender, WEB_V4.into())],
            _client: client,
            gateway,
            _server: serve_udp(&playground, programs)?,
            network: Network::Bare(playground),
            leftover: None,
        })
    }

    pub(super) fn playground(&self) -> &Playground {
        match &self.network {
            Network::Lab(lab) => lab.playground(),
            Network::Bare(playground) => playground,
        }
    }

    /// Process id of the gateway, if there is one.
    pub(super) fn gateway_pid(&mut self) -> Result<Option<u32>> {
        match &mut self.network {
            Network::Lab(lab) => Ok(Some(lab.gateway()?.pid())),
            Network::Bare(_) => Ok(self.gateway.as_ref().map(Process::pid)),
        }
    }

    /// Endpoints for the client's address `target`.
    pub(super) fn endpoints(target: IpAddr) -> Endpoints {
        Endpoints {
            from: Role::Client,
            to: target,
            server: WEB_V4.into(),
        }
    }

    /// Ends of the logs of the arena's programs.
    pub(super) fn log_tails(&self) -> String {
        match &self.network {
            Network::Lab(lab) => lab.log_tails(20),
            Network::Bare(_) => self
                .gateway
                .as_ref()
                .map(|it| it.log_tail(20))
                .unwrap_or_default(),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(leftover) = &self.leftover {
            // The program may have removed it.
            let _gone = std::fs::remove_file(leftover);
        }
    }
}

/// Builds a playground whose gateway forwards and masquerades in the kernel, as for a Postern
/// gateway.
fn forwarding(interrupt: &Interrupt) -> Result<Playground> {
    let playground = Playground::with_interrupt(interrupt.clone())?;
    playground.enter(Role::Gateway, || {
        let switch = "/proc/sys/net/ipv4/ip_forward";
        std::fs::write(switch, "1").with_context(|| format!("cannot write {switch}"))
    })?;
    let mut nft = playground.command(Role::Gateway, "nft");
    feed(nft.args(["-f", "-"]), MASQUERADE)?;
    Ok(playground)
}

fn client_place(playground: &Playground) -> Place<'_> {
    Place {
        playground,
        role: Role::Client,
        address: CLIENT_TUNNEL,
        routes: &[RESOURCE_NET_V4],
    }
}

fn at_gateway() -> SocketAddr {
    (GATEWAY_V4, WIREGUARD_PORT).into()
}

/// Configures keys and peer of a WireGuard program through its control socket.
fn configure(playground: &Playground, interface: &str, keys: &(Keys, Keys)) -> Result<()> {
    let file = playground.directory().join(format!("{interface}.key"));
    std::fs::write(&file, &keys.0.private)?;
    let mut wg = playground.command(Role::Gateway, "wg");
    wg.args(["set", interface, "listen-port", &WIREGUARD_PORT.to_string()]);
    wg.arg("private-key").arg(file);
    wg.args(["peer", &keys.1.public]);
    wg.args(["allowed-ips", &format!("{CLIENT_TUNNEL}/32")]);
    succeed(playground, wg)?;
    let mut ip = playground.command(Role::Gateway, "ip");
    let lines = format!(
        "addr add {GATEWAY_TUNNEL}/32 dev {interface}\n\
         link set {interface} mtu 1280 up\n\
         route add {CLIENT_TUNNEL}/32 dev {interface}\n"
    );
    feed(ip.args(["-batch", "-"]), &lines)
}

/// Runs a command; its output is the error of a failure.
pub(in crate::measure) fn succeed(playground: &Playground, command: Command) -> Result<()> {
    let output = playground.run(command, READY_LIMIT)?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(())
}

/// Serves UDP loads at an address of the resource.
pub(in crate::measure) fn serve_udp_at(
    address: Ipv4Addr,
    playground: &Playground,
    programs: &Programs,
) -> Result<Process> {
    let mut command = playground.command(Role::Resource, programs.bench());
    let at = SocketAddr::from((address, UDP_PORT));
    command.args(["udp-load", "--serve", &at.to_string()]);
    playground.spawn(&format!("udp-server-{address}"), command)
}

fn serve_udp(playground: &Playground, programs: &Programs) -> Result<Process> {
    serve_udp_at(WEB_V4, playground, programs)
}

/// The same masquerading rules as `src/system` writes for the gateway.
const MASQUERADE: &str = r#"
table inet bench {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        ip saddr 100.64.0.0/11 oifname "lan0" masquerade
    }
}
"#;
/// Directory of the control sockets of WireGuard programs (wg(8)).
const SOCKETS: &str = "/var/run/wireguard";
const READY_LIMIT: Duration = Duration::from_secs(20);
/// WireGuard's default port.
const WIREGUARD_PORT: u16 = 51_820;
/// Port of the UDP load, which the policy permits.
pub(super) const UDP_PORT: u16 = 5202;
/// Proxy IP of the name.
const PROXY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);
const PROXY_NET: &str = "100.96.0.0/24";
const GATEWAY_TUNNEL: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const CLIENT_TUNNEL: Ipv4Addr = Ipv4Addr::new(100, 64, 1, 2);
