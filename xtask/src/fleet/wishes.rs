// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The variables that the playbooks of the collection are given.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// So many nodes, or a share of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Nodes.
    Nodes(u32),
    /// Percent of all nodes.
    Percent(u32),
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("`{text}` is neither a number of nodes, such as 2, nor a share, such as 10%")
        };
        match text.strip_suffix('%') {
            Some(share) => match share.parse() {
                Ok(share) if share <= 100 => Ok(Self::Percent(share)),
                _ => Err(wrong()),
            },
            None => text.parse().map(Self::Nodes).map_err(|_| wrong()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nodes(nodes) => write!(f, "{nodes}"),
            Self::Percent(share) => write!(f, "{share}%"),
        }
    }
}

/// One batch: an amount that is not nothing.
pub fn batch(text: &str) -> Result<Amount, String> {
    match text.parse()? {
        Amount::Nodes(0) | Amount::Percent(0) => {
            Err("a batch of no node would never end".to_owned())
        }
        amount => Ok(amount),
    }
}

/// What is wanted of the nodes, by the names of the playbooks' variables. Nothing is what the playbooks have by themselves.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Wishes {
    /// The version that shall serve.
    #[serde(rename = "atom_fleet_version", skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Nodes of the canary.
    #[serde(rename = "atom_fleet_canary", skip_serializing_if = "Option::is_none")]
    pub canary: Option<u32>,
    /// The batches after it.
    #[serde(rename = "atom_fleet_batches", skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<String>,
    /// How many may fail.
    #[serde(rename = "atom_fleet_max_failures", skip_serializing_if = "Option::is_none")]
    pub max_failures: Option<String>,
    /// The soak on each node.
    #[serde(rename = "atom_fleet_soak", skip_serializing_if = "Option::is_none")]
    pub soak: Option<String>,
    /// The deadline of the switch on each node.
    #[serde(rename = "atom_fleet_deadline", skip_serializing_if = "Option::is_none")]
    pub deadline: Option<String>,
    /// How often an upgrade that was undone is tried again.
    #[serde(rename = "atom_fleet_retries", skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// Whether the old payload stays loaded.
    #[serde(rename = "atom_fleet_keep_parked", skip_serializing_if = "std::ops::Not::not")]
    pub keep_parked: bool,
    /// Where the software of the nodes comes from: `packages` or `files`.
    #[serde(rename = "atom_fleet_source", skip_serializing_if = "Option::is_none")]
    pub source: Option<&'static str>,
    /// The folder of packages, as Ansible sees it.
    #[serde(rename = "atom_fleet_packages", skip_serializing_if = "Option::is_none")]
    pub packages: Option<String>,
    /// The folder of files, as Ansible sees it.
    #[serde(rename = "atom_fleet_files", skip_serializing_if = "Option::is_none")]
    pub files: Option<String>,
    /// The payload that is loaded first.
    #[serde(rename = "atom_fleet_first", skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    /// The record of the rollout, as Ansible sees it.
    #[serde(rename = "atom_fleet_rollout", skip_serializing_if = "Option::is_none")]
    pub rollout: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_and_written_alike() {
        for text in ["0", "3", "10%", "100%"] {
            assert_eq!(text.parse::<Amount>().unwrap().to_string(), text);
        }
        for text in ["", "-1", "101%", "many", "1.5", "%"] {
            assert!(text.parse::<Amount>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_batch_is_never_empty() {
        assert_eq!(batch("25%"), Ok(Amount::Percent(25)));
        assert!(batch("0").is_err() && batch("0%").is_err());
    }

    #[test]
    fn what_is_not_wished_for_is_left_to_the_playbooks() {
        assert_eq!(serde_json::to_value(Wishes::default()).unwrap(), serde_json::json!({}));
        let wishes =
            Wishes { version: Some("2.1.0".to_owned()), canary: Some(2), ..Wishes::default() };
        let variables = serde_json::to_value(wishes).unwrap();
        assert_eq!(
            variables,
            serde_json::json!({"atom_fleet_version": "2.1.0", "atom_fleet_canary": 2})
        );
    }

    /// A variable that no playbook knows would be a wish that nobody hears.
    #[test]
    fn every_variable_is_one_of_the_collection() {
        let all = Wishes {
            version: Some(String::new()),
            canary: Some(1),
            batches: vec![String::new()],
            max_failures: Some(String::new()),
            soak: Some(String::new()),
            deadline: Some(String::new()),
            retries: Some(0),
            keep_parked: true,
            source: Some("files"),
            packages: Some(String::new()),
            files: Some(String::new()),
            first: Some(String::new()),
            rollout: Some(String::new()),
        };
        let collection = crate::fleet::collections().join("atom/fleet");
        let mut text = String::new();
        for folder in ["playbooks", "roles/node/tasks", "roles/node/defaults"] {
            for file in std::fs::read_dir(collection.join(folder)).unwrap().flatten() {
                text += &std::fs::read_to_string(file.path()).unwrap_or_default();
            }
        }
        for name in serde_json::to_value(all).unwrap().as_object().unwrap().keys() {
            assert!(text.contains(name.as_str()), "{name}");
        }
    }
}
