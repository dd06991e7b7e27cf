//! What this workspace's other crates need and users do not.

/// For the doctor: whose directories are trusted.
pub use crate::engines::{fault_above, parse_uid};
/// For the doctor: where ONNX Runtime is looked for.
pub use crate::lookup::{OLDEST_RUNTIME, SYSTEM, places};
/// For the C interface, whose times are numbers.
pub use crate::realtime::clock::nanos;
