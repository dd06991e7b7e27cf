//! The C interface, which C and C++ programs see as `pi0_edge.h`.
//!
//! Its law: handles are opaque, functions are called `pi0_<object>_<verb>`, and each returns a status: 0 done,
//! negative an error, positive a condition. Outputs are written on success only. Settings begin with `struct_size`
//! and come from a `..._default` function. Buffers are the caller's. Each function says whether it may be called from
//! a real-time thread, and from which thread at all; a call from another is refused, not undefined. Nothing unwinds
//! into the caller: a bug becomes a status, and the handle it hit can only be freed.
//!
//! One file a part: [`policy`] opens a bundle and computes chunks one by one, with what [`inference`] describes;
//! [`runtime`] starts the real-time runtime from [`config`] and [`rtc`]; [`observation`], with what [`frame`]
//! describes, and [`controller`] are its two sides; [`event`], [`log`] and [`stats`] tell how it fares. Pointers become
//! references in `boundary` and handles objects in `handle`; callbacks are called by the threads of `carrier`.
//!
//! The library is never unloaded, even by `dlclose`: a thread of it may be running, and its handlers for exit and
//! fork stay registered. Loading it again gives the same library back.

#![cfg_attr(pi0_rtsan, feature(sanitize))]
#![allow(unsafe_code, reason = "everything here is called from C")]
#![allow(non_camel_case_types, reason = "these are the names C sees")]
#![allow(clippy::missing_safety_doc, reason = "what C must keep to is each function's documentation")]

mod at_exit;
mod boundary;
mod carrier;
pub mod config;
pub mod controller;
mod descriptor;
pub mod event;
pub mod frame;
mod handle;
pub mod inference;
pub mod log;
pub mod observation;
pub mod policy;
pub mod rtc;
pub mod runtime;
mod signals;
pub mod stats;
pub mod status;
#[cfg(test)]
mod tests;
pub mod version;

pub use boundary::{PI0_ERROR_SIZE, pi0_error};
