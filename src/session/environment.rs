//! Finding ONNX Runtime's library and starting it, once per process.

use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use ort::logging::LogLevel;

use super::placement;
use super::shared_library::SharedLibrary;
use crate::error::{Error, ErrorKind, Result};
use crate::lookup;
use crate::text::{MAX_MESSAGE, one_line};

const REMEDY: &str = "install ONNX Runtime 1.20 or newer (scripts/fetch_onnxruntime.sh fetches the CPU build), \
                      or name its library by --ort-library or ORT_DYLIB_PATH";

/// ONNX Runtime, loaded. One per process, and it lives as long as the process.
#[derive(Debug)]
pub struct Environment {
    inner: ort::environment::Environment,
    library: PathBuf,
    version: String,
    placement: Option<&'static placement::Functions>,
}

static ENVIRONMENT: OnceLock<Environment> = OnceLock::new();
static STARTING: Mutex<()> = Mutex::new(());

impl Environment {
    /// Loads ONNX Runtime, or returns the one this process already loaded.
    ///
    /// Looked for in this order: `explicit`; `ORT_DYLIB_PATH`; beside libpi0_edge.so where that is what this code is
    /// in, then beside the executable, each time in its directory, in `lib` and `pi0-edge` in it, in
    /// `../lib/pi0-edge`, and as the project's fetched copy (`.cache/onnxruntime` in a directory above); the
    /// directory packages install it to; the system's library path. `explicit` and `ORT_DYLIB_PATH` must work when
    /// given: there is no falling back from what was asked for.
    ///
    /// Sets `ORT_DISABLE_TELEMETRY=1` first: Microsoft's builds otherwise start an uploader while loading. As always
    /// with environment variables, no other thread should be changing the environment at that time.
    ///
    /// # Errors
    /// [`ErrorKind::Library`], naming every path tried and why it failed; also when the process already runs
    /// another library than `explicit`.
    pub fn get(explicit: Option<&Path>) -> Result<&'static Environment> {
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = ENVIRONMENT.get() {
            return environment.expect_library(explicit);
        }
        let environment = start(explicit)?;
        Ok(ENVIRONMENT.get_or_init(|| environment))
    }

    fn expect_library(&'static self, explicit: Option<&Path>) -> Result<&'static Environment> {
        match explicit.map(resolve) {
            Some(wanted) if wanted != self.library => Err(err!(
                Library,
                "this process already runs ONNX Runtime from {}; {} cannot be loaded beside it",
                self.library.display(),
                wanted.display()
            )),
            _ => Ok(self),
        }
    }

    pub(super) fn inner(&self) -> &ort::environment::Environment {
        &self.inner
    }

    /// Returns the path of the library that was loaded.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Returns the library's version and the commit it was built from, such as `1.24.4 (0123abc)`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns true if a CUDA graph captured by this ONNX Runtime reads, at every replay, what it read at the first.
    pub(crate) fn replays_safely(&self) -> bool {
        lookup::numbers_of(&self.version) >= lookup::SAFE_REPLAYS.to_vec()
    }

    /// Returns the functions that tell which provider runs which node; none before ONNX Runtime 1.24.
    pub(super) fn placement(&self) -> Option<&'static placement::Functions> {
        self.placement
    }

    /// Returns ONNX Runtime's own description of its build: version, commit, flags.
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }
}

/// Tries the candidates in order and starts the first library that loads.
fn start(explicit: Option<&Path>) -> Result<Environment> {
    disable_telemetry();
    let mut tried = Vec::new();
    for (path, origin) in candidates(explicit) {
        // A bare file name is the dynamic loader's to find.
        let loaded = if path.is_absolute() && !path.is_file() {
            Err("no such file".to_owned())
        } else {
            ort::init_from(&path).map_err(|e| e.to_string())
        };
        match loaded {
            Ok(builder) => return build(builder, path),
            Err(why) => tried.push(format!("{} ({origin}): {why}", path.display())),
        }
    }
    Err(err!(Library, "cannot load ONNX Runtime; tried: {}. To fix it, {REMEDY}", tried.join("; ")))
}

fn build(builder: ort::environment::EnvironmentBuilder, library: PathBuf) -> Result<Environment> {
    let inner = builder
        .with_name("pi0-edge")
        .with_telemetry(false)
        .with_logger(Arc::new(|level, _category, _id, _location, message: &str| forward(level, message)))
        .build()
        .map_err(|e| err!(Library, "ONNX Runtime does not start: {}", e.message()))?;
    // The logger makes `ort` ask for verbose messages; every one of them would cost formatting.
    inner.set_log_level(LogLevel::Warning);
    log::debug!("ONNX Runtime from {}: {}", library.display(), ort::info());
    let base = base(&library).map_err(|what| Error::new(ErrorKind::Library, what))?;
    // SAFETY: a constant of the library, which is never closed.
    let version = unsafe { CStr::from_ptr((base.GetVersionString)()) }.to_string_lossy();
    let placement = placement::Functions::of(base, &lookup::numbers_of(&version));
    let commit = ort::info().split("git-commit-id=").nth(1).and_then(|t| t.split([',', ' ']).next());
    let version = format!("{version} ({})", commit.unwrap_or("commit unknown"));
    Ok(Environment { inner, library, version, placement })
}

/// Returns where ONNX Runtime's own interfaces begin.
fn base(library: &Path) -> Result<&'static ort::sys::OrtApiBase, String> {
    type GetBase = unsafe extern "system" fn() -> *const ort::sys::OrtApiBase;
    let library = SharedLibrary::open(&library.to_string_lossy())?;
    // SAFETY: the declaration of ONNX Runtime's one exported function.
    let base = unsafe { library.function::<GetBase>(c"OrtGetApiBase") }?;
    // SAFETY: the base is a constant of the library, which is loaded and never closed.
    unsafe { base().as_ref() }.ok_or_else(|| "OrtGetApiBase returns nothing".to_owned())
}

/// Runs inside ONNX Runtime's callback: it must not panic, and the `log` facade does not.
fn forward(level: LogLevel, message: &str) {
    let level = match level {
        LogLevel::Verbose => log::Level::Trace,
        LogLevel::Info => log::Level::Debug,
        LogLevel::Warning => log::Level::Warn,
        LogLevel::Error | LogLevel::Fatal => log::Level::Error,
    };
    log::log!(target: "onnxruntime", level, "{}", one_line(message, MAX_MESSAGE));
}

fn disable_telemetry() {
    const VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(VARIABLE).is_none_or(|v| v != "1") {
        // SAFETY: `Environment::get` documents that no other thread may be changing the environment now, and
        // the lock it holds makes this the only place in the crate that does.
        unsafe { std::env::set_var(VARIABLE, "1") };
    }
}

/// Makes a path absolute and without symbolic links where that can be told, so that two names of one file compare equal.
fn resolve(path: &Path) -> PathBuf {
    path.canonicalize().or_else(|_| std::path::absolute(path)).unwrap_or_else(|_| path.to_path_buf())
}

/// Finds the file that this code was loaded from: the executable, or libpi0_edge.so.
fn this_file() -> Option<PathBuf> {
    // SAFETY: all zeros is a valid Dl_info to be filled in.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: any address may be asked about, and `info` is valid to write to.
    if unsafe { libc::dladdr(this_file as *const libc::c_void, &mut info) } == 0 || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: the loader's own string, there for as long as this code is.
    let name = unsafe { std::ffi::CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

/// Lists the files to try, each with why it is looked at. One that was asked for by name stands alone.
fn candidates(explicit: Option<&Path>) -> Vec<(PathBuf, &'static str)> {
    if let Some(path) = explicit {
        return vec![(resolve(path), "asked for")];
    }
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH").filter(|p| !p.is_empty()) {
        return vec![(resolve(Path::new(&path)), "ORT_DYLIB_PATH")];
    }
    let executable = std::env::current_exe().ok().as_deref().map(resolve);
    let library = this_file().map(|p| resolve(&p)).filter(|p| Some(p) != executable.as_ref());
    let mut list = lookup::places(library.as_deref(), executable.as_deref(), Path::is_file);
    list.push((PathBuf::from(lookup::RUNTIME_LIBRARY), lookup::SYSTEM));
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_explicit_library_is_the_only_candidate() {
        let asked = Path::new("/nowhere/libonnxruntime.so");
        assert_eq!(candidates(Some(asked)), [(asked.to_path_buf(), "asked for")]);
    }

    #[test]
    fn without_a_name_the_places_are_tried_in_order() {
        if std::env::var_os("ORT_DYLIB_PATH").is_some() {
            return; // the developer's own choice wins, as it should
        }
        let origins: Vec<_> = candidates(None).iter().map(|(_, origin)| *origin).collect();
        assert_eq!(origins.first(), Some(&"beside the executable"));
        assert_eq!(origins.last(), Some(&"the system's library path"));
        assert!(!origins.contains(&"asked for") && origins.len() > 2);
    }
}
