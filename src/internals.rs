//! Parts that this workspace's other crates and the tests need and users do not: nothing here is promised to stay.

/// Reading a bundle's parts.
pub use crate::bundle::{
    files::{open_inside, read_inside},
    integrity::{hash_file, hex},
    manifest::{FORMAT_VERSION, MAX_MANIFEST_BYTES},
    prescan::{Rules, prescan},
    token_table::TokenTable,
    versioned::parse as parse_versioned,
};
/// The places where ONNX Runtime is looked for.
pub use crate::lookup::{OLDEST_RUNTIME, RUNTIME_LIBRARY, SAFE_REPLAYS, SYSTEM, TELLS_PLACEMENT, places};
/// The parts of an inference before the graphs.
pub use crate::observation::{Normalizer, Preprocessor, PromptTokenizer};
/// The way from the model's last x_t to actions.
pub use crate::policy::Postprocessor;
/// For the C interface, whose times are numbers.
pub use crate::realtime::clock::nanos;
/// Hand-over between threads, and waiting.
pub use crate::realtime::{cell, wake};
/// For programs that are services without the runtime.
pub use crate::runtime::systemd::notify as notify_systemd;
/// The directory of engines: whose it is, what is in it, and how a set comes into it.
pub use crate::tensorrt::{
    build::{Building, CacheLock},
    context::check_context_model,
    directory::{Fault, default_path, fault_above, faults_of_directory, parse_uid, user_cache},
    record::RECORD_FILE,
    store::{CacheEntry, EngineCache, Removal},
};
/// Text from files, made fit to be shown.
pub use crate::text::{escaped, one_line};
