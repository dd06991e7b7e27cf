//! The lock-free parts of `src/realtime` and their own tests, in a crate that has nothing else: the model checkers'
//! builds exchange the atomics of the whole crate, and take seconds so instead of minutes.

#![allow(dead_code)] // what the rest of the real crate uses

#[path = "../../src/realtime"]
pub mod realtime {
    pub mod cell;
    pub mod clock;
    pub mod episode;
    mod primitive;
    mod ring;
    pub mod wake;
}
