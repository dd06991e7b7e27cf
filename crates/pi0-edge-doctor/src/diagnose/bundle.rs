//! Whether the machine suits the bundle.

use super::{Rules, list, size};
use crate::finding::{Code, Finding, Severity};
use crate::{BundleFacts, Provider};
use pi0_edge::internals::FORMAT_VERSION;

/// The first GPU architecture that computes in bf16.
const BF16: u32 = 80;

pub(super) fn judge(rules: &mut Rules<'_>) {
    let Some(bundle) = rules.bundle else { return };
    if let Some(problem) = &bundle.problem {
        rules.add(
            Finding::new(Code::BundleUnreadable, Severity::Error, format!("{}: {problem}", bundle.path))
                .remedy("name a bundle's directory, the one with manifest.json in it"),
        );
        return;
    }
    if bundle.format_version != Some(FORMAT_VERSION) {
        let found = bundle.format_version.map_or_else(|| "none".into(), |v| v.to_string());
        rules.add(
            Finding::new(
                Code::BundleFormat,
                Severity::Error,
                format!("{}: manifest version {found}, this program reads {FORMAT_VERSION}", bundle.path),
            )
            .remedy("export the bundle again with this release's exporter"),
        );
    }
    if !bundle.incomplete.is_empty() {
        let shown = &bundle.incomplete[..bundle.incomplete.len().min(4)];
        let more = bundle.incomplete.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        rules.add(
            Finding::new(
                Code::BundleIncomplete,
                Severity::Error,
                format!("{}: absent or of another size: {}{more}", bundle.path, list(shown)),
            )
            .remedy("copy the bundle again (rsync -a --checksum), then pi0-edge check BUNDLE"),
        );
    }
    summary(rules, bundle);
    precision(rules, bundle);
}

fn summary(rules: &mut Rules<'_>, bundle: &BundleFacts) {
    let word = |w: &Option<String>| w.clone().unwrap_or_else(|| "?".into());
    let target = bundle.target.map_or("?", Provider::as_str);
    let message = format!(
        "{}: {} in {} for {target}, {}",
        bundle.path,
        word(&bundle.policy),
        word(&bundle.precision),
        size(bundle.size)
    );
    match rules.wanted.filter(|w| Some(*w) != bundle.target) {
        // A bundle's graphs are of standard operators unless its target is one that has more.
        Some(wanted) => rules.add(Finding::new(
            Code::Bundle,
            Severity::Info,
            format!(
                "{message}, to be run on {wanted}: pi0-edge check --provider {wanted} tells whether it does"
            ),
        )),
        None => rules.ok(Code::Bundle, message),
    }
}

fn precision(rules: &mut Rules<'_>, bundle: &BundleFacts) {
    let architecture = rules.facts.gpu().and_then(|g| g.architecture);
    let cpu = rules.wanted == Some(Provider::Cpu);
    let x86 = rules.facts.system.architecture.as_deref() == Some("x86_64");
    let finding = |severity, message: &str| Finding::new(Code::PrecisionUnsupported, severity, message);
    match bundle.precision.as_deref() {
        Some("bf16") if cpu => rules.add(
            finding(
                Severity::Error,
                "ONNX Runtime's CPU provider has no bf16 matrix product: the bundle will not load",
            )
            .remedy("export the bundle with --precision fp32"),
        ),
        Some("bf16") if rules.wants_gpu() && architecture.is_some_and(|a| a < BF16) => rules.add(
            finding(Severity::Error, "this GPU does not compute in bf16 (compute capability 8.0 does first)")
                .remedy("export the bundle with --precision fp16"),
        ),
        Some("fp16") if cpu && x86 => rules.add(
            finding(
                Severity::Warning,
                "on x86_64 the CPU provider converts fp16 to fp32 at load, and needs the double",
            )
            .remedy("export the bundle with --precision fp32"),
        ),
        _ => {}
    }
}
