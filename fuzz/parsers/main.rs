//! One parser, that which `PI0_PARSER` names, given whatever bytes: it ends, in an error or not.
#![no_main]
// Of the command line's modules, the parsers use a part.
#![allow(dead_code, unused_imports)]

#[path = "../../crates/pi0-edge-cli/src/frame.rs"]
mod frame;
#[path = "../../crates/pi0-edge-cli/src/interrupt.rs"]
mod interrupt;
#[path = "../../crates/pi0-edge-cli/src/observation.rs"]
mod observation;
#[path = "../../crates/pi0-edge-cli/src/output.rs"]
mod output;
#[path = "../../crates/pi0-edge-cli/src/parsers.rs"]
mod parsers;
#[path = "../../crates/pi0-edge-cli/src/progress.rs"]
mod progress;

#[path = "../../crates/pi0-edge-cli/src/replay"]
mod replay {
    pub mod episode;
    pub mod recording;
    pub mod settings;
    pub mod trace;
}

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static PARSER: LazyLock<parsers::Parser> = LazyLock::new(|| {
    let name = std::env::var("PI0_PARSER").expect("PI0_PARSER names a parser");
    let found = parsers::ALL.iter().find(|(known, _)| *known == name);
    found.unwrap_or_else(|| panic!("there is no parser {name}")).1
});

fuzz_target!(|bytes: &[u8]| PARSER(bytes));
