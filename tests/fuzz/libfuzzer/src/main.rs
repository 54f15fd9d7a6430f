//! Runs one target of carrack-fuzz under libFuzzer: the one that `CARRACK_FUZZ_TARGET` names.
#![no_main]

use std::sync::LazyLock;

use carrack_fuzz::{Target, targets};
use libfuzzer_sys::fuzz_target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let wanted = std::env::var("CARRACK_FUZZ_TARGET").unwrap_or_default();
    targets().find(|target| target.name == wanted).expect("CARRACK_FUZZ_TARGET names a target")
});

fuzz_target!(|input: &[u8]| (TARGET.run)(input));
