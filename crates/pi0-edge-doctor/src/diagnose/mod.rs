//! The rules: from facts to findings. Thresholds and advice live here and nowhere else.

mod bundle;
mod engines;
mod gpu;
mod memory;
mod onnxruntime;
mod power;
mod realtime;
mod remedy;

use std::path::Path;

use super::finding::{Code, Finding, Group, Report, Severity};
use super::{BundleFacts, Facts, Options, Provider};

/// Judges a machine, and whether it can run `bundle` with `provider` (by default the one the bundle was made for).
///
/// A need of the named bundle or provider that is not met is an error. Without a name, what a GPU that is there
/// cannot be used for is a warning, and the rest is information.
pub fn diagnose(facts: &Facts, bundle: Option<&BundleFacts>, provider: Option<Provider>) -> Report {
    let mut rules = Rules {
        facts,
        bundle,
        wanted: provider.or_else(|| bundle.and_then(|b| b.target)),
        findings: Vec::new(),
    };
    bundle::judge(&mut rules);
    onnxruntime::judge(&mut rules);
    gpu::judge(&mut rules);
    engines::judge(&mut rules);
    power::judge(&mut rules);
    realtime::judge(&mut rules);
    memory::judge(&mut rules);
    let mut findings = rules.findings;
    findings.sort_by_key(|f| (f.code.group(), f.severity));
    Report { findings, facts: facts.clone(), bundle: bundle.cloned() }
}

/// Returns what keeps this machine from using `provider` with the ONNX Runtime at `library`, and what to do about it.
///
/// `None` if nothing is found. For [`Provider::explain_failures_with`].
pub fn explain_failure(provider: Provider, library: &Path) -> Option<String> {
    let env = |name: &str| std::env::var(name).ok();
    let options = Options { ort_library: Some(library.to_path_buf()), ..Options::default() };
    let report = diagnose(&Facts::gather(Path::new("/"), &env, &options), None, Some(provider));
    let concerns = |f: &&Finding| {
        f.severity == Severity::Error && matches!(f.code.group(), Group::OnnxRuntime | Group::Gpu)
    };
    let reasons: Vec<String> = report.findings.iter().filter(concerns).map(reason).collect();
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

fn reason(finding: &Finding) -> String {
    match &finding.remedy {
        Some(remedy) => format!("{} (to do: {remedy})", finding.message),
        None => finding.message.clone(),
    }
}

/// The facts that the rules look at, and their findings so far.
struct Rules<'a> {
    facts: &'a Facts,
    bundle: Option<&'a BundleFacts>,
    wanted: Option<Provider>,
    findings: Vec<Finding>,
}

impl Rules<'_> {
    /// Adds a finding; of an empty remedy, there is nothing to do.
    fn find(
        &mut self,
        code: Code,
        severity: Severity,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        let remedy = Some(remedy.into()).filter(|r| !r.is_empty());
        self.findings.push(Finding { code, severity, message: message.into(), remedy });
    }

    fn error(&mut self, code: Code, message: impl Into<String>, remedy: impl Into<String>) {
        self.find(code, Severity::Error, message, remedy);
    }

    fn warn(&mut self, code: Code, message: impl Into<String>, remedy: impl Into<String>) {
        self.find(code, Severity::Warning, message, remedy);
    }

    fn info(&mut self, code: Code, message: impl Into<String>, remedy: impl Into<String>) {
        self.find(code, Severity::Info, message, remedy);
    }

    /// Adds information that calls for nothing.
    fn note(&mut self, code: Code, message: impl Into<String>) {
        self.find(code, Severity::Info, message, "");
    }

    fn ok(&mut self, code: Code, message: impl Into<String>) {
        self.find(code, Severity::Ok, message, "");
    }

    /// The severity of a library of `provider` that does not load. The TensorRT provider takes the CUDA provider's
    /// along, for the memory it gets from it.
    fn need_library(&self, provider: Provider) -> Severity {
        match self.wanted {
            Some(Provider::TensorRt) if provider == Provider::Cuda => Severity::Error,
            _ => self.need(provider),
        }
    }

    /// The severity of a `provider` that cannot be used.
    fn need(&self, provider: Provider) -> Severity {
        match self.wanted {
            Some(wanted) if wanted == provider => Severity::Error,
            None if self.facts.gpu().is_some() => Severity::Warning,
            _ => Severity::Info,
        }
    }

    /// Returns true if the run will use a GPU.
    fn wants_gpu(&self) -> bool {
        matches!(self.wanted, Some(Provider::Cuda | Provider::TensorRt))
    }
}

/// A size for people.
fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) if bytes.is_multiple_of(*unit) => format!("{} {name}", bytes / unit),
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

/// A list for people: `a, b and c`.
fn list<S: AsRef<str>>(items: &[S]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    match items.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_lists_read_well() {
        assert_eq!(size(4 << 20), "4 MiB");
        assert_eq!(size(1_500_000_000), "1.4 GiB");
        assert_eq!(size(12), "12 B");
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(list::<&str>(&[]), "");
    }
}
