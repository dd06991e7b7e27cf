//! Rules on the bundle, and on the machine's fitness for it.

use super::{Rules, list, size};
use crate::finding::Code;
use crate::{BundleFacts, Provider};
use pi0_edge::internals::FORMAT_VERSION;

/// The first GPU architecture that computes in bf16.
const BF16: u32 = 80;

pub(super) fn judge(rules: &mut Rules<'_>) {
    let Some(bundle) = rules.bundle else { return };
    if let Some(problem) = &bundle.problem {
        rules.error(
            Code::BundleUnreadable,
            format!("{}: {problem}", bundle.path),
            "name a bundle's directory, the one with manifest.json in it",
        );
        return;
    }
    if bundle.format_version != Some(FORMAT_VERSION) {
        let found = bundle.format_version.map_or_else(|| "none".into(), |v| v.to_string());
        rules.error(
            Code::BundleFormat,
            format!("{}: manifest version {found}, this program reads {FORMAT_VERSION}", bundle.path),
            "export the bundle again with this release's exporter",
        );
    }
    if !bundle.incomplete.is_empty() {
        let shown = &bundle.incomplete[..bundle.incomplete.len().min(4)];
        let more = bundle.incomplete.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        rules.error(
            Code::BundleIncomplete,
            format!("{}: absent or of another size: {}{more}", bundle.path, list(shown)),
            "copy the bundle again (rsync -a --checksum), then pi0-edge check BUNDLE",
        );
    }
    summary(rules, bundle);
    if !bundle.golden {
        rules.info(
            Code::NoGoldenData,
            "no golden data: pi0-edge check can show that it computes, not that it is what the reference policy computes",
            "scripts/reference.py CHECKPOINT_DIR, then scripts/export.py again",
        );
    }
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
        Some(wanted) => rules.note(
            Code::Bundle,
            format!(
                "{message}, to be run on {wanted}: pi0-edge check --provider {wanted} tells whether it does"
            ),
        ),
        None => rules.ok(Code::Bundle, message),
    }
}

fn precision(rules: &mut Rules<'_>, bundle: &BundleFacts) {
    let architecture = rules.facts.gpu().and_then(|g| g.architecture);
    let cpu = rules.wanted == Some(Provider::Cpu);
    let x86 = rules.facts.system.architecture.as_deref() == Some("x86_64");
    let code = Code::PrecisionUnsupported;
    match bundle.precision.as_deref() {
        Some("bf16") if cpu => rules.error(
            code,
            "ONNX Runtime's CPU provider has no bf16 matrix product: the bundle will not load",
            "export the bundle with --precision fp32",
        ),
        Some("bf16") if rules.wants_gpu() && architecture.is_some_and(|a| a < BF16) => rules.error(
            code,
            "this GPU does not compute in bf16 (compute capability 8.0 does first)",
            "export the bundle with --precision fp16",
        ),
        Some("fp16") if cpu && x86 => rules.warn(
            code,
            "on x86_64 the CPU provider converts fp16 to fp32 at load, and needs the double",
            "export the bundle with --precision fp32",
        ),
        _ => {}
    }
}
