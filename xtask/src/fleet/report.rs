// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The document that a run over the fleet leaves.

use anyhow::{ensure, Context, Result};
use serde_json::Value;

/// The name and version of the document.
pub const SCHEMA: &str = "atom.fleet-report/1";

/// An `atom.fleet-report/1`, as the collection wrote it.
#[derive(Clone, Debug)]
pub struct Report(Value);

impl Report {
    /// Reads a document.
    pub fn parse(text: &str) -> Result<Self> {
        let document: Value =
            serde_json::from_str(text).context("the report is no JSON document")?;
        ensure!(document["schema"] == SCHEMA, "the report is no {SCHEMA}: {}", document["schema"]);
        Ok(Self(document))
    }

    /// The same, with the record's path as we know it instead of how Ansible saw it.
    pub fn with_rollout(mut self, path: Option<&str>) -> Self {
        if self.0["rollout"].is_string() {
            if let Some(path) = path {
                self.0["rollout"] = path.into();
            }
        }
        self
    }

    /// How a process ends with it: 0 done; 1 failed; 3 refused before anything changed; 4 a node holds I/O.
    pub fn exit_code(&self) -> u8 {
        match self.0["exit_code"].as_u64() {
            Some(code @ (0 | 3 | 4)) => code as u8,
            _ => 1,
        }
    }

    /// The document's text.
    pub fn text(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(&self.0)? + "\n")
    }

    /// What the document says of a node; null when it says nothing.
    pub fn node(&self, name: &str) -> &Value {
        let nodes = self.0["nodes"].as_array().map(Vec::as_slice).unwrap_or_default();
        nodes.iter().find(|node| node["node"] == name).unwrap_or(&Value::Null)
    }

    /// The state of a node, such as `upgraded`.
    pub fn state(&self, name: &str) -> &str {
        self.node(name)["state"].as_str().unwrap_or("unknown")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(code: &str) -> Report {
        let text = format!(
            r#"{{"schema": "atom.fleet-report/1", "exit_code": {code}, "rollout": "/mnt/x",
                "nodes": [{{"node": "a", "state": "held"}}]}}"#
        );
        Report::parse(&text).unwrap()
    }

    #[test]
    fn an_exit_code_that_is_none_is_a_failure() {
        for (text, code) in
            [("0", 0), ("1", 1), ("3", 3), ("4", 4), ("null", 1), ("256", 1), ("2", 1)]
        {
            assert_eq!(report(text).exit_code(), code, "{text}");
        }
    }

    #[test]
    fn a_node_is_found_by_its_name_and_the_record_has_our_path() {
        let report = report("4").with_rollout(Some("/home/x"));
        assert_eq!((report.state("a"), report.state("b")), ("held", "unknown"));
        assert_eq!(report.0["rollout"], "/home/x");
    }

    #[test]
    fn a_document_of_another_kind_is_no_report() {
        assert!(Report::parse("{}").is_err());
        assert!(Report::parse("").is_err());
    }
}
