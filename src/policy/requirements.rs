//! The demands of a bundle's graphs on the provider that is to run them.

use crate::bundle::{Manifest, Target};
use crate::error::Result;
use crate::provider::Provider;

/// Checks that TensorRT of `version`, by way of ONNX Runtime of `onnxruntime`, takes the bundle's graphs.
///
/// # Errors
/// [`ErrorKind::Provider`](crate::ErrorKind::Provider), saying what would run them.
pub(super) fn check_tensorrt(manifest: &Manifest, onnxruntime: &str, version: &str) -> Result<()> {
    check(manifest, Provider::TensorRt, onnxruntime)?;
    let Some(least) = &manifest.tensorrt else { return Ok(()) };
    ensure!(
        major_minor(version) >= major_minor(least),
        Provider,
        "the bundle's graphs need TensorRT {least} or newer, this is {version}; export with --target tensorrt \
         --tensorrt-version 10.3"
    );
    Ok(())
}

/// Checks that `provider`, of an ONNX Runtime of `version`, has every operator of the bundle's graphs.
///
/// # Errors
/// [`ErrorKind::Provider`](crate::ErrorKind::Provider), saying what would run them.
pub(super) fn check(manifest: &Manifest, provider: Provider, version: &str) -> Result<()> {
    let Some(least) = &manifest.onnxruntime else { return Ok(()) };
    ensure!(
        provider != Provider::TensorRt || manifest.target != Target::Cuda,
        Provider,
        "the bundle's graphs have operators of ONNX Runtime's own, which TensorRT does not take; run it with the \
         provider cuda, or export with --target tensorrt"
    );
    ensure!(
        major_minor(version) >= major_minor(least),
        Provider,
        "the bundle's graphs need ONNX Runtime {least} or newer, this is {version}; give a newer one, or export with \
         --target cpu"
    );
    Ok(())
}

/// The first two numbers of a version.
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.split(['.', ' ']).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::major_minor;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(major_minor("1.9.0 (0123abc)") < major_minor("1.31"));
        assert!(major_minor("1.31.1 (commit unknown)") >= major_minor("1.31"));
        assert!(major_minor("2.0.0") > major_minor("1.31"));
        assert_eq!(major_minor("main"), None);
    }
}
