// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The `Kbuild` file of a module.

use super::{Mode, ModuleSpec};

/// Writes the file from the spec.
pub fn text(spec: &ModuleSpec, mode: Mode) -> String {
    let objects: Vec<String> = std::iter::once(&spec.root)
        .chain(&spec.c_files)
        .map(|file| format!("{}.o", file.rsplit_once('.').map_or(file.as_str(), |f| f.0)))
        .collect();
    let mut text = format!(
        "# Generated from the module's specification.\nobj-m := {0}.o\n{0}-y := {1}\n",
        spec.object,
        objects.join(" ")
    );
    for (name, value) in &spec.env {
        text.push_str(&format!("export {name} := {value}\n"));
    }
    for cfg in &spec.cfgs {
        text.push_str(&format!("rustflags-y += --cfg '{cfg}'\n"));
    }
    if mode == Mode::Clippy {
        text.push_str("rustflags-y += -Dwarnings\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_and_c_objects_are_linked_into_one_module() {
        let spec = ModuleSpec {
            object: "payload_1_0_0".into(),
            root: "payload_main.rs".into(),
            c_files: vec!["glue.c".into()],
            cfgs: vec!["payload_schema=\"1\"".into(), "faulty".into()],
            env: vec![("PAYLOAD_VERSION".into(), "1.0.0".into())],
            ..ModuleSpec::default()
        };
        let text = text(&spec, Mode::Build);
        assert!(text.contains("payload_1_0_0-y := payload_main.o glue.o\n"));
        assert!(text.contains("--cfg 'payload_schema=\"1\"'\n"));
        assert!(text.contains("--cfg 'faulty'\n"));
        assert!(text.contains("export PAYLOAD_VERSION := 1.0.0\n"));
    }
}
