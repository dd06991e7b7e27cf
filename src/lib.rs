//! lib
pub mod doctor;
mod error;
pub use error::{Error, ErrorKind, Result};
