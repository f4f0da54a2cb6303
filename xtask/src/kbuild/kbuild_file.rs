// SPDX-License-Identifier: GPL-2.0 OR Apache-2.0
//! The `Kbuild` file of a module.

use super::{Bindings, Mode, ModuleSpec};

/// How bindgen is called, as the kernel's `rust/Makefile` does it for its own bindings: with the flags of the C compiler
/// but those that only GCC knows. What is no flag of libclang's is an error, so the list has to be that of the kernel.
const BINDGEN: &str = r#"
bindgen_skip := -mno-fp-ret-in-387 -mpreferred-stack-boundary=% -mskip-rax-setup -mgeneral-regs-only \
	-msign-return-address=% -mindirect-branch=thunk-extern -mindirect-branch-register \
	-mfunction-return=thunk-extern -mrecord-mcount -mabi=lp64 -mindirect-branch-cs-prefix \
	-mstack-protector-guard% -mtraceback=no -mno-pointers-to-nested-functions -mno-string \
	-mno-strict-align -mstrict-align -mdirect-extern-access -mexplicit-relocs -mno-check-zero-division \
	-fconserve-stack -falign-jumps=% -falign-loops=% -femit-struct-debug-baseonly -fno-ipa-cp-clone \
	-fno-ipa-sra -fno-partial-inlining -fplugin-arg-arm_ssp_per_task_plugin-% -fno-reorder-blocks \
	-fno-allow-store-data-races -fasan-shadow-offset=% -fzero-call-used-regs=% \
	-fno-stack-clash-protection -fno-inline-functions-called-once -fsanitize=bounds-strict \
	-fstrict-flex-arrays=% -fmin-function-alignment=% -fzero-init-padding-bits=% -mno-fdpic \
	-fdiagnostics-show-context -fdiagnostics-show-context=% --param=% --param asan-% \
	-fno-isolate-erroneous-paths-dereference
bindgen_target_x86 := x86_64-linux-gnu
bindgen_target_arm64 := aarch64-linux-gnu
bindgen_c_flags = $(filter-out $(bindgen_skip),$(c_flags)) -w --target=$(bindgen_target_$(SRCARCH)) \
	-fno-builtin -D__BINDGEN__ -DMODULE
quiet_cmd_own_bindgen = BINDGEN $@
      cmd_own_bindgen = $(BINDGEN) $< --rust-target 1.85 --use-core --ctypes-prefix ffi \
	--no-layout-tests --blocklist-type '.*' --raw-line 'use kernel::{bindings::*, ffi};' \
	--allowlist-var 'ATOM_.*' $(bindgen_functions) -o $@ -- $(bindgen_c_flags)
"#;

/// Writes the file from the spec.
pub fn text(spec: &ModuleSpec, mode: Mode, rust_flags: &[&str]) -> String {
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
    for flag in rust_flags {
        text.push_str(&format!("rustflags-y += {flag}\n"));
    }
    if mode == Mode::Clippy {
        // Lints look at what is before the code, and most of the time goes into that.
        text.push_str("rustflags-y += -Dwarnings -Zno-codegen\n");
    }
    if !spec.bindings.is_empty() {
        text.push_str(BINDGEN);
    }
    for bindings in &spec.bindings {
        text.push_str(&rule(spec, bindings));
    }
    text
}

/// How a header is made into Rust, before the crate that includes it.
fn rule(spec: &ModuleSpec, bindings: &Bindings) -> String {
    let made = bindings.made();
    let (object, checked) = (spec.crate_file("o"), spec.crate_file("ll"));
    format!(
        "$(obj)/{made}: private bindgen_functions := --allowlist-function '{functions}'\n\
         $(obj)/{made}: $(src)/{header} FORCE\n\
         \t$(call if_changed_dep,own_bindgen)\n\
         $(obj)/{object} $(obj)/{checked}: $(obj)/{made}\n\
         targets += {made}\n",
        functions = bindings.functions.join("|"),
        header = bindings.header,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_made_into_rust_before_the_crate_is_compiled() {
        let bindings = Bindings {
            header: "nbd/socket.h".into(),
            functions: vec!["sk_set_memalloc".into(), "sock_no_linger".into()],
        };
        let spec = ModuleSpec {
            object: "x".into(),
            root: "payload_main.rs".into(),
            bindings: vec![bindings],
            ..ModuleSpec::default()
        };
        let made = text(&spec, Mode::Build, &[]);
        assert!(made.contains("$(obj)/nbd/socket_bindings.rs: $(src)/nbd/socket.h FORCE\n\t$(call"));
        assert!(made.contains(
            "$(obj)/payload_main.o $(obj)/payload_main.ll: $(obj)/nbd/socket_bindings.rs\n"
        ));
        assert!(made.contains("--allowlist-function 'sk_set_memalloc|sock_no_linger'\n"));
        let without = ModuleSpec { bindings: Vec::new(), ..spec };
        assert!(!text(&without, Mode::Build, &[]).contains("bindgen"));
    }

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
        let text = text(&spec, Mode::Build, &[]);
        assert!(text.contains("payload_1_0_0-y := payload_main.o glue.o\n"));
        assert!(text.contains("--cfg 'payload_schema=\"1\"'\n"));
        assert!(text.contains("--cfg 'faulty'\n"));
        assert!(text.contains("export PAYLOAD_VERSION := 1.0.0\n"));
    }
}
