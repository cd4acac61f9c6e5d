//! The document as it is written, before anything in it is believed. Texts carry their place, so
//! that a mistake found later can still be pointed at.

use serde::Deserialize;
use std::ops::Range;
use std::path::PathBuf;
use toml::Spanned;

/// A string and where it stands.
pub(super) type Text = Spanned<String>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) account: Option<String>,
    #[serde(default)]
    pub(super) listen: Vec<Text>,
    pub(super) takeover: Option<bool>,
    pub(super) seed: Option<String>,
    pub(super) state_file: Option<PathBuf>,
    #[serde(default)]
    pub(super) upstream_dns: Vec<Text>,
    pub(super) search_domain: Option<String>,
    #[serde(default)]
    pub(super) relays: Vec<Relay>,
    #[serde(default)]
    pub(super) sites: Vec<Site>,
    #[serde(default)]
    pub(super) gateways: Vec<Gateway>,
    #[serde(default)]
    pub(super) clients: Vec<Device>,
    #[serde(default)]
    pub(super) resources: Vec<Resource>,
    #[serde(default)]
    pub(super) policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Relay {
    pub(super) id: Option<Text>,
    pub(super) addr: Spanned<Vec<Text>>,
    pub(super) secret: Option<Text>,
    pub(super) secret_file: Option<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Site {
    pub(super) name: Text,
    pub(super) id: Option<Text>,
}

/// A gateway is a device with a site. Spelled out, because serde cannot flatten and refuse unknown
/// keys at the same time.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Gateway {
    pub(super) name: Text,
    pub(super) id: Option<Text>,
    pub(super) token: Option<Text>,
    pub(super) token_file: Option<Text>,
    pub(super) ipv4: Text,
    pub(super) ipv6: Text,
    pub(super) site: Text,
}

impl Gateway {
    /// The members it has in common with clients.
    pub(super) fn device(&self) -> Device {
        Device {
            name: self.name.clone(),
            id: self.id.clone(),
            token: self.token.clone(),
            token_file: self.token_file.clone(),
            ipv4: self.ipv4.clone(),
            ipv6: self.ipv6.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: Text,
    pub(super) id: Option<Text>,
    pub(super) token: Option<Text>,
    pub(super) token_file: Option<Text>,
    pub(super) ipv4: Text,
    pub(super) ipv6: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Resource {
    pub(super) name: Text,
    pub(super) id: Option<Text>,
    #[serde(rename = "type")]
    pub(super) kind: Text,
    pub(super) address: Option<Text>,
    pub(super) address_description: Option<String>,
    pub(super) site: Text,
    #[serde(default)]
    pub(super) filters: Vec<Text>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    pub(super) client: Text,
    pub(super) resource: Text,
    pub(super) expires_in: Option<Text>,
}

impl Relay {
    /// Where its entry stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.addr.span()
    }
}
