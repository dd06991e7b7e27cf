//! lib
pub mod action;
pub mod bundle;
mod error;
pub mod observation;
pub use error::{Error, ErrorKind, Result};
