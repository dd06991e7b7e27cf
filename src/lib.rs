//! lib
#![cfg_attr(pi0_rtsan, feature(sanitize))]
mod error;
pub mod stats;
pub mod policy {
    //! policy
    pub mod rtc;
}
#[allow(unsafe_code)]
pub mod realtime;
pub mod runtime;

pub use error::{Error, ErrorKind, Result};
