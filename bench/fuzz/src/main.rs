//! Runs the target that `FUZZ_TARGET` names, under libFuzzer, and holds it to bounds of memory and time.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;

mod bounds;

#[allow(
    dead_code,
    unused_imports,
    reason = "the plugin's elements use the rest"
)]
#[allow(
    clippy::wrong_self_convention,
    reason = "in the plugin these names are public, and left alone"
)]
#[path = "../../../src/logic/mod.rs"]
mod logic;

#[allow(dead_code, reason = "the plugin's elements use the rest")]
#[path = "../../../src/peer"]
mod peer {
    pub mod args;
}

#[path = "../../../src/meta"]
mod meta {
    pub mod rtp;
}

#[path = "../targets.rs"]
mod targets;

/// What anything takes, and what a byte of input may add: an empty object in a list is seven of them as text.
const MEMORY: usize = 1 << 20;
const MEMORY_PER_BYTE: usize = 128;
/// Everybody else waits as long.
const TIME: Duration = Duration::from_millis(250);

fn target() -> &'static targets::Target {
    static TARGET: std::sync::OnceLock<&targets::Target> = std::sync::OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        let found = targets::ALL.iter().find(|target| target.name == name);
        let target = found.unwrap_or_else(|| panic!("FUZZ_TARGET: there is no {name:?}"));
        // What is made once is no part of what an input takes.
        (target.run)(b"{}");
        target
    })
}

fuzz_target!(|data: &[u8]| {
    let target = target();
    let input = targets::stretched(data, target.longest);
    let memory = MEMORY + MEMORY_PER_BYTE * input.len();
    bounds::within(memory, TIME, || (target.run)(&input));
});
