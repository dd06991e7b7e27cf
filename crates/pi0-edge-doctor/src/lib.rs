//! The reasons why a machine will be slow or broken, told from its files alone.
//!
//! [`Facts::gather`] reads a file tree, [`diagnose`] judges what was found, and the [`Report`] prints itself for
//! people or for programs. Nothing is loaded, run or written, and no library is opened other than as a file, so the
//! doctor may look at a robot while it moves. The tree need not be the running system's: a root file system that is
//! about to be flashed can be examined on the machine it is made on.
//!
//! Facts that only a run can tell (that a provider really computes, that a clock holds under load) is `check`'s and
//! `bench`'s to find out; the findings say where the doctor's knowledge ends.
//!
//! ```
//! use pi0_edge_doctor::{Facts, Options, diagnose};
//!
//! let facts = Facts::gather("/".as_ref(), &|name| std::env::var(name).ok(), &Options::default());
//! let report = diagnose(&facts, None, None);
//! print!("{}", report.text(false));
//! ```

#![deny(unsafe_code)]

mod diagnose;
mod elf;
mod facts;
mod fatbin;
mod finding;
#[doc(hidden)]
pub mod internals;
mod loader;
mod needs;
mod render;
pub mod sensors;
mod tree;

pub use diagnose::{diagnose, explain_failure};
pub use facts::bundle::BundleFacts;
pub use facts::engine_cache::{EngineCache, EngineSet, Untrusted};
pub use facts::gpu::{Driver, Gpu};
pub use facts::memory::{Memory, Swap};
pub use facts::onnxruntime::{OnnxRuntime, ProviderLibrary, RuntimeLibrary, Tried};
pub use facts::power::{Clock, Power, PowerMode};
pub use facts::realtime::{Limit, Limits, Realtime};
pub use facts::software::{Component, Software};
pub use facts::system::{L4t, System};
pub use facts::{Facts, Options};
pub use fatbin::Kernels;
pub use finding::{Code, Finding, Group, Report, Severity};
pub use loader::{Missing, TooOld};
pub use needs::{BOARDS, MemoryNeeds, fits};
pub use pi0_edge::Provider;
